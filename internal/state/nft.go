package state

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
)

// MarkChain is an empty chain that marks a table as ours. (A comment on the table would need Linux 5.10.)
const MarkChain = "made_by_ds4relay"

// vpsRuleset is the same for every configuration (GROUP stands for Group): only the elements differ, so that the cost of
// a packet does not grow with the forwards and a change of one forward changes one element.
const vpsRuleset = `
	# public address . protocol . port → host . its port; ranges that keep their ports; without ports; all that is left
	# (1:1), and the same for some clients
	map port_forward { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
	map range_forward { type ipv4_addr . inet_proto . inet_service : ipv4_addr; flags interval; }
	map protocol_forward { type ipv4_addr . inet_proto : ipv4_addr; }
	map address_forward { type ipv4_addr : ipv4_addr; }
	map client_forward { type ipv4_addr . ipv4_addr : ipv4_addr; flags interval; }
	# what stays the VPS's own (accept), and what is forwarded for some clients only
	map port_exception { type ipv4_addr . inet_proto . inet_service : verdict; }
	map protocol_exception { type ipv4_addr . inet_proto : verdict; }
	set port_client { type ipv4_addr . inet_proto . inet_service . ipv4_addr; flags interval; }
	set protocol_client { type ipv4_addr . inet_proto . ipv4_addr; flags interval; }
	# who may come out of which tunnel, and from which public address the host's own connections come
	map host { type ifname . ipv4_addr . ct_state : verdict; size 65536; }
	map source { type ifname . ipv4_addr : ipv4_addr; }
	# hosts of each tunnel; public addresses; and addresses that nobody outside has
	set member { type ifname . ipv4_addr; }
	set public_address { type ipv4_addr; }
	set inside { type ipv4_addr; }

	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		ip daddr @public_address iifgroup != GROUP jump from_outside
		ip daddr . meta l4proto . th dport vmap @port_exception
		ip daddr . meta l4proto vmap @protocol_exception
		dnat to ip daddr . meta l4proto . th dport map @port_forward
		dnat to ip daddr . meta l4proto . th dport map @range_forward
		dnat to ip daddr . meta l4proto map @protocol_forward
		dnat to ip daddr map @address_forward
		dnat to ip daddr . ip saddr map @client_forward
	}
	chain from_outside {
		ip saddr { 0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/3 } drop
		ip saddr @inside drop
	}
	chain limited_port {
		ip daddr . meta l4proto . th dport . ip saddr != @port_client accept
		dnat to ip daddr . meta l4proto . th dport map @port_forward
		dnat to ip daddr . meta l4proto . th dport map @range_forward
	}
	chain limited_protocol {
		ip daddr . meta l4proto . ip saddr != @protocol_client accept
		dnat to ip daddr . meta l4proto map @protocol_forward
	}
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		iifgroup GROUP snat to iifname . ip saddr map @source
	}
	chain input {
		type filter hook input priority mangle; policy accept;
		iifgroup GROUP goto from_home
	}
	chain forward {
		type filter hook forward priority mangle; policy accept;
		tcp flags & (syn | rst) == syn jump mss
		iifgroup GROUP goto from_home
	}
	chain mss {
		oifgroup GROUP tcp option maxseg size set rt mtu
		iifgroup GROUP tcp option maxseg size set rt mtu
	}
	# answers of the hosts, and their own connections where they may have some
	chain from_home {
		iifname . ip saddr . ct state vmap @host
		ct state related goto related_from_home
		drop
	}
	# errors may come from the router too, but are about connections of the hosts
	chain related_from_home {
		iifname . ct reply ip saddr @member accept
		iifname . ct original ip saddr @member accept
		drop
	}
	# the VPS's own networks, and its cloud's services, are not what egress is for
	chain opened_public {
		ip daddr { PRIVATE } reject with icmp type admin-prohibited
		goto opened
	}
	# a connection begins with its first packet: what goes on without one belonged to a forward that is gone
	chain opened {
		tcp flags & (fin | syn | rst | ack) != syn reject with tcp reset
	}
`

// expandable is how many ports of a range become elements of their own: a look-up in a hash table is cheaper than one
// among intervals, but a range of all ports would fill a router's memory.
const expandable = 64

func wide(first, last uint16) bool { return int(last)-int(first) >= expandable }

func portText(first, last uint16) string {
	if first == last {
		return strconv.Itoa(int(first))
	}
	return fmt.Sprintf("%d-%d", first, last)
}

