package fake

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/state"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// Kernel is a machine's network, and the records that package kernel keeps in /run. The zero value has no devices.
type Kernel struct {
	// Devices are the links of others, all up. Their MTU is 1500.
	Devices []string
	// Devices that Facts reports: Tunlink carries the tunnel, LAN is the hosts' network on a router.
	Tunlink, LAN string
	IPTables     state.IPTables
	// Interrupt is called between the parts of a step that consists of several kernel operations; may be nil.
	Interrupt func()
	// Fail is called before each operation; its error makes the operation fail. May be nil.
	Fail func(Operation) error
	// Names are the DNS records; a lookup of a name without addresses fails.
	Names map[string][]netip.Addr
	// Own are addresses that the machine has anyway, which are no other end's.
	Own []netip.Addr

	links      []state.Link
	addrs      []state.Addr
	routes     []state.Route
	rules      []state.Rule
	sysctls    map[string]string // changed ones
	ruleset    ruleset
	allowances []state.Allowance

	records records
}

// ErrNoAddress is wrapped if a name cannot be looked up, or has only addresses of this machine.
var ErrNoAddress = errors.New("no address of")

// New returns a machine with these devices; the first carries the tunnels, the second, if any, has the hosts behind it.
func New(devices ...string) *Kernel {
	k := &Kernel{Devices: devices, Tunlink: devices[0], sysctls: map[string]string{}, ruleset: ruleset{},
		records: records{tables: map[string]record{}, peers: map[string]netip.Addr{},
			paths: map[string]state.PathNote{}}}
	if len(devices) > 1 {
		k.LAN = devices[1]
	}
	return k
}

// Facts implements reconcile.Kernel: every relay has its devices, every path an MTU of 1500 bytes, and every host is in
// the network LAN.
func (k *Kernel) Facts(relays []*config.Relay) (state.Facts, error) {
	f := state.Facts{Keys: map[string]state.Keys{}, Peer: map[string]netip.Addr{},
		Tunlink: map[string]string{}, Access: map[string]string{},
		PathMTU: map[string]int{}, LAN: map[netip.Addr]string{},
		Own: slices.Clone(k.routes), IPTables: k.IPTables, FlowTables: true}
	if err := k.fail(Dump); err != nil {
		return f, err
	}
	f.Silent = kernel.SilentRelays(relays, &k.records.watched)
	for _, r := range relays {
		if r.PeerName != "" {
			var err error
			if f.Peer[r.Name], err = k.peer(r, relays); err != nil {
				return f, err
			}
		}
		if r.Transport == config.WireGuard {
			f.Keys[r.Name] = state.Keys{Private: transport.Secret{byte(len(r.Name)), 1}}
			if r.WireGuard.PresharedFile != "" {
				f.Keys[r.Name] = state.Keys{Private: transport.Secret{byte(len(r.Name)), 1},
					Preshared: transport.Secret{2}}
			}
		}
		f.Tunlink[r.Name], f.PathMTU[r.Name] = k.Tunlink, 1500
		if r.Role == config.VPS {
			f.Access[r.Name] = k.Tunlink
			continue
		}
		for _, forward := range r.Forwards {
			f.LAN[forward.DestIP] = k.LAN
		}
	}
	f.Closed = map[string]bool{}
	for _, device := range k.Devices {
		key := state.ForwardingKey(device)
		value, _ := k.sysctl(key)
		for _, s := range k.savedSysctls() {
			if s.Key == key {
				value = s.Value
			}
		}
		f.Closed[device] = value == "0"
	}
	return f, nil
}

// Observe implements reconcile.Kernel.
func (k *Kernel) Observe(want state.State) (state.Observed, error) {
	o := state.Observed{SysctlValues: map[string]string{}, ForeignLinks: map[string]string{},
		ForeignAddrs: map[netip.Addr]string{}}
	for range 6 { // links, addresses, routes, rules, tables, rules of iptables
		if err := k.fail(Dump); err != nil {
			return o, err
		}
	}
	o.Links, o.Addrs, o.Routes, o.Rules = slices.Clone(k.links), slices.Clone(k.addrs), slices.Clone(k.routes),
		slices.Clone(k.rules)
	o.Allowances, o.SavedSysctls = slices.Clone(k.allowances), k.savedSysctls()
	for _, device := range k.Devices {
		o.ForeignLinks[device] = "veth"
	}
	for _, s := range slices.Concat(want.Sysctls, k.savedSysctls()) {
		if value, err := k.sysctl(s.Key); err == nil {
			o.SysctlValues[s.Key] = value
		}
	}
	for _, link := range k.links {
		for _, name := range state.LinkSysctls {
			key := "net/ipv4/conf/" + link.Name + "/" + name
			value, err := k.sysctl(key)
			if err != nil {
				return o, err
			}
			o.Sysctls = append(o.Sysctls, state.Sysctl{Key: key, Value: value, Device: link.Name})
		}
	}
	for _, name := range []string{"ip " + state.TableName, "ip6 " + state.TableName, "ip " + state.FlowTableName,
		"ip " + state.KillTableName} {
		t := k.ruleset[name]
		if t == nil {
			continue
		}
		if t.chains[state.MarkChain] == nil {
			o.ForeignTables = append(o.ForeignTables, name)
			continue
		}
		o.Tables = append(o.Tables, k.observeTable(name, t))
	}
	return o, nil
}

