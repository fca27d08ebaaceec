package state

import (
	_ "embed" // the rulesets
	"net/netip"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// Facts is what Compile needs to know about this machine.
type Facts struct {
	Peer    map[string]netip.Addr // relay → the other end's endpoint, where the configuration has a name
	Tunlink map[string]string     // relay → the device that it rides on; missing where there is none
	Access  map[string]string     // relay → on a VPS the device with its IPv4 address; missing where none has
	Card    map[string]netip.Addr // relay → on a VPS what its cloud translates the public address to, if found out
	PathMTU map[string]int        // relay → MTU in bytes of the route to the other end; missing without a route
	Uplink  map[string]string     // relay → device of the route to the other end; missing without a route
	Keys    map[string]Keys       // relay → its secrets, with transport wireguard
	IPv6    bool                  // on a VPS: there is a route to the internet of IPv6
	Silent  map[string]bool       // relay → on a router: its VPS is silent, as far as the run of each minute knows
	Narrow  map[string]int        // relay → the largest packet of the tunnel that passes, if a probe has measured it
	LAN     map[netip.Addr]string // host → device of the route to it; missing where there is none
	Self    map[netip.Addr]bool   // hosts that are this router itself
	Own     []Route               // our routes that are there already
	// Relay → this end's endpoint, where it is auto; missing while there is no prefix.
	Local     map[string]netip.Addr
	Waiting   map[string]*message.Text // relay → what it waits for, if something
	Failed    map[string]error         // relay → why it cannot be brought up, if so
	Notes     []*message.Text          // what a person should know
	Inside    []netip.Prefix           // on a router: networks whose addresses nobody outside has
	Connected []netip.Prefix           // on a router: those of them that it has an address in
	Closed    map[string]bool          // devices that did not forward IPv4 before we had them do so
	// Relay → on a router the device where neighbours ask for its endpoint, if they do.
	OnLink map[string]string

	IPTables   IPTables
	FlowTables bool // whether the kernel and nft have them
	// A flowtable takes a tunnel of IPv4 in IPv6 for one of IPv6 in IPv6 (docs/dev/kernel.md, Linux 7).
	MistakenTunnels bool
}

// Keys are the secrets of one end of a relay.
type Keys struct {
	Private, Preshared transport.Secret
}

// Resolve fills in endpoints that the configuration leaves open. It drops relays that wait for an endpoint or for their
// home, or cannot be brought up.
func Resolve(relays []*config.Relay, facts Facts) []*config.Relay {
	var ready []*config.Relay
	for _, r := range relays {
		if facts.Failed[r.Name] != nil || r.Awaited() {
			continue
		}
		if r.Auto {
			local, ok := facts.Local[r.Name]
			if !ok {
				continue
			}
			known := *r
			known.Local = local
			r = &known
		}
		ready = append(ready, OnCard(r, facts.Card[r.Name]))
	}
	return ready
}

// OnCard returns the relay with the address of the VPS's network card, if that was found out.
func OnCard(r *config.Relay, card netip.Addr) *config.Relay {
	if !card.IsValid() || r.NICAddr.IsValid() {
		return r
	}
	known := *r
	known.NICAddr = card
	return &known
}

// Compile returns the state that the given relays need on this machine.
func Compile(relays []*config.Relay, facts Facts) State {
	var s State
	s.compileKillSwitch(relays, facts)
	relays = Resolve(relays, facts)
	vps := &vpsTables{elements: elements{}}
	router := newRouterTables(relays, facts)
	outer := outerMark(relays, router.egress)
	var onVPS []*config.Relay
	for _, r := range relays {
		if r.Role == config.VPS {
			onVPS = append(onVPS, r)
		}
	}
	vps.slots = assignSlots(onVPS, facts.Own)
	vps.addKeeps(onVPS)
	vps.addSlots(onVPS)
	vps.addOwn(onVPS)
	for _, r := range relays {
		link := Link{Name: r.Device, Relay: r.Name, Tunnel: tunnel(r, facts, outer), MTU: TunnelMTU(r, facts),
			Group: Group, Up: true}
		s.Links = append(s.Links, link)
		s.Sysctls = append(s.Sysctls, Sysctl{Key: deviceKey(link.Name, "forwarding"), Value: "1", Device: link.Name})
		if r.Transport == config.WireGuard {
			s.Sysctls = append(s.Sysctls, Sysctl{Key: redirectsKey, Value: "0"})
		}
		if r.Role == config.VPS {
			s.compileVPS(r, facts, vps.slots)
			s.Allowances = append(s.Allowances, allowances(link, facts.IPTables)...)
			vps.add(r, link)
		} else {
			s.compileRouter(r, facts, link, router)
			s.Allowances = append(s.Allowances, homeAllowances(link, facts.IPTables, homeNeeds(r, facts.Self))...)
			router.add(r, link, facts)
		}
	}
	if table, ok := natTable(vps, router, s.fenced(facts)); ok {
		s.Tables = append(s.Tables, table)
	}
	if table, ok := outerTable(vps, router); ok {
		s.Tables = append(s.Tables, table)
	}
	if table, ok := offloadTable(relays, facts, vps.slots); ok {
		s.Tables = append(s.Tables, table)
	}
	s.normalize()
	return s
}

// redirectsKey is the sysctl that the kernel turns off when a device of WireGuard is set up (wg_open in
// drivers/net/wireguard/device.c). A step does it before, so that `down` puts it back.
const redirectsKey = "net/ipv4/conf/all/send_redirects"

// liberalKey is the sysctl with which connection tracking takes segments outside the window that it has seen for valid
// ones. Of a connection that another VPS has carried for a while, it has not seen the last window. Packets that are not
// valid are not translated either: they reach this machine, which resets the connection (or drops them, vps.nft).
const liberalKey = "net/netfilter/nf_conntrack_tcp_be_liberal"

// TunnelMTU is the MTU of a relay's tunnel in bytes.
func TunnelMTU(r *config.Relay, facts Facts) int {
	mtu := RouteMTU(r, facts)
	if narrow, ok := facts.Narrow[r.Name]; ok && r.MTU == 0 {
		mtu = min(mtu, narrow)
	}
	return mtu
}

// RouteMTU is the MTU in bytes that a relay's tunnel has as far as the configuration and the route to the other end
// say. A device may carry more than Ethernet's 1500 bytes, as in clouds, but the internet does not.
func RouteMTU(r *config.Relay, facts Facts) int {
	if r.MTU != 0 {
		return r.MTU
	}
	mtu, ok := facts.PathMTU[r.Name]
	if !ok {
		mtu = transport.DefaultPathMTU
	}
	peer := PeerOf(r, facts)
	if r.Transport == config.WireGuard && r.Role == config.VPS && !facts.IPv6 {
		peer = netip.IPv4Unspecified() // wherever it is
	}
	return min(mtu, transport.DefaultPathMTU) - TunnelOf(r, r.Local, peer).Overhead()
}

// PeerOf is the other end's endpoint, as far as it is known before the tunnel is up.
func PeerOf(r *config.Relay, facts Facts) netip.Addr {
	if r.PeerName != "" {
		return facts.Peer[r.Name]
	}
	return r.Peer
}

// TunnelOf is a relay's tunnel between these endpoints, as far as they are known: the configuration may leave them open
// (auto, a DNS name).
func TunnelOf(r *config.Relay, local, peer netip.Addr) transport.Tunnel {
	if r.Transport == config.WireGuard {
		w := r.WireGuard
		t := transport.WireGuard{Peer: w.PublicKey, Keepalive: w.Keepalive, PrivateFile: w.PrivateFile,
			PresharedFile: w.PresharedFile}
		if r.Role == config.VPS {
			t.ListenPort = w.Port
		}
		if peer.IsValid() {
			t.Remote = netip.AddrPortFrom(peer, w.Port)
		}
		return t
	}
	return transport.IPIP6{Local: local, Remote: peer, EncapLimit: r.EncapLimit, TTL: r.TTL}
}

// tunnel is a relay's tunnel with all that it has in the kernel; outer is the mark of WireGuard's outer packets.
func tunnel(r *config.Relay, facts Facts, outer uint32) transport.Tunnel {
	t := TunnelOf(r, r.Local, PeerOf(r, facts))
	w, ok := t.(transport.WireGuard)
	if !ok {
		return t
	}
	w.Private, w.Preshared, w.Mark = facts.Keys[r.Name].Private, facts.Keys[r.Name].Preshared, outer
	w.AllowedIPs = "0.0.0.0/0"
	if r.Role == config.VPS {
		var list []string
		for _, host := range hosts(r) {
			list = append(list, host.String()+"/32")
		}
		w.AllowedIPs = strings.Join(list, ",")
	}
	return w
}

// outerMark is the packet mark of WireGuard's outer packets: the highest one that no relay's connections use, and that
// is not the one of hosts with egress all. Otherwise a machine that is such a host itself would send them into the
// tunnel.
func outerMark(relays []*config.Relay, egress uint32) uint32 {
	mark := egress - 1<<24
	for slices.ContainsFunc(relays, func(r *config.Relay) bool { return r.Role == config.Router && r.Mark() == mark }) {
		mark -= 1 << 24
	}
	return mark
}

// fenced returns the devices that forward for us and did not forward before.
func (s *State) fenced(facts Facts) []string {
	var devices []string
	for device, closed := range facts.Closed {
		forwards := Sysctl{Key: ForwardingKey(device), Value: "1"}
		if closed && slices.Contains(s.Sysctls, forwards) {
			devices = append(devices, device)
		}
	}
	slices.Sort(devices)
	return devices
}

// ForwardingKey is the sysctl that makes a device forward IPv4.
func ForwardingKey(device string) string { return deviceKey(device, "forwarding") }

func deviceKey(device, name string) string { return "net/ipv4/conf/" + device + "/" + name }

func (s *State) compileVPS(r *config.Relay, facts Facts, slots slots) {
	if tunlink := facts.Tunlink[r.Name]; tunlink != "" && r.Transport == config.IPIP6 {
		s.Addrs = append(s.Addrs, Addr{Addr: r.Local, Device: tunlink})
		s.Sysctls = append(s.Sysctls, Sysctl{Key: deviceKey(tunlink, "forwarding"), Value: "1"})
	}
	if access := facts.Access[r.Name]; access != "" {
		s.Sysctls = append(s.Sysctls, Sysctl{Key: deviceKey(access, "forwarding"), Value: "1"})
	}
	if r.Standby {
		s.Sysctls = append(s.Sysctls, Sysctl{Key: liberalKey, Value: "1"})
	}
	slot, hasSlot := slots.of[r.Name]
	for _, host := range hosts(r) {
		route := Route{Table: MainTable, Dst: netip.PrefixFrom(host, 32), Device: r.Device}
		if slots.has(r.Name, host) {
			route.Table = slotTable + uint32(slot)
		}
		s.Routes = append(s.Routes, route)
	}
	validMark := "0"
	if hasSlot {
		s.Rules = append(s.Rules, Rule{Priority: r.Priority, Mark: markOfSlot(slot), Mask: slotMarkMask,
			Table: slotTable + uint32(slot)})
		validMark = "1"
	}
	s.Sysctls = append(s.Sysctls, Sysctl{Key: deviceKey(r.Device, "src_valid_mark"), Value: validMark,
		Device: r.Device})
}

// lastPriority is the priority of the ip rules that follow those of the tables main and default (32766 and 32767). They
// lead to lastTable, whose default route is the loopback device. A packet that the router itself sends gets its mark in
// the output hook, and is then routed into the tunnel. For rp_filter the same lookup does not end in the tunnel, so no
// unmarked packet gets out of it.
const (
	lastPriority = 46000
	lastTable    = slotTable
)

// protoICMP is ICMP's protocol number (RFC 792). In a route lookup for an ICMP packet that this machine sends, type and
// code take the place of the ports (flowi4's uli; icmpErrors are types 3, 11 and 12 with any code). In rp_filter's
// lookup they are 0.
const protoICMP = 1

var icmpErrors = [][2]uint16{{3 << 8, 3<<8 | 0xff}, {11 << 8, 12<<8 | 0xff}}

// minIPv6MTU is the least MTU in bytes of a device with IPv6 addresses (IPV6_MIN_MTU; RFC 8200 §5).
const minIPv6MTU = 1280

func (s *State) compileRouter(r *config.Relay, facts Facts, link Link, tables *routerTables) {
	if r.Transport == config.IPIP6 {
		endpoint := Addr{Addr: r.Local, Device: r.Device}
		if device := facts.OnLink[r.Name]; device != "" {
			endpoint.Device = device
		} else if link.MTU < minIPv6MTU {
			endpoint.Device = "lo"
		}
		s.Addrs = append(s.Addrs, endpoint)
	}
	// The mark also applies to the reverse path (ip-sysctl: src_valid_mark): marked packets out of the tunnel pass
	// rp_filter, strict or loose, with or without another default route.
	s.Sysctls = append(s.Sysctls, Sysctl{Key: deviceKey(r.Device, "src_valid_mark"), Value: "1", Device: r.Device})
	for _, host := range hosts(r) {
		if lan := facts.LAN[host]; lan != "" && lan != r.Device {
			s.Sysctls = append(s.Sysctls, Sysctl{Key: deviceKey(lan, "forwarding"), Value: "1"})
		}
	}
	// rp_filter drops unmarked packets out of the tunnel; without our table, all packets. The tunnel has no IPv4
	// address, so 2 would be just as strict (no_addr in net/ipv4/fib_frontend.c).
	s.Sysctls = append(s.Sysctls, Sysctl{Key: deviceKey(r.Device, "rp_filter"), Value: "1", Device: r.Device})
	everywhere := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	s.Routes = append(s.Routes, Route{Table: r.Table, Dst: everywhere, Device: r.Device},
		Route{Table: lastTable, Dst: everywhere, Device: "lo"})
	s.Rules = append(s.Rules,
		// Packets out of the tunnel go to networks of the home only.
		Rule{Priority: r.Priority, IIF: r.Device, Table: MainTable, NoDefault: true},
		Rule{Priority: r.Priority + 1, IIF: r.Device, Unreachable: true},
		// Answers return through the tunnel, whatever the other routes are.
		Rule{Priority: r.Priority + config.AnswersRule, Mark: r.Mark(), Mask: config.MarkMask, Table: r.Table})
	// Errors about a client's packets (the host is off, the hop limit exceeded) and answers of services on the router
	// itself get the mark after a first routing decision. Without any other IPv4 route, that decision needs one too.
	for _, types := range icmpErrors {
		s.Rules = append(s.Rules, Rule{Priority: lastPriority, IIF: "lo", IPProto: protoICMP, FirstPort: types[0],
			LastPort: types[1], Table: lastTable})
	}
	for _, host := range hosts(r) {
		if facts.Self[host] {
			s.Rules = append(s.Rules, Rule{Priority: lastPriority, From: netip.PrefixFrom(host, 32), Table: lastTable})
		}
	}
	if outer, ok := link.Tunnel.(transport.WireGuard); ok {
		// The tunnel's own packets may come from a host that leaves by the tunnel only: the router itself.
		for _, host := range killSwitched(r) {
			if facts.Self[host] {
				s.Rules = append(s.Rules, Rule{Priority: r.Priority + 3, Mark: outer.Mark, Mask: config.MarkMask,
					Table: MainTable})
			}
		}
	}
	for _, host := range egressHosts(r) {
		if tables.own.relay(host) != r {
			continue
		}
		own := Rule{From: netip.PrefixFrom(host, 32), Mark: tables.egress, Mask: config.MarkMask}
		local, out := own, own
		local.Priority, local.Table, local.NoDefault = r.Priority+3, MainTable, true
		out.Priority, out.Table = r.Priority+4, r.Table
		// Otherwise only networks that this machine is connected to are exempt.
		if !slices.Contains(killSwitched(r), host) {
			s.Rules = append(s.Rules, local)
		}
		s.Rules = append(s.Rules, out)
	}
}

// killSwitched returns the hosts that reach the internet through the tunnel or not at all.
func killSwitched(r *config.Relay) []netip.Addr {
	return destinations(r, func(f *config.Forward) bool { return f.KillSwitch })
}

// compileKillSwitch stops hosts from using any other path, also while their relay waits for an endpoint. The rules work
// even if all nft tables are gone; the table works even if all rules are gone, or if somebody's rule or route precedes
// ours.
func (s *State) compileKillSwitch(relays []*config.Relay, facts Facts) {
	var hosts []string
	ways, done := config.OwnWays(relays), map[netip.Addr]bool{}
	for _, r := range relays {
		if r.Role != config.Router {
			continue
		}
		for _, host := range killSwitched(r) {
			from := netip.PrefixFrom(host, 32)
			for _, network := range facts.Connected {
				s.Rules = append(s.Rules, Rule{Priority: r.Priority + 3, From: from, To: network, Table: MainTable})
			}
			last := Rule{Priority: config.KillPlace(ways[host]).Priority + config.KillSwitchRule, From: from,
				Unreachable: true}
			if facts.Self[host] { // its packets get their mark, and with it their route, after a first lookup
				last.Unreachable, last.Table = false, lastTable
			}
			if !done[host] {
				s.Rules, hosts = append(s.Rules, last), append(hosts, host.String())
			}
			done[host] = true
		}
	}
	if len(hosts) == 0 {
		return
	}
	slices.Sort(hosts)
	table := Table{Family: "ip", Name: KillTableName}
	table.Ruleset = tableText(table, strings.NewReplacer("HOSTS", strings.Join(hosts, ", "),
		"GROUP", strconv.Itoa(Group), "LOCAL",
		prefixList(append(slices.Clone(facts.Connected), notUnicast...))).Replace(apart(killRules)))
	s.Tables = append(s.Tables, table)
}

// killRules stop HOSTS from sending through anything but a tunnel, except to networks that this machine is connected
// to.
//
//go:embed nft/killswitch.nft
var killRules string

// hosts returns the addresses that a relay forwards to, without duplicates, in order.
func hosts(r *config.Relay) []netip.Addr {
	return destinations(r, func(*config.Forward) bool { return true })
}

// egressHosts returns those of them whose own connections go through the tunnel.
func egressHosts(r *config.Relay) []netip.Addr {
	return destinations(r, func(f *config.Forward) bool { return f.Egress == config.All })
}

func destinations(r *config.Relay, of func(*config.Forward) bool) []netip.Addr {
	seen := map[netip.Addr]bool{}
	var all []netip.Addr
	for _, f := range r.Forwards {
		if of(f) && !seen[f.DestIP] {
			seen[f.DestIP] = true
			all = append(all, f.DestIP)
		}
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].Less(all[j]) })
	return all
}

// normalize removes duplicates (two relays may need the same item) and sorts the elements.
func (s *State) normalize() {
	sort.SliceStable(s.Sysctls, func(i, j int) bool { return s.Sysctls[i].Key < s.Sysctls[j].Key })
	s.Sysctls = slices.Compact(s.Sysctls)
	s.Rules = unique(s.Rules)
	s.Routes = unique(s.Routes)
	s.Addrs = unique(s.Addrs)
	for _, table := range s.Tables {
		for i := range table.Sets {
			set := &table.Sets[i]
			set.Elements = distinct(set.Elements)
		}
	}
}

func unique[T comparable](items []T) []T {
	seen := map[T]bool{}
	return slices.DeleteFunc(items, func(item T) bool {
		if seen[item] {
			return true
		}
		seen[item] = true
		return false
	})
}

// quote writes a device's name as nft(8) reads it: as it is, but for a * at its end, which would match all names that
// begin so.
func quote(name string) string {
	if before, found := strings.CutSuffix(name, "*"); found {
		name = before + `\*`
	}
	return `"` + name + `"`
}