func clientText(p netip.Prefix) string {
	if p.Bits() == 32 {
		return p.Addr().String()
	}
	return p.String()
}

// elements are those of the sets and maps of a table, by their names.
type elements map[string][]Element

func (e elements) put(set, key, value string) { e[set] = append(e[set], Element{key, value}) }

// destinations puts where a mapping leads into the map of ports, of ranges that keep their ports, or of protocols. key
// is the public address and the protocol.
func (e elements) destinations(key string, m config.Mapping, ports, ranges, protocols string) {
	host := m.Host.String()
	switch {
	case !m.Public.HasPorts():
		e.put(protocols, key, host)
	case wide(m.Public.First, m.Public.Last) && m.KeepsPorts():
		e.put(ranges, key+" . "+portText(m.Public.First, m.Public.Last), host)
	default:
		for i := 0; i <= int(m.Public.Last)-int(m.Public.First); i++ {
			e.put(ports, fmt.Sprintf("%s . %d", key, int(m.Public.First)+i), fmt.Sprintf("%s . %d", host, int(m.Port)+i))
		}
	}
}

// vpsTables collects the elements of vpsRuleset.
type vpsTables struct {
	elements
	any   bool
	slots slots
}

func (t *vpsTables) add(r *config.Relay, link Link) {
	t.any = true
	public := r.IPAddr.String()
	t.put("public_address", public, "")
	t.put("inside", public, "")
	t.put("endpoint", link.Local.String(), "")
	t.put("peer", link.Remote.String(), "")
	opens := egressHosts(r)
	for _, host := range hosts(r) {
		key := quote(link.Name) + " . " + host.String()
		t.put("member", key, "")
		t.put("inside", host.String(), "")
		t.put("host", key+" . established", "accept")
		if slices.Contains(opens, host) {
			opened := "goto opened_public"
			if r.EgressPrivate {
				opened = "goto opened"
			}
			t.put("host", key+" . new", opened)
			t.put("source", key, public)
		}
	}
	for _, keep := range r.Keep {
		t.except(public, keep, "accept", "accept")
	}
	for _, f := range r.Forwards {
		for _, m := range f.Mappings() {
			t.addMapping(public, m)
		}
	}
}

// except has a verdict come before what is forwarded of a set of ports, or of a protocol.
func (t *vpsTables) except(public string, set config.PortSet, ofPort, ofProtocol string) {
	key := public + " . " + config.ProtoName(set.Proto)
	if !set.HasPorts() {
		t.put("protocol_exception", key, ofProtocol)
		return
	}
	for port := int(set.First); port <= int(set.Last); port++ {
		t.put("port_exception", fmt.Sprintf("%s . %d", key, port), ofPort)
	}
}

func (t *vpsTables) addMapping(public string, m config.Mapping) {
	host := m.Host.String()
	if m.All && !m.Limited() {
		t.put("address_forward", public, host)
	}
	key := public + " . " + config.ProtoName(m.Public.Proto)
	for _, client := range m.Clients {
		switch {
		case m.All:
			t.put("client_forward", public+" . "+clientText(client), host)
		case !m.Public.HasPorts():
			t.put("protocol_client", key+" . "+clientText(client), "")
		default:
			t.put("port_client", key+" . "+portText(m.Public.First, m.Public.Last)+" . "+clientText(client), "")
		}
	}
	if m.All {
		return
	}
	t.destinations(key, m, "port_forward", "range_forward", "protocol_forward")
	if m.Limited() {
		t.except(public, m.Public, "goto limited_port", "goto limited_protocol")
	}
}