func (k *Kernel) observeTable(name string, t *table) state.Table {
	var shown state.Table
	shown.Family, shown.Name, _ = strings.Cut(name, " ")
	record := k.records.tables[name]
	if record.sum != t.sum() {
		shown.Ruleset = t.text(name)
		return shown
	}
	shown.Ruleset = record.ruleset
	for _, set := range record.sets {
		if s := t.sets[set.Name]; s != nil {
			for _, key := range slices.Sorted(maps.Keys(s.elements)) {
				set.Elements = append(set.Elements,
					state.Element{Key: readKey(key, set.Key), Value: readValue(s.elements[key], set.Value)})
			}
		}
		shown.Sets = append(shown.Sets, set)
	}
	return shown
}

func (k *Kernel) link(name string) *state.Link {
	for i := range k.links {
		if k.links[i].Name == name {
			return &k.links[i]
		}
	}
	return nil
}

func (k *Kernel) hasDevice(name string) bool {
	return name == "lo" || slices.Contains(k.Devices, name) || k.link(name) != nil
}

// initial returns the value of a sysctl that nobody has changed.
func initial(key string) string {
	if strings.HasSuffix(key, "/send_redirects") {
		return "1"
	}
	return "0"
}

// sysctl returns a value below net/ipv4/conf.
func (k *Kernel) sysctl(key string) (string, error) {
	parts := strings.Split(key, "/")
	if len(parts) != 5 || !k.hasDevice(parts[3]) && parts[3] != "all" {
		return "", fmt.Errorf("%s: %w", key, syscall.ENOENT)
	}
	if value, ok := k.sysctls[key]; ok {
		return value, nil
	}
	return initial(key), nil
}

func (k *Kernel) interrupt() {
	if k.Interrupt != nil {
		k.Interrupt()
	}
}

// add appends an item that must not exist yet.
func add[T comparable](items *[]T, item T) error {
	if slices.Contains(*items, item) {
		return syscall.EEXIST
	}
	*items = append(*items, item)
	return nil
}

// remove deletes an item that must exist; otherwise it returns the error missing.
func remove[T comparable](items *[]T, item T, missing error) error {
	i := slices.Index(*items, item)
	if i < 0 {
		return missing
	}
	*items = slices.Delete(*items, i, i+1)
	return nil
}

// Apply implements reconcile.Kernel. It returns the same errors as a kernel.
func (k *Kernel) Apply(step state.Step) error {
	operation := Change
	if load, ok := step.(state.LoadTables); ok && load.Script != "" {
		operation = Nft
	}
	if err := k.fail(operation); err != nil {
		return err
	}
	switch s := step.(type) {
	case state.AddLink:
		return k.addLink(s.Link)
	case state.DelLink:
		return k.delLink(s.Link.Name)
	case state.ChangeLink:
		return k.changeLink(s.To)
	case state.SetAlias:
		return k.onLink(s.Device, func(l *state.Link) { l.Relay = s.To })
	case state.SetMTU:
		return k.onLink(s.Device, func(l *state.Link) { k.setMTU(l, s.To) })
	case state.SetGroup:
		return k.onLink(s.Device, func(l *state.Link) { l.Group = s.To })
	case state.SetUp:
		return k.onLink(s.Device, func(l *state.Link) { k.setUp(l, s.Up) })
	case state.AddAddr:
		return k.addAddr(s.Addr)
	case state.DelAddr:
		if err := remove(&k.addrs, s.Addr, syscall.EADDRNOTAVAIL); !errors.Is(err, syscall.EADDRNOTAVAIL) {
			return err
		}
		return nil // it was removed with the link
	case state.AddRoute:
		return k.addRoute(s.Route)
	case state.DelRoute:
		return remove(&k.routes, s.Route, syscall.ESRCH)
	case state.AddRule:
		return add(&k.rules, s.Rule)
	case state.DelRule:
		return remove(&k.rules, s.Rule, syscall.ENOENT)
	case state.SetSysctl:
		return k.setSysctl(s)
	case state.LoadTables:
		return k.loadTables(s)
	case state.SetPeer:
		return k.setPeer(s)
	case state.AddAllowance:
		return add(&k.allowances, s.Allowance)
	case state.DelAllowance:
		return remove(&k.allowances, s.Allowance, errors.New("bad rule (does a matching rule exist in that chain?)"))
	case state.EndFlows:
		return nil
	}
	return fmt.Errorf("unknown step %T", step)
}

