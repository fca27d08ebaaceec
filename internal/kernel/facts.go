package kernel

import (
	"cmp"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sort"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/platform"
	"github.com/ds4relay/ds4relay/internal/state"
)

// Facts collects what Compile needs for the relays. Errors about single relays are in Failed.
func (k *Kernel) Facts(relays []*config.Relay) (state.Facts, error) {
	f := state.Facts{Peer: map[string]netip.Addr{}, Tunlink: map[string]string{}, Access: map[string]string{},
		Keys: map[string]state.Keys{}, PathMTU: map[string]int{}, Uplink: map[string]string{}, Narrow: map[string]int{},
		LAN: map[netip.Addr]string{}, Self: map[netip.Addr]bool{}, OnLink: map[string]string{},
		Card: map[string]netip.Addr{}}
	own, err := ownRoutes()
	if err != nil {
		return f, message.New("list routes: %v", err)
	}
	f.Own = own
	if f.IPTables, err = iptablesInUse(); err != nil && !forRoot(err) {
		return f, err
	}
	watched := k.Watched()
	f.Silent = SilentRelays(relays, &watched)
	f.FlowTables, f.MistakenTunnels = flowTables(relays), mistakesTunnels(release())
	f.Local, f.Waiting = map[string]netip.Addr{}, map[string]*message.Text{}
	networks, networksErr := k.networksFor(relays)
	f.Failed = map[string]error{}
	cards, err := cards(relays)
	if err != nil {
		return f, err
	}
	for _, r := range relays {
		if err := k.relayFacts(&f, r, cards[r.Name], relays, networks, networksErr); err != nil {
			f.Failed[r.Name] = message.New("relay %q: %v", r.Name, err)
		}
	}
	if slices.ContainsFunc(relays, func(r *config.Relay) bool { return r.Role == config.Router }) {
		if f.Inside, f.Connected, err = inside(unix.RT_TABLE_MAIN); err != nil {
			return f, message.New("list addresses and routes: %v", err)
		}
	}
	f.Closed, err = k.closed(slices.Concat(slices.Collect(maps.Values(f.Tunlink)),
		slices.Collect(maps.Values(f.Access)), slices.Collect(maps.Values(f.LAN))))
	return f, err
}

// inside returns the networks that this machine is connected to, and private networks that it has routes to: no client
// has an address there. A public network on the device with the default route is the provider's; clients may be in it.
// Routes are those of a table; with RT_TABLE_UNSPEC those of all tables that lead somewhere.
func inside(table int) (networks, connected []netip.Prefix, err error) {
	routes, err := dump(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, nil, err
	}
	addrs, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, unix.AF_INET) })
	if err != nil {
		return nil, nil, err
	}
	provider := map[int]bool{} // indices of devices
	for _, r := range routes {
		if bits, _ := maskBits(r.Dst); bits == 0 {
			provider[r.LinkIndex] = true
		}
	}
	seen := map[netip.Prefix]bool{}
	add := func(ipNet *net.IPNet, here bool, device int) {
		bits, addr := maskBits(ipNet)
		p := netip.PrefixFrom(addr, bits).Masked()
		if bits == 0 || seen[p] || !config.Reserved(p) && (!here || provider[device]) {
			return
		}
		seen[p] = true
		networks = append(networks, p)
		if here {
			connected = append(connected, p)
		}
	}
	for _, a := range addrs {
		add(a.IPNet, true, a.LinkIndex)
		if a.Peer != nil {
			add(a.Peer, true, a.LinkIndex)
		}
	}
	for _, r := range routes {
		if r.Protocol != state.Protocol && (table != unix.RT_TABLE_UNSPEC || r.Type == unix.RTN_UNICAST) {
			add(r.Dst, r.Scope == netlink.SCOPE_LINK, r.LinkIndex)
		}
	}
	for _, list := range [][]netip.Prefix{networks, connected} {
		sortPrefixes(list)
	}
	return networks, connected, nil
}