// addSlots fills the maps of slotChains for the relays, all that this machine has.
func (t *vpsTables) addSlots(relays []*config.Relay) {
	public := map[netip.Addr]bool{} // those that have a host of a slot
	for _, r := range relays {
		if len(t.slots.hosts[r.Name]) > 0 {
			public[r.IPAddr] = true
		}
	}
	for _, r := range relays {
		for _, host := range hosts(r) {
			if t.slots.has(r.Name, host) {
				_, verdict := slotVerdicts(t.slots.of[r.Name], r, host)
				t.put("slot_host", quote(r.Device)+" . "+host.String(), verdict)
			}
		}
		if !public[r.IPAddr] {
			continue
		}
		put := func(set config.PortSet, verdict string) {
			key := r.IPAddr.String() + " . " + config.ProtoName(set.Proto)
			switch {
			case !set.HasPorts():
				t.put("slot_protocol", key, verdict)
			case wide(set.First, set.Last):
				t.put("slot_range", key+" . "+portText(set.First, set.Last), verdict)
			default:
				for port := int(set.First); port <= int(set.Last); port++ {
					t.put("slot_port", fmt.Sprintf("%s . %d", key, port), verdict)
				}
			}
		}
		for _, keep := range r.Keep {
			put(keep, "accept")
		}
		for _, f := range r.Forwards {
			verdict := "accept"
			if t.slots.has(r.Name, f.DestIP) {
				verdict, _ = slotVerdicts(t.slots.of[r.Name], r, f.DestIP)
			}
			for _, m := range f.Mappings() {
				if m.All {
					t.put("slot_address", r.IPAddr.String(), verdict)
				} else {
					put(m.Public, verdict)
				}
			}
		}
	}
}

// vpsSets are the sets of vpsRuleset, slotSetTypes those of slotSets.
var vpsSets = []Set{
	{Name: "port_forward", Key: []Type{IPv4, Proto, Service}, Value: []Type{IPv4, Service}},
	{Name: "range_forward", Key: []Type{IPv4, Proto, Service}, Value: []Type{IPv4}},
	{Name: "protocol_forward", Key: []Type{IPv4, Proto}, Value: []Type{IPv4}},
	{Name: "address_forward", Key: []Type{IPv4}, Value: []Type{IPv4}},
	{Name: "client_forward", Key: []Type{IPv4, IPv4}, Value: []Type{IPv4}},
	{Name: "port_exception", Key: []Type{IPv4, Proto, Service}, Value: []Type{Verdict}},
	{Name: "protocol_exception", Key: []Type{IPv4, Proto}, Value: []Type{Verdict}},
	{Name: "port_client", Key: []Type{IPv4, Proto, Service, IPv4}},
	{Name: "protocol_client", Key: []Type{IPv4, Proto, IPv4}},
	{Name: "host", Key: []Type{IfName, IPv4, CtState}, Value: []Type{Verdict}},
	{Name: "source", Key: []Type{IfName, IPv4}, Value: []Type{IPv4}},
	{Name: "member", Key: []Type{IfName, IPv4}},
	{Name: "public_address", Key: []Type{IPv4}},
	{Name: "inside", Key: []Type{IPv4}},
}

var slotSetTypes = []Set{
	{Name: "slot_host", Key: []Type{IfName, IPv4}, Value: []Type{Verdict}},
	{Name: "slot_port", Key: []Type{IPv4, Proto, Service}, Value: []Type{Verdict}},
	{Name: "slot_range", Key: []Type{IPv4, Proto, Service}, Value: []Type{Verdict}},
	{Name: "slot_protocol", Key: []Type{IPv4, Proto}, Value: []Type{Verdict}},
	{Name: "slot_address", Key: []Type{IPv4}, Value: []Type{Verdict}},
}

func filled(types []Set, elements elements) []Set {
	sets := slices.Clone(types)
	for i := range sets {
		sets[i].Elements = elements[sets[i].Name]
	}
	return sets
}

// text is the part of table ip for the role of a VPS, with its sets.
func (t *vpsTables) text() (string, []Set) {
	body, sets := vpsRuleset, filled(vpsSets, t.elements)
	if numbers := sortedSlots(t.slots); len(numbers) > 0 {
		body += slotSets
		for _, n := range numbers {
			body += strings.NewReplacer("_N_", fmt.Sprintf("_%d_", n), "set N", fmt.Sprintf("set %d", n),
				"MARK", fmt.Sprintf("%#08x", markOfSlot(n))).Replace(slotRules)
		}
		body += slotChains
		sets = append(sets, filled(slotSetTypes, t.elements)...)
	}
	fill := strings.NewReplacer("GROUP", strconv.Itoa(Group), "PRIVATE", prefixList(config.ReservedNetworks()))
	return fill.Replace(body), sets
}

// routerSets are the declarations of the router's sets: what may come out of a tunnel, and to whom.
const routerSets = `
	# what may be reached through which tunnel: host . protocol . port; without ports; and all of a host
	set open_port { type ifname . ipv4_addr . inet_proto . inet_service; }
	set open_protocol { type ifname . ipv4_addr . inet_proto; }
	set open_host { type ifname . ipv4_addr; }
	# hosts whose own connections leave by a tunnel
	set egress_host { type ipv4_addr; }
`