func (k *Kernel) onLink(name string, f func(*state.Link)) error {
	link := k.link(name)
	if link == nil {
		return syscall.ENODEV
	}
	f(link)
	return nil
}

// newWireGuardMTU is the MTU of a new device (wg_setup in drivers/net/wireguard/device.c).
const newWireGuardMTU = 1420

// tunnelMTU is the MTU that the kernel gives a tunnel over a path of 1500 bytes (ip6_tnl_link_config in
// net/ipv6/ip6_tunnel.c).
func tunnelMTU(l state.Link) int {
	if l.Tunnel.Kind() == transport.WireGuardKind {
		return newWireGuardMTU
	}
	return transport.DefaultPathMTU - l.Tunnel.Overhead()
}

// sameEnds reports whether another tunnel has the same addresses; the kernel allows only one (ip6_tnl_locate).
func (k *Kernel) sameEnds(l state.Link) bool {
	return l.Tunnel.Kind() == transport.IPIP6Kind && slices.ContainsFunc(k.links, func(other state.Link) bool {
		return other.Tunnel.Kind() == l.Tunnel.Kind() && other.Name != l.Name &&
			other.Local() == l.Local() && other.Remote() == l.Remote()
	})
}

func (k *Kernel) addLink(l state.Link) error {
	if k.hasDevice(l.Name) || k.sameEnds(l) {
		return syscall.EEXIST
	}
	l.Relay, l.Up, l.MTU = "", false, tunnelMTU(l)
	if l.Tunnel.Kind() == transport.WireGuardKind {
		l.Tunnel = transport.WireGuard{} // until a SetPeer
	}
	k.links = append(k.links, l)
	return nil
}

func (k *Kernel) delLink(name string) error {
	if k.link(name) == nil {
		return syscall.ENODEV
	}
	k.flush(name)
	k.links = slices.DeleteFunc(k.links, func(l state.Link) bool { return l.Name == name })
	maps.DeleteFunc(k.sysctls, func(key, _ string) bool { return strings.HasPrefix(key, "net/ipv4/conf/"+name+"/") })
	k.ruleset.forget(name)
	return nil
}

// flush removes what a device loses when it is set down or removed.
func (k *Kernel) flush(device string) {
	k.addrs = slices.DeleteFunc(k.addrs, func(a state.Addr) bool { return a.Device == device })
	k.routes = slices.DeleteFunc(k.routes, func(r state.Route) bool { return r.Device == device })
}

// setPeer sets up a tunnel of WireGuard. Its kernel knows no names of files.
func (k *Kernel) setPeer(s state.SetPeer) error {
	link := k.link(s.Device)
	if link == nil {
		return syscall.ENODEV
	}
	if link.Tunnel.Kind() != transport.WireGuardKind {
		return syscall.EOPNOTSUPP
	}
	link.Tunnel = s.To.InKernel()
	return nil
}

func (k *Kernel) changeLink(l state.Link) error {
	if k.link(l.Name) == nil {
		return syscall.ENODEV
	}
	if k.sameEnds(l) {
		return syscall.EEXIST
	}
	have := k.link(l.Name)
	have.Tunnel = l.Tunnel
	k.setMTU(have, tunnelMTU(l))
	return nil
}

// minIPv6MTU is the smallest MTU of a device with IPv6 addresses (addrconf_notify in net/ipv6/addrconf.c).
const minIPv6MTU = 1280

func (k *Kernel) setMTU(l *state.Link, mtu int) {
	l.MTU = mtu
	if mtu < minIPv6MTU {
		k.addrs = slices.DeleteFunc(k.addrs, func(a state.Addr) bool { return a.Device == l.Name })
	}
}

func (k *Kernel) setUp(l *state.Link, up bool) {
	l.Up = up
	if up && l.Tunnel.Kind() == transport.WireGuardKind { // wg_open in drivers/net/wireguard/device.c
		k.sysctls["net/ipv4/conf/all/send_redirects"] = "0"
	}
	if !up {
		k.flush(l.Name)
	}
}