func sortPrefixes(list []netip.Prefix) {
	sort.SliceStable(list, func(i, j int) bool {
		a, b := list[i], list[j]
		return a.Addr().Less(b.Addr()) || a.Addr() == b.Addr() && a.Bits() < b.Bits()
	})
}

// maskBits returns an IPv4 network's prefix length and address; nil means the default route.
func maskBits(n *net.IPNet) (int, netip.Addr) {
	if n == nil || n.IP.To4() == nil {
		return 0, netip.IPv4Unspecified()
	}
	bits, _ := n.Mask.Size()
	return bits, netip.AddrFrom4([4]byte(n.IP.To4()))
}

// closed returns the devices that did not forward IPv4 before we turned it on, if forwarding is not on for the whole
// machine (net.ipv4.ip_forward, which is conf/all/forwarding).
func (k *Kernel) closed(devices []string) (map[string]bool, error) {
	closed := map[string]bool{}
	if all, err := readSysctl("net/ipv4/conf/all/forwarding"); err != nil || all != "0" {
		return closed, nil
	}
	saved, err := k.savedSysctls()
	if err != nil {
		return nil, err
	}
	for _, device := range devices {
		key := state.ForwardingKey(device)
		value, err := readSysctl(key)
		for _, s := range saved {
			if s.Key == key {
				value = s.Value
			}
		}
		if err == nil && value == "0" {
			closed[device] = true
		}
	}
	return closed, nil
}

// relayFacts collects the facts about one relay; an error says why it cannot be brought up.
func (k *Kernel) relayFacts(f *state.Facts, r *config.Relay, card state.Card, relays []*config.Relay,
	networks platform.Networks, networksErr error) error {
	if r.Awaited() {
		f.Waiting[r.Name] = message.New("its home (`ds4relay invite %s` prints an invitation for it)", r.Name)
		return nil
	}
	if r.Transport == config.WireGuard {
		keys, err := readKeys(r)
		if err != nil && !forRoot(err) {
			return err
		}
		f.Keys[r.Name] = keys
		f.IPv6 = f.IPv6 || hasIPv6()
	}
	local := r.Local
	if r.Auto {
		if networksErr != nil {
			return message.New("option ip6addr is auto: %v; give an address or a prefix", networksErr)
		}
		var awaited *message.Text
		var err error
		if local, awaited, err = k.autoLocal(r, networks); err != nil {
			return err
		}
		if !local.IsValid() {
			f.Waiting[r.Name] = awaited
			return nil
		}
		if awaited != nil {
			f.Notes = append(f.Notes, message.New("relay %q: missing now: %v; the tunnel keeps its endpoint", r.Name,
				awaited))
		}
		f.Local[r.Name] = local
	}
	peer := r.Peer
	if r.PeerName != "" {
		var note *message.Text
		var err error
		if peer, note, err = k.peer(r, relays); err != nil {
			return err
		}
		if note != nil {
			f.Notes = append(f.Notes, note)
		}
		f.Peer[r.Name] = peer
	}
	if peer == local && peer.IsValid() {
		return message.New("%s is the endpoint of both ends; ip6addr is this end's, peeraddr the other end's", peer)
	}
	if err := k.free(r, networks); err != nil {
		return err
	}
	if route, err := routeTo(peer, local); err == nil {
		f.PathMTU[r.Name], f.Uplink[r.Name] = route.mtu, route.device
	}
	k.narrow(f, r, local, peer)
	if uplink := uplinkOf(r, networks); uplink != nil {
		f.Tunlink[r.Name] = uplink.Device
	} else {
		held := orHeld(card, r)
		onCard := state.OnCard(r, held)
		tunlink, access, err := devices(onCard, card.Err, k.platform())
		if err == nil {
			err = clash(onCard)
		}
		if held.IsValid() {
			f.Card[r.Name] = held
		}
		if err != nil {
			if link, _ := k.linkOf(r); link == nil {
				return err
			}
			f.Notes = append(f.Notes, message.New("relay %q: %v; the tunnel stays as it is", r.Name, err))
			if device := k.heldBy(r, local, peer); device != "" {
				f.Tunlink[r.Name], f.Access[r.Name] = device, device
			}
		} else {
			f.Tunlink[r.Name], f.Access[r.Name] = tunlink, access
		}
	}
	if device := f.Tunlink[r.Name]; device != "" && !LinkUp(device) {
		f.Notes = append(f.Notes, message.New("relay %q: the device %s is down: nothing can arrive", r.Name, device))
	}
	if device := f.Tunlink[r.Name]; r.Transport == config.IPIP6 && noIPv6(device) {
		return message.New("IPv6 is off on %s; turn it on with `sysctl -w net.ipv6.conf.%s.disable_ipv6=0`, and in "+
			"/etc/sysctl.d for the next boot", device, strings.ReplaceAll(device, ".", "/"))
	}
	if r.Role != config.Router {
		return nil
	}
	if r.Transport == config.IPIP6 {
		device, err := askedOn(local, cmp.Or(f.Tunlink[r.Name], f.Uplink[r.Name]), r.Device)
		if err != nil {
			return err
		}
		if device != "" {
			f.OnLink[r.Name] = device
		}
	}
	for _, forward := range r.Forwards {
		if route, err := routeTo(forward.DestIP, netip.Addr{}); err == nil && route.device != "lo" {
			f.LAN[forward.DestIP] = route.device
			if route.local {
				f.Self[forward.DestIP] = true
			}
		}
	}
	return nil
}