// routerChains are for all tunnels of a router. INSIDE are networks whose addresses nobody outside has, PUBLIC the
// relays' public addresses: what the VPS itself sends comes from there.
const routerChains = `
	chain home_address {
		ip saddr { PUBLIC } return
		ip saddr { INSIDE } drop
	}
`

// egressChains mark what hosts with egress all send, so that it leaves by their tunnel; answers to others go where
// those came from. Unlike a policy rule for the host's address alone, the mark is not there when rp_filter asks for the
// way back.
const egressChains = `
	chain egress {
		type filter hook prerouting priority mangle; policy accept;
		ip saddr @egress_host iifgroup != GROUP goto egress_mark
	}
	chain egress_output {
		type route hook output priority mangle; policy accept;
		ip saddr @egress_host ip daddr != 224.0.0.0/3 goto egress_mark
	}
	chain egress_mark {
		ct direction reply return
		meta mark set meta mark & 0x00ffffff | EGRESS
	}
`

// limitedSets are for one tunnel where a forward is for some clients only, or for a wide range of ports.
const limitedSets = `
	set DEVICE_port { type ipv4_addr . inet_proto . inet_service . ipv4_addr; flags interval; }
	set DEVICE_protocol { type ipv4_addr . inet_proto . ipv4_addr; flags interval; }
	set DEVICE_host { type ipv4_addr . ipv4_addr; flags interval; }
`

const limitedRules = `		ip daddr . meta l4proto . th dport . ip saddr @DEVICE_port goto DEVICE_new
		ip daddr . meta l4proto . ip saddr @DEVICE_protocol goto DEVICE_new
		ip daddr . ip saddr @DEVICE_host goto DEVICE_new
`

// routerRules are for one tunnel; NAME stands for its device's name, DEVICE for its chains', MARK, MARKS and MSS for
// its values, LIMITED for limitedRules or nothing, GROUP for Group. Only the upper eight bits of marks are touched
// (config.MarkMask). MARKS are those of all relays with the same public address: a VPS may answer by another tunnel.
//
// The order in DEVICE_from: packets of known connections first, since they are most. ICMP errors belong to known
// connections, or are dropped: the host of a forward of all would believe them about its other connections.
const routerRules = `
	chain DEVICE_from {
		ct state established ct mark & 0xff000000 MARKS goto DEVICE_known
		jump home_address
		ct state related ct mark & 0xff000000 MARKS goto DEVICE_known
		ct state new,invalid,untracked goto DEVICE_in
		drop
	}
	# packets of clients, and answers to a host that opened the connection; nothing the other way round
	chain DEVICE_known {
		ct direction original ct original ip saddr != @egress_host goto DEVICE_mark
		ct direction reply ct original ip saddr @egress_host goto DEVICE_mark
		drop
	}
	chain DEVICE_in {
		icmp type { destination-unreachable, source-quench, redirect, time-exceeded, parameter-problem } drop
		iifname . ip daddr . meta l4proto . th dport @open_port goto DEVICE_new
		iifname . ip daddr . meta l4proto @open_protocol goto DEVICE_new
		iifname . ip daddr @open_host goto DEVICE_new
LIMITED		drop
	}
	chain DEVICE_new {
		ct mark set ct mark & 0x00ffffff | MARK
		meta mark set meta mark & 0x00ffffff | MARK
	}
	chain DEVICE_mark {
		meta mark set meta mark & 0x00ffffff | MARK
	}
	# the mark of a connection that came by the tunnel: on its packets out of it for rp_filter, on the answers for the
	# way back; errors about the answers go to the host, not back
	chain DEVICE_prerouting {
		type filter hook prerouting priority mangle; policy accept;
		iifgroup GROUP iifname "NAME" goto DEVICE_from
		ct mark & 0xff000000 == MARK iifgroup != GROUP goto DEVICE_answer
	}
	chain DEVICE_output {
		type route hook output priority mangle; policy accept;
		ct mark & 0xff000000 == MARK goto DEVICE_answer
	}
	chain DEVICE_answer {
		ct direction reply ct original ip saddr != @egress_host goto DEVICE_mark
	}
	chain DEVICE_forward {
		type filter hook forward priority mangle; policy accept;
		tcp flags & (syn | rst) == syn jump DEVICE_mss
	}
	chain DEVICE_mss {
		oifname "NAME" tcp option maxseg size set MSS
		iifname "NAME" tcp option maxseg size set MSS
	}
`