func (k *Kernel) addAddr(a state.Addr) error {
	if !k.hasDevice(a.Device) {
		return syscall.ENODEV
	}
	if link := k.link(a.Device); link != nil && link.MTU < minIPv6MTU {
		return syscall.EINVAL
	}
	return add(&k.addrs, a)
}

func (k *Kernel) addRoute(r state.Route) error {
	if !k.hasDevice(r.Device) {
		return syscall.ENODEV
	}
	if link := k.link(r.Device); link != nil && !link.Up {
		return syscall.ENETDOWN
	}
	if slices.ContainsFunc(k.routes, func(other state.Route) bool {
		return other.Table == r.Table && other.Dst == r.Dst
	}) {
		return syscall.EEXIST
	}
	return add(&k.routes, r)
}

// setSysctl works like package kernel: it records the previous value before the change.
func (k *Kernel) setSysctl(s state.SetSysctl) error {
	noted := slices.ContainsFunc(k.records.saved, func(saved state.Sysctl) bool { return saved.Key == s.Key })
	if s.Save && !noted {
		if err := k.fail(Write); err == nil {
			k.records.saved = append(k.records.saved, state.Sysctl{Key: s.Key, Value: s.From})
		} else if !slices.Contains(k.savedSysctls(), state.Sysctl{Key: s.Key, Value: s.From}) {
			return err
		}
		k.interrupt()
	}
	_, err := k.sysctl(s.Key)
	if err == nil {
		k.sysctls[s.Key] = s.To
	}
	if s.Forget && errors.Is(err, syscall.ENOENT) {
		err = nil
	}
	if s.Save && err != nil || s.Forget && err == nil {
		k.interrupt()
		if failed := k.fail(Remove); failed != nil {
			return errors.Join(err, &kernel.Unrecorded{Err: failed})
		}
		k.records.saved = slices.DeleteFunc(k.records.saved, func(saved state.Sysctl) bool {
			return saved.Key == s.Key
		})
	}
	return err
}

// loadTables works like package kernel: nft's transaction, that of the elements, then the records.
func (k *Kernel) loadTables(s state.LoadTables) error {
	before := k.ruleset
	after, err := before.run(s.Script, k.hasDevice)
	if err != nil {
		return err
	}
	k.ruleset = after
	if s.Script != "" {
		err = k.fail(NftDone)
		if err == nil && len(s.Elements) > 0 {
			k.interrupt()
			err = k.fail(Change)
		}
	}
	if err == nil {
		after, err = k.ruleset.run(state.ElementsScript(s.Elements), k.hasDevice)
	}
	switch {
	case err != nil && s.Script == "":
		return err
	case err != nil:
		return k.unload(s, before, err)
	}
	k.ruleset = after
	return k.noteTables(s)
}

// unload takes back a script, whose elements were not changed. What it cannot take back is as before anyway: nft was
// killed before its transaction.
func (k *Kernel) unload(s state.LoadTables, before ruleset, err error) error {
	former := slices.DeleteFunc(slices.Clone(s.BackElements), func(c state.SetChange) bool { return !c.New })
	back, failed := k.ruleset.run(s.Back+state.ElementsScript(former), k.hasDevice)
	if failed != nil {
		k.ruleset = before
		return err
	}
	k.ruleset = back
	return errors.Join(err, k.noteTables(state.LoadTables{Loaded: s.Former, Former: s.Loaded}))
}

// Snapshot returns the whole state as text in a fixed order: equal texts mean equal kernels.
func (k *Kernel) Snapshot() string {
	var lines []string
	for _, l := range k.links {
		lines = append(lines, fmt.Sprintf("link %+v", l))
	}
	for _, a := range k.addrs {
		lines = append(lines, fmt.Sprintf("address %v dev %s", a.Addr, a.Device))
	}
	for _, r := range k.routes {
		lines = append(lines, "route "+strings.Join(state.AddRoute{Route: r}.Commands(), ""))
	}
	for _, r := range k.rules {
		lines = append(lines, "rule "+strings.Join(state.AddRule{Rule: r}.Commands(), ""))
	}
	for key, value := range k.sysctls {
		if value != initial(key) {
			lines = append(lines, "sysctl "+key+" "+value)
		}
	}
	for _, s := range k.savedSysctls() {
		lines = append(lines, "saved "+s.Key+" "+s.Value)
	}
	for _, a := range k.allowances {
		lines = append(lines, fmt.Sprintf("allowance %v", a))
	}
	for name, t := range k.ruleset {
		lines = append(lines, t.canonical(name))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