// networksFor asks the platform for its networks if a relay may need them.
func (k *Kernel) networksFor(relays []*config.Relay) (platform.Networks, error) {
	here := k.platform()
	if !slices.ContainsFunc(relays, func(r *config.Relay) bool {
		return r.Role == config.Router && (r.Auto || here.NamesNetworks())
	}) {
		return nil, nil
	}
	return here.Networks()
}

func (k *Kernel) platform() platform.Platform {
	if k.Platform == nil {
		return platform.Debian{}
	}
	return k.Platform
}

func uplinkOf(r *config.Relay, networks platform.Networks) *platform.Uplink {
	if networks == nil {
		return nil
	}
	return networks.Uplink(r)
}

// free refuses a relay if somebody else uses the name that its tunnel would have on this platform.
func (k *Kernel) free(r *config.Relay, networks platform.Networks) error {
	if networks == nil {
		return nil
	}
	o := state.Observed{ForeignLinks: map[string]string{}}
	if _, err := k.observeLinks(&o); err != nil {
		return err
	}
	tunnels := []string{r.Device}
	for _, link := range o.Links {
		tunnels = append(tunnels, link.Name)
	}
	return networks.Free(r.Name, tunnels)
}

// linkOf returns the relay's tunnel if it is up, or nil.
func (k *Kernel) linkOf(r *config.Relay) (*state.Link, error) {
	o := state.Observed{ForeignLinks: map[string]string{}}
	if _, err := k.observeLinks(&o); err != nil {
		return nil, err
	}
	for i := range o.Links {
		if o.Links[i].Relay == r.Name {
			return &o.Links[i], nil
		}
	}
	return nil, nil
}

// ownRoutes returns the routes with our mark, in all tables.
func ownRoutes() ([]state.Route, error) {
	links, err := dump(netlink.LinkList)
	if err != nil {
		return nil, err
	}
	names := map[int]string{}
	for _, link := range links {
		names[link.Attrs().Index] = link.Attrs().Name
	}
	var o state.Observed
	err = observeRoutes(&o, state.State{}, names)
	return o.Routes, err
}

// fibRoute is an entry of the routing table.
type fibRoute struct {
	device  string
	index   int  // of the device
	mtu     int  // bytes
	local   bool // the address is this machine's own; device has it
	gateway bool // the address is behind another router
}

var errNobody = errors.New("the address is not known")