// egressRules are for a tunnel that a host's own connections leave by: their answers are known by the mark.
const egressRules = `
	chain DEVICE_postrouting {
		type filter hook postrouting priority mangle; policy accept;
		oifname "NAME" ct direction original ip saddr @egress_host ct mark set ct mark & 0x00ffffff | MARK
	}
`

// selfRules keep what the router itself sends by table lastTable, and no tunnel's chain has marked, from coming back to
// it.
const selfRules = `
	chain unmarked {
		type filter hook output priority filter; policy accept;
		oifname "lo" ip saddr { SELVES } ip daddr != { INSIDE } meta mark & 0xff000000 == 0 reject
	}
`

// sharedRules are for a tunnel to a host that another relay leads to as well. One client may use both from the same port,
// and the host could not tell the two connections apart: in a zone of its own the second one is a connection of its own,
// and the kernel gives it another port of the client.
const sharedRules = `
	chain DEVICE_zone {
		type filter hook prerouting priority raw; policy accept;
		iifname "NAME" ct original zone set ZONE
	}
	chain DEVICE_unique {
		type nat hook prerouting priority dstnat; policy accept;
	}
	chain DEVICE_uniquely {
		type nat hook postrouting priority srcnat; policy accept;
	}
`

// hairpin is for clients in the network of a host that use the public address: they stay at home. Where client and
// server are neighbours, the answers have to come back this way too.
const hairpin = `
	# devices with forwarded hosts behind them, public addresses, and what is behind those
	set hairpin_device { type ifname; }
	set hairpin_pair { type ifname . ifname; }
	set hairpin_public { type ipv4_addr; }
	map hairpin_exception { type ipv4_addr . inet_proto . inet_service : verdict; }
	map hairpin_protocol_exception { type ipv4_addr . inet_proto : verdict; }
	map hairpin_port { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
	map hairpin_range { type ipv4_addr . inet_proto . inet_service : ipv4_addr; flags interval; }
	map hairpin_protocol { type ipv4_addr . inet_proto : ipv4_addr; }
	map hairpin_address { type ipv4_addr : ipv4_addr; }

	chain hairpin_prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		ip daddr @hairpin_public iifname @hairpin_device goto hairpin
	}
	chain hairpin {
		ip daddr . meta l4proto . th dport vmap @hairpin_exception
		ip daddr . meta l4proto vmap @hairpin_protocol_exception
		dnat to ip daddr . meta l4proto . th dport map @hairpin_port
		dnat to ip daddr . meta l4proto . th dport map @hairpin_range
		dnat to ip daddr . meta l4proto map @hairpin_protocol
		dnat to ip daddr map @hairpin_address
	}
	chain hairpin_postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ct original ip daddr @hairpin_public iifname . oifname @hairpin_pair masquerade
	}
`

var routerSetTypes = []Set{
	{Name: "open_port", Key: []Type{IfName, IPv4, Proto, Service}},
	{Name: "open_protocol", Key: []Type{IfName, IPv4, Proto}},
	{Name: "open_host", Key: []Type{IfName, IPv4}},
	{Name: "egress_host", Key: []Type{IPv4}},
}

var hairpinSetTypes = []Set{
	{Name: "hairpin_device", Key: []Type{IfName}},
	{Name: "hairpin_pair", Key: []Type{IfName, IfName}},
	{Name: "hairpin_public", Key: []Type{IPv4}},
	{Name: "hairpin_exception", Key: []Type{IPv4, Proto, Service}, Value: []Type{Verdict}},
	{Name: "hairpin_protocol_exception", Key: []Type{IPv4, Proto}, Value: []Type{Verdict}},
	{Name: "hairpin_port", Key: []Type{IPv4, Proto, Service}, Value: []Type{IPv4, Service}},
	{Name: "hairpin_range", Key: []Type{IPv4, Proto, Service}, Value: []Type{IPv4}},
	{Name: "hairpin_protocol", Key: []Type{IPv4, Proto}, Value: []Type{IPv4}},
	{Name: "hairpin_address", Key: []Type{IPv4}, Value: []Type{IPv4}},
}

