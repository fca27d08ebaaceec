package state

import (
	_ "embed" // the rulesets
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// routerSets are the declarations of the router's sets: what may come out of a tunnel, and for whom.
//
//go:embed nft/router_sets.nft
var routerSets string

// routerChains are for all tunnels of a router. INSIDE are networks whose addresses no client outside has; PUBLIC are
// the relays' public addresses, which are the sources of packets from the VPS itself.
//
//go:embed nft/router_common.nft
var routerChains string

// egressChains mark packets of hosts with egress all, so that they leave through their tunnel; answers return to where
// the connection came from. Unlike a policy rule for the host's address alone, the mark does not apply to rp_filter's
// reverse lookup.
//
//go:embed nft/router_egress.nft
var egressChains string

// limitedSets are for one tunnel with a forward that is for some clients only, or has a wide range of ports.
//
//go:embed nft/tunnel_limited.nft
var limitedSets string

const limitedRules = `		ip daddr . ip protocol . th dport . ip saddr @DEVICE_port goto DEVICE_new
		ip daddr . ip protocol . ip saddr @DEVICE_protocol goto DEVICE_new
		ip daddr . ip saddr @DEVICE_host goto DEVICE_new
`

// routerRules are for one tunnel. NAME stands for its device's name, DEVICE for the prefix of its chains, MARK, MARKS
// and MSS for its values, LIMITED for limitedRules or nothing, GROUP for Group. Only the upper eight bits of marks
// change (config.MarkMask). MARKS are the marks of all relays with the same public address: a connection may go on
// through another tunnel. If there are such relays, KNOWN is new instead of mark, so that the connection's mark
// follows; ANSWER is turn instead of mark, and CAME jumps to turnRules.
//
// Order in DEVICE_from: packets of known connections come first, as they are the majority. ICMP errors belong to known
// connections or are dropped: otherwise a host with a forward of all would apply them to its other connections.
//
//go:embed nft/tunnel.nft
var routerRules string

// turnRules are for a tunnel of several with one public address: which of them carries what leaves for it. LEFT takes
// a host from the other tunnels' sets, TURN are the cases.
//
//go:embed nft/tunnel_turn.nft
var turnRules string

// turnSet contains the hosts of which a tunnel's VPS has announced that it has their address. The rules fill it, not
// the planner.
const turnSet = "	set DEVICE_here { type ipv4_addr; size 65535; flags dynamic; }\n"

// egressRules are for a tunnel with a host's own connections: their answers are recognised by the mark.
//
//go:embed nft/tunnel_egress.nft
var egressRules string

// selfRules reject packets that the router itself sends by table lastTable and no tunnel's chain has marked: they would
// come back to it.
//
//go:embed nft/router_self.nft
var selfRules string

// wireGuardErrors are for a tunnel of WireGuard, which brings the VPS only packets from hosts with a forward. Errors
// about clients' packets may come from the router too; they get the address of the host that they are about, which is
// the destination of the packet that they quote (RFC 792).
//
//go:embed nft/tunnel_wireguard.nft
var wireGuardErrors string

// sharedRules are for a tunnel to a host that another relay also leads to. One client may use both from the same port,
// and the host could not tell the two connections apart. In a separate zone the second one is a connection of its own,
// and the kernel changes its client port.
//
//go:embed nft/tunnel_shared.nft
var sharedRules string

var routerSetTypes = []Set{
	{Name: "open_port", Key: []Type{IfName, IPv4, Proto, Service}},
	{Name: "open_protocol", Key: []Type{IfName, IPv4, Proto}},
	{Name: "open_host", Key: []Type{IfName, IPv4}},
	{Name: "egress_host", Key: []Type{IPv4}},
}

// masqRules are for a tunnel with hosts whose default gateway is another router: clients are hidden from them, so that
// they answer to this machine. (By the connection's mark: Linux 5.4 knows no input device there.)
//
//go:embed nft/tunnel_masq.nft
var masqRules string

// masqSet is the set of masqRules for a device.
func masqSet(device string) Set { return Set{Name: chainName(device) + "_masq", Key: []Type{IPv4}} }

// routerTables collects the rules and elements of the router's relays.
type routerTables struct {
	elements
	declarations, rules, errorRules strings.Builder
	limited, masqs                  []Set
	zones                           map[netip.Addr]uint32 // public address → zone
	own                             ownWays
	turns                           map[netip.Addr][]*config.Relay // public address → its relays
	inside                          string                         // list of networks
	selves                          []string                       // hosts that are the router itself
	egress                          uint32                         // packet mark of hosts with egress all
	outer                           uint32                         // packet mark of WireGuard's outer packets; 0: none
}

func newRouterTables(relays []*config.Relay, facts Facts) *routerTables {
	t := &routerTables{elements: elements{}, zones: zones(relays), own: newOwnWays(relays, facts),
		turns: map[netip.Addr][]*config.Relay{}}
	inside := slices.Clone(facts.Inside)
	for _, r := range relays {
		if r.Role != config.Router {
			continue
		}
		t.turns[r.IPAddr] = append(t.turns[r.IPAddr], r)
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

// notUnicast are networks that cannot contain the address of a host on the internet: this network, loopback, multicast
// and reserved ones (RFC 1122 §3.2.1.3, RFC 1112 §4).
var notUnicast = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("224.0.0.0/3"),
}

// egressMark is the packet mark of hosts with egress all: the highest mark that no relay's connections use.
func egressMark(relays []*config.Relay) uint32 {
	mark := uint32(config.MarkMask)
	for slices.ContainsFunc(relays, func(r *config.Relay) bool { return r.Role == config.Router && r.Mark() == mark }) {
		mark -= 1 << 24
	}
	return mark
}

func markText(r *config.Relay) string { return fmt.Sprintf("%#08x", r.Mark()) }

// marksText matches the mark of any of the relays.
func marksText(relays []*config.Relay) string {
	var marks []string
	for _, r := range relays {
		marks = append(marks, markText(r))
	}
	if len(marks) > 1 {
		return "{ " + strings.Join(marks, ", ") + " }"
	}
	return "== " + marks[0]
}

// zones returns the zones of connection tracking of what comes out of tunnels, by public address: one if relays with an
// earlier address lead to a host of one with this address. Those with the same address have the same zone, because a
// connection may go on through another of them.
func zones(relays []*config.Relay) map[netip.Addr]uint32 {
	zones, first, earliest := map[netip.Addr]uint32{}, map[netip.Addr]int{}, map[netip.Addr]int{}
	for i, r := range relays {
		if _, known := first[r.IPAddr]; r.Role == config.Router && !known {
			first[r.IPAddr] = i
		}
		for _, host := range hosts(r) {
			if before, known := earliest[host]; r.Role == config.Router && (!known || first[r.IPAddr] < before) {
				earliest[host] = first[r.IPAddr]
			}
		}
	}
	for _, r := range relays {
		for _, host := range hosts(r) {
			if i := first[r.IPAddr]; r.Role == config.Router && earliest[host] < i {
				zones[r.IPAddr] = relays[i].Mark() >> 24
			}
		}
	}
	return zones
}

// ipTCPHeaders is the size of the IPv4 and TCP headers without options, in bytes: the MTU minus the MSS.
const ipTCPHeaders = 40

func (t *routerTables) add(r *config.Relay, link Link, facts Facts) {
	chain := chainName(link.Name)
	limitedPart := ""
	if limited := t.open(r, link.Name); limited {
		limitedPart = limitedRules
		t.declarations.WriteString(strings.ReplaceAll(apart(limitedSets), "DEVICE", chain))
		t.limited = append(t.limited, Set{Name: chain + "_port", Key: []Type{IPv4, Proto, Service, IPv4}},
			Set{Name: chain + "_protocol", Key: []Type{IPv4, Proto, IPv4}},
			Set{Name: chain + "_host", Key: []Type{IPv4, IPv4}})
	}
	if zone := t.zones[r.IPAddr]; zone != 0 {
		t.rules.WriteString(strings.NewReplacer("DEVICE", chain, "NAME", link.Name, "ZONE",
			fmt.Sprint(zone)).Replace(apart(sharedRules)))
	}
	turns := t.turns[r.IPAddr]
	known, answer, came := "mark", "mark", ""
	if len(turns) > 1 {
		known, answer, came = "new", "turn", "\t\tjump "+chain+"_came\n"
		t.takeTurns(r, turns)
	}
	fill := strings.NewReplacer("DEVICE", chain, "NAME", link.Name, "MARKS", marksText(turns), "MARK", markText(r),
		"MSS", fmt.Sprint(link.MTU-ipTCPHeaders), "LOCAL", link.Local().String(), "GROUP", strconv.Itoa(Group),
		"KNOWN", known, "ANSWER", answer, "CAME", came)
	for _, host := range egressHosts(r) {
		if t.own.relay(host) == r {
			t.insert("egress_host", Key{Addr: host})
		}
	}
	fill.WriteString(&t.rules, strings.Replace(apart(routerRules), "LIMITED", limitedPart, 1))
	if masqs := destinations(r, func(f *config.Forward) bool { return f.Masq }); len(masqs) > 0 {
		set := masqSet(link.Name)
		for _, host := range masqs {
			t.insert(set.Name, Key{Addr: host})
		}
		t.masqs = append(t.masqs, set)
		fill.WriteString(&t.rules, apart(masqRules))
	}
	if len(egressHosts(r)) > 0 {
		fill.WriteString(&t.rules, apart(egressRules))
	}
	if r.Transport == config.IPIP6 {
		fill.WriteString(&t.errorRules, errorRules)
	} else {
		fill.WriteString(&t.rules, apart(wireGuardErrors))
		t.outer = link.Tunnel.(transport.WireGuard).Mark
	}
	t.addHairpin(r, facts)
}

// takeTurns adds the rules by which a tunnel takes turns with those of the other relays with its public address. One
// whose VPS is silent carries nothing, and the first of the others takes over its connections; if all are silent, they
// stay where they are.
func (t *routerTables) takeTurns(r *config.Relay, turns []*config.Relay) {
	var left, turn string
	var live []*config.Relay
	takes := []*config.Relay{r}
	alive := func(other *config.Relay) bool { return !t.own.out[other] }
	if !slices.ContainsFunc(turns, alive) {
		alive = func(*config.Relay) bool { return true }
	}
	for _, other := range turns {
		last := "@" + chainName(other.Device) + "_here"
		if other != r {
			left += "\t\tip daddr " + last + " delete " + last + " { ip daddr }\n"
		}
		switch {
		case !alive(other):
			takes = append(takes, other)
			continue
		case other != r:
			turn += "\t\tip saddr " + last + " return\n"
		}
		live = append(live, other)
	}
	if live[0] != r {
		takes = takes[:1]
	}
	chain := chainName(r.Device)
	turn = "\t\tip saddr @" + chain + "_here goto " + chain + "_mark\n" + turn + "\t\tct mark & 0xff000000 " +
		marksText(takes) + " goto " + chain + "_mark\n"
	if !alive(r) {
		turn = ""
	}
	t.declarations.WriteString(strings.ReplaceAll(apart(turnSet), "DEVICE", chain))
	strings.NewReplacer("DEVICE", chain, "LEFT", left, "TURN", turn).WriteString(&t.rules, apart(turnRules))
}

// kept are the rules for packets of hosts with egress all whose connections do not simply leave by the tunnel that is
// preferred now: they stay where they began or where their last answer came from, and go where a VPS with an address by
// turns has announced itself.
func (t *routerTables) kept() string {
	var follow, stay string
	for _, r := range t.own.several {
		if t.own.out[r] {
			continue
		}
		mark := " goto " + chainName(r.Device) + "_mark\n"
		if len(t.turns[r.IPAddr]) > 1 {
			follow += "\t\tip saddr @" + chainName(r.Device) + "_here" + mark
		}
		stay += "\t\tct mark & 0xff000000 == " + markText(r) + mark
	}
	return follow + stay
}

// open adds what the forwards admit on the host's side, and reports whether any of it is limited to some clients or is
// a wide range. Several public ports may lead to one port of a host, each for its own clients.
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
			t.insert("open_host", Key{Device: device, Addr: key.host})
		}
		for _, client := range clients {
			limited = true
			t.insert(chain+"_host", Key{Addr: key.host, Client: client})
		}
	}
	for key, spans := range protocols {
		clients, opened := disjoint(spans)[0].clients, protoKey(key.host, key.proto)
		if clients == nil {
			t.insert("open_protocol", opened.by(device))
		}
		for _, client := range clients {
			limited = true
			t.insert(chain+"_protocol", opened.from(client))
		}
	}
	for key, spans := range ports {
		opened := protoKey(key.host, key.proto)
		for _, s := range disjoint(spans) {
			clients := s.clients
			if clients == nil && wide(s.first, s.last) {
				clients = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0)}
			}
			for _, client := range clients {
				limited = true
				t.insert(chain+"_port", opened.between(s.first, s.last).from(client))
			}
			for port := int(s.first); clients == nil && port <= int(s.last); port++ {
				t.insert("open_port", opened.at(uint16(port)).by(device))
			}
		}
	}
	return limited
}