// routeTo looks up the routing table's entry for an address, without what the kernel has learnt about the path. Routes
// may depend on the source (OpenWrt's default routes do); without one for src, the others count.
func routeTo(dst, src netip.Addr) (fibRoute, error) {
	if !dst.IsValid() { // the kernel would log an attribute of the wrong length
		return fibRoute{}, errNobody
	}
	options := &netlink.RouteGetOptions{FIBMatch: true, SrcAddr: src.AsSlice()}
	routes, err := netlink.RouteGetWithOptions(dst.AsSlice(), options)
	if err != nil && src.IsValid() {
		options.SrcAddr = nil
		routes, err = netlink.RouteGetWithOptions(dst.AsSlice(), options)
	}
	if err != nil || len(routes) == 0 {
		return fibRoute{}, message.New("no route to %s", dst)
	}
	index := routes[0].LinkIndex
	if index == 0 && len(routes[0].MultiPath) > 0 {
		index = routes[0].MultiPath[0].LinkIndex
	}
	link, err := netlink.LinkByIndex(index)
	if err != nil {
		return fibRoute{}, err
	}
	mtu := link.Attrs().MTU
	if routes[0].MTU > 0 {
		mtu = min(mtu, routes[0].MTU)
	}
	return fibRoute{link.Attrs().Name, index, mtu, routes[0].Type == unix.RTN_LOCAL,
		len(routes[0].Gw) > 0 || routes[0].Via != nil}, nil
}

// LinkUp reports whether a device exists and is up.
func LinkUp(device string) bool {
	link, err := netlink.LinkByName(device)
	return err == nil && link.Attrs().RawFlags&unix.IFF_UP != 0
}

// devices returns the device that carries the tunnel, and on a VPS the one on which clients arrive, which has the
// relay's IPv4 address, or the one that a cloud translates it to; cardErr says why that is not known. If only one is
// known, it is used for both.
func devices(r *config.Relay, cardErr error, here platform.Platform) (tunlink, access string, err error) {
	links, err := dump(netlink.LinkList)
	if err != nil {
		return "", "", err
	}
	var names []string
	for _, link := range links {
		if link.Attrs().Name == r.Tunlink {
			tunlink = r.Tunlink
		}
		names = append(names, link.Attrs().Name)
	}
	switch {
	case r.Role == config.Router && here.NamesNetworks():
		return tunlink, "", nil
	case tunlink != r.Tunlink:
		return "", "", message.New("there is no device %s (option tunlink); this machine has: %s", r.Tunlink,
			strings.Join(names, ", "))
	case r.Role == config.Router:
		return tunlink, "", nil
	case cardErr != nil:
		return "", "", cardErr
	case r.Standby:
		if tunlink = cmp.Or(tunlink, standbyDevice(r)); tunlink == "" {
			return "", "", message.New("it is not known by which device clients arrive when this VPS has %s (option "+
				"standby); name it with: option tunlink", r.IPAddr)
		}
		return tunlink, tunlink, nil
	}
	addrs, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, unix.AF_INET) })
	if err != nil {
		return "", "", err
	}
	for _, a := range addrs {
		if addr, ok := netip.AddrFromSlice(a.IP.To4()); ok && addr == r.Card() {
			link, err := netlink.LinkByIndex(a.LinkIndex)
			if err != nil {
				return "", "", err
			}
			access = link.Attrs().Name
			switch {
			case tunlink == "":
				tunlink = access
			case link.Attrs().Flags&net.FlagLoopback != 0: // the address is routed to this machine
				access = tunlink
			}
			return tunlink, access, nil
		}
	}
	switch {
	case r.NICAddr.IsValid():
		return "", "", message.New("no device has the address %s (option nicaddr); `ip -4 address` shows which there "+
			"are", r.NICAddr)
	case tunlink == "":
		return "", "", message.New("no device has the address %s (option ipaddr); correct it, or, if a cloud "+
			"translates it, name the address that a device has with: option nicaddr; or name the device that it "+
			"reaches this machine by with: option tunlink", r.IPAddr)
	}
	return tunlink, tunlink, nil
}