// routerTables collects the rules and elements of the router's relays.
type routerTables struct {
	elements
	declarations, rules, errorRules strings.Builder
	limited                         []Set
	hosts                           map[netip.Addr]bool     // of the relays so far
	marks                           map[netip.Addr][]string // public address → marks of its relays
	inside                          string                  // list of networks
	selves                          []string                // hosts that are the router itself
	egress                          uint32                  // mark of what hosts with egress all send
}

func newRouterTables(relays []*config.Relay, facts Facts) *routerTables {
	t := &routerTables{elements: elements{}, hosts: map[netip.Addr]bool{}, marks: map[netip.Addr][]string{}}
	inside := slices.Clone(facts.Inside)
	for _, r := range relays {
		if r.Role != config.Router {
			continue
		}
		t.marks[r.IPAddr] = append(t.marks[r.IPAddr], markText(r))
		for _, host := range hosts(r) {
			inside = append(inside, netip.PrefixFrom(host, 32))
			if text := host.String(); facts.Self[host] && !slices.Contains(t.selves, text) {
				t.selves = append(t.selves, text)
			}
		}
	}
	t.inside, t.egress = prefixList(append(inside, notUnicast...)), egressMark(relays)
	return t
}

// notUnicast are the networks that no host on the internet has its address in: this network, loopback, multicast and
// what is reserved (RFC 1122 §3.2.1.3, RFC 1112 §4).
var notUnicast = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("224.0.0.0/3"),
}

// prefixList writes networks as the elements of an anonymous set, none within another.
func prefixList(prefixes []netip.Prefix) string {
	var words []string
	for _, p := range config.Outermost(prefixes) {
		words = append(words, clientText(p))
	}
	slices.Sort(words)
	return strings.Join(words, ", ")
}

// egressMark is the packet mark of what hosts with egress all send: the highest that no relay's connections have.
func egressMark(relays []*config.Relay) uint32 {
	mark := uint32(config.MarkMask)
	for slices.ContainsFunc(relays, func(r *config.Relay) bool { return r.Role == config.Router && r.Mark() == mark }) {
		mark -= 1 << 24
	}
	return mark
}

func markText(r *config.Relay) string { return fmt.Sprintf("%#08x", r.Mark()) }

// marksText matches the marks of a public address's relays.
func (t *routerTables) marksText(r *config.Relay) string {
	if marks := t.marks[r.IPAddr]; len(marks) > 1 {
		return "{ " + strings.Join(marks, ", ") + " }"
	}
	return "== " + markText(r)
}

// alone tells whether no relay before leads to a host of this one.
func (t *routerTables) alone(r *config.Relay) bool {
	alone := true
	for _, host := range hosts(r) {
		alone = alone && !t.hosts[host]
		t.hosts[host] = true
	}
	return alone
}

// ipTCPHeaders are the IPv4 and TCP headers without options, in bytes: what an MSS leaves out of an MTU.
const ipTCPHeaders = 40

func (t *routerTables) add(r *config.Relay, link Link, facts Facts) {
	chain := chainName(link.Name)
	limitedPart := ""
	if limited := t.open(r, link.Name); limited {
		limitedPart = limitedRules
		t.declarations.WriteString(strings.ReplaceAll(limitedSets, "DEVICE", chain))
		t.limited = append(t.limited, Set{Name: chain + "_port", Key: []Type{IPv4, Proto, Service, IPv4}},
			Set{Name: chain + "_protocol", Key: []Type{IPv4, Proto, IPv4}}, Set{Name: chain + "_host", Key: []Type{IPv4, IPv4}})
	}
	if !t.alone(r) {
		t.rules.WriteString(strings.NewReplacer("DEVICE", chain, "NAME", link.Name, "ZONE", fmt.Sprint(r.Mark()>>24)).Replace(sharedRules))
	}
	fill := strings.NewReplacer("DEVICE", chain, "NAME", link.Name, "MARKS", t.marksText(r), "MARK", markText(r),
		"MSS", fmt.Sprint(link.MTU-ipTCPHeaders), "LOCAL", link.Local.String(), "GROUP", strconv.Itoa(Group))
	for _, host := range egressHosts(r) {
		t.put("egress_host", host.String(), "")
	}
	fill.WriteString(&t.rules, strings.Replace(routerRules, "LIMITED", limitedPart, 1))
	if len(egressHosts(r)) > 0 {
		fill.WriteString(&t.rules, egressRules)
	}
	fill.WriteString(&t.errorRules, errorRules)
	t.addHairpin(r, facts)
}