// text returns the router's part of table ip, with its sets.
func (t *routerTables) text() (string, []Set) {
	var public []string
	for addr := range t.turns {
		public = append(public, addr.String())
	}
	slices.Sort(public)
	chains := strings.NewReplacer("PUBLIC", strings.Join(public, ", "), "INSIDE", t.inside).Replace(apart(routerChains))
	body := apart(routerSets) + t.declarations.String() + chains + t.rules.String()
	if len(t.elements["egress_host"]) > 0 {
		outer := ""
		if t.outer != 0 {
			outer = fmt.Sprintf("meta mark & 0xff000000 != %#08x ", t.outer)
		}
		body += strings.NewReplacer("GROUP", strconv.Itoa(Group), "EGRESS", fmt.Sprintf("%#08x", t.egress),
			"OUTER", outer, "KEPT", t.kept()).Replace(apart(egressChains))
	}
	if len(t.selves) > 0 {
		body += strings.NewReplacer("SELVES", strings.Join(t.selves, ", "), "INSIDE",
			t.inside).Replace(apart(selfRules))
	}
	sets := slices.Concat(filled(routerSetTypes, t.elements), filled(t.limited, t.elements), filled(t.masqs, t.elements))
	if len(t.elements["hairpin_public"]) > 0 {
		body += apart(hairpin)
		sets = append(sets, filled(hairpinSetTypes, t.elements)...)
	}
	return body, sets
}

// chainName is the prefix of the names of a device's chains and sets. What follows the device's name has only one
// underscore, so two devices never share a chain. nft accepts dots and hyphens after the first letter.
func chainName(device string) string { return "t_" + device }