// open puts what the forwards let in on the host's side, and tells whether some of it is limited to clients or a wide
// range. Several public ports may lead to one port of a host, each for its clients.
func (t *routerTables) open(r *config.Relay, device string) (limited bool) {
	chain := chainName(device)
	type hostProto struct {
		host  netip.Addr
		proto uint8
	}
	ports, protocols, all := map[hostProto][]span{}, map[hostProto][]span{}, map[hostProto][]span{}
	for _, f := range r.Forwards {
		for _, m := range f.Mappings() {
			key, private := hostProto{m.Host, m.Public.Proto}, m.Private()
			of := ports
			switch {
			case m.All:
				of = all
			case !private.HasPorts():
				of = protocols
			}
			of[key] = append(of[key], span{private.First, private.Last, m.Clients})
		}
	}
	for key, spans := range all {
		clients := disjoint(spans)[0].clients
		if clients == nil {
			t.put("open_host", quote(device)+" . "+key.host.String(), "")
		}
		for _, client := range clients {
			limited = true
			t.put(chain+"_host", key.host.String()+" . "+clientText(client), "")
		}
	}
	for key, spans := range protocols {
		clients, text := disjoint(spans)[0].clients, key.host.String()+" . "+config.ProtoName(key.proto)
		if clients == nil {
			t.put("open_protocol", quote(device)+" . "+text, "")
		}
		for _, client := range clients {
			limited = true
			t.put(chain+"_protocol", text+" . "+clientText(client), "")
		}
	}
	for key, spans := range ports {
		text := key.host.String() + " . " + config.ProtoName(key.proto) + " . "
		for _, s := range disjoint(spans) {
			clients := s.clients
			if clients == nil && wide(s.first, s.last) {
				clients = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0)}
			}
			for _, client := range clients {
				limited = true
				t.put(chain+"_port", text+portText(s.first, s.last)+" . "+clientText(client), "")
			}
			for port := int(s.first); clients == nil && port <= int(s.last); port++ {
				t.put("open_port", quote(device)+" . "+text+strconv.Itoa(port), "")
			}
		}
	}
	return limited
}

// addHairpin serves clients next to the hosts. A forward of all counts only where keep says what is the VPS's own: the
// router cannot know better, and must not keep its users from the VPS.
func (t *routerTables) addHairpin(r *config.Relay, facts Facts) {
	public := r.IPAddr.String()
	used := false
	for _, f := range r.Forwards {
		lan := facts.LAN[f.DestIP]
		if lan == "" || lan == r.Device || f.All && len(r.Keep) == 0 {
			continue
		}
		used = true
		t.put("hairpin_device", quote(lan), "")
		t.put("hairpin_pair", quote(lan)+" . "+quote(lan), "")
		for _, m := range f.Mappings() {
			if m.All {
				t.put("hairpin_address", public, m.Host.String())
				continue
			}
			t.destinations(public+" . "+config.ProtoName(m.Public.Proto), m, "hairpin_port", "hairpin_range", "hairpin_protocol")
		}
	}
	if !used {
		return
	}
	t.put("hairpin_public", public, "")
	for _, keep := range r.Keep {
		key := public + " . " + config.ProtoName(keep.Proto)
		if !keep.HasPorts() {
			t.put("hairpin_protocol_exception", key, "accept")
			continue
		}
		for port := int(keep.First); port <= int(keep.Last); port++ {
			t.put("hairpin_exception", fmt.Sprintf("%s . %d", key, port), "accept")
		}
	}
}

// text is the part of table ip for the role of a router, with its sets.
func (t *routerTables) text() (string, []Set) {
	var public []string
	for addr := range t.marks {
		public = append(public, addr.String())
	}
	slices.Sort(public)
	chains := strings.NewReplacer("PUBLIC", strings.Join(public, ", "), "INSIDE", t.inside).Replace(routerChains)
	body := routerSets + t.declarations.String() + chains + t.rules.String()
	if len(t.elements["egress_host"]) > 0 {
		body += strings.NewReplacer("GROUP", strconv.Itoa(Group), "EGRESS", fmt.Sprintf("%#08x", t.egress)).
			Replace(egressChains)
	}
	if len(t.selves) > 0 {
		body += strings.NewReplacer("SELVES", strings.Join(t.selves, ", "), "INSIDE", t.inside).Replace(selfRules)
	}
	sets := slices.Concat(filled(routerSetTypes, t.elements), filled(t.limited, t.elements))
	if len(t.elements["hairpin_public"]) > 0 {
		body += hairpin
		sets = append(sets, filled(hairpinSetTypes, t.elements)...)
	}
	return body, sets
}

// chainName begins the names of a device's chains and sets. It has the device's whole name, and ends at the last
// underscore of theirs: two devices never have a chain in common. nft takes dots and hyphens behind the first letter.
func chainName(device string) string { return "t_" + device }

// fenceRules are for devices that did not forward before: what they forward now is the relays' only. Connections that
// others let through from elsewhere have their answers; what others forward by DNAT goes on. OWN is for a router's
// hosts.
const fenceRules = `
	# devices that forward for the relays only
	set fence { type ifname; }

	chain fence_forward {
		type filter hook forward priority mangle; policy accept;
		iifname @fence ct state new,invalid,untracked goto fenced
	}
	chain fenced {
		ct status dnat accept
OWN		drop
	}
`

const fenceOwn = `		oifgroup GROUP ip saddr @egress_host accept
`

// fence is the part of table ip that keeps devices from forwarding for others.
func fence(devices []string, router bool) (string, []Set) {
	own := ""
	if router {
		own = strings.ReplaceAll(fenceOwn, "GROUP", strconv.Itoa(Group))
	}
	set := Set{Name: FenceSet.Name, Key: FenceSet.Key}
	for _, device := range devices {
		set.Elements = append(set.Elements, Element{Key: quote(device)})
	}
	return strings.ReplaceAll(fenceRules, "OWN", own), []Set{set}
}

// FenceSet is the set of our table that has the devices which did not forward before: the kernel's note of it.
var FenceSet = Set{Name: "fence", Key: []Type{IfName}}

// natTable is table ip ds4relay, or false where there is no relay.
func natTable(vps *vpsTables, router *routerTables, fenced []string) (Table, bool) {
	table := Table{Family: "ip", Name: TableName}
	var body string
	if vps.any {
		text, sets := vps.text()
		body, table.Sets = body+text, append(table.Sets, sets...)
	}
	if router.rules.Len() > 0 {
		text, sets := router.text()
		body, table.Sets = body+text, append(table.Sets, sets...)
	}
	if len(fenced) > 0 {
		text, sets := fence(fenced, router.rules.Len() > 0)
		body, table.Sets = body+text, append(table.Sets, sets...)
	}
	table.Ruleset = tableText(table, body)
	return table, body != ""
}

// errorRules are for one tunnel of a router. An ICMPv6 error about an outer packet becomes an ICMP error about the inner
// one only if the kernel's look-up of the inner packet's way ends in a tunnel (ip4ip6_err in net/ipv6/ip6_tunnel.c).
// Answers have their way by the mark, and the look-up takes the mark of the error.
const errorRules = `		icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } ip6 daddr LOCAL meta mark set meta mark & 0x00ffffff | MARK
`

// guardSets and guardRules let IPv4 in IPv6 (protocol 4) to an endpoint of a VPS only from the other end of a relay; of
// which one, the kernel sees to: a tunnel takes what has its remote and its local address (ip6_tnl_lookup). Other tunnels
// of the machine have other endpoints. A first fragment may end before the header that says what the packet is: then
// there is no protocol to compare, no comparison holds, and the packet is dropped.
const guardSets = `
	# our endpoints, and those of the other ends
	set endpoint { type ipv6_addr; }
	set peer { type ipv6_addr; size 1024; }`

const guardChain = `
	chain to_endpoint {
		ip6 saddr @peer accept
		meta l4proto != 4 accept
		drop
	}`

const guardRules = `		ip6 daddr @endpoint goto to_endpoint
`

// outerTable is table ip6 ds4relay: what concerns the tunnels' own packets.
func outerTable(vps *vpsTables, router *routerTables) Table {
	table := Table{Family: "ip6", Name: TableName}
	var sets, rules string
	if vps.any {
		sets, rules = guardSets+guardChain, guardRules
		table.Sets = filled([]Set{{Name: "endpoint", Key: []Type{IPv6}}, {Name: "peer", Key: []Type{IPv6}}}, vps.elements)
	}
	table.Ruleset = tableText(table, sets+`
	chain input {
		type filter hook input priority mangle; policy accept;
`+rules+router.errorRules.String()+`	}
`)
	return table
}

func tableText(t Table, body string) string {
	return fmt.Sprintf("table %s {\n\tchain %s { }%s}\n", t, MarkChain, body)
}
