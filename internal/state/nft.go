package state

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
)

// MarkChain is an empty chain that marks a table as ours. (A comment on the table would need Linux 5.10.)
const MarkChain = "made_by_ds4relay"

// vpsRuleset is the same for every configuration (GROUP stands for Group): only the elements differ, so that the cost of a packet does not grow
// with the forwards and a change of one forward changes one element.
const vpsRuleset = `
	# public address . protocol . port → host . its port; without ports; and all that is left (1:1)
	map port_forward { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
	map protocol_forward { type ipv4_addr . inet_proto : ipv4_addr; }
	map address_forward { type ipv4_addr : ipv4_addr; }
	# what stays the VPS's own
	set keep_port { type ipv4_addr . inet_proto . inet_service; }
	set keep_protocol { type ipv4_addr . inet_proto; }
	# who may come out of which tunnel, and from which public address the host's own connections come
	set host { type ifname . ipv4_addr; size 65536; }
	map source { type ifname . ipv4_addr : ipv4_addr; }

	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		ip daddr . meta l4proto . th dport @keep_port accept
		ip daddr . meta l4proto @keep_protocol accept
		dnat to ip daddr . meta l4proto . th dport map @port_forward
		dnat to ip daddr . meta l4proto map @protocol_forward
		dnat to ip daddr map @address_forward
	}
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		iifgroup GROUP snat to iifname . ip saddr map @source
	}
	# errors about connections of ours may come from the router itself, everything else only from the hosts
	chain input {
		type filter hook input priority mangle; policy accept;
		iifgroup GROUP iifname . ip saddr != @host ct state != related drop
	}
	chain forward {
		type filter hook forward priority mangle; policy accept;
		iifgroup GROUP iifname . ip saddr != @host ct state != related drop
		tcp flags & (syn | rst) == syn goto mss
	}
	chain mss {
		oifgroup GROUP tcp option maxseg size set rt mtu
		iifgroup GROUP tcp option maxseg size set rt mtu
	}
`

// vpsTables collects the elements of vpsRuleset.
type vpsTables struct {
	any                                          bool
	portForward, protocolForward, addressForward []Element
	keepPort, keepProtocol, host, addSource      []Element
	endpoint, peer                               []Element
}

func (t *vpsTables) add(r *config.Relay, link Link) {
	t.any = true
	public := r.IPAddr.String()
	t.endpoint = append(t.endpoint, Element{Key: link.Local.String()})
	t.peer = append(t.peer, Element{Key: link.Remote.String()})
	for _, host := range hosts(r) {
		key := quote(link.Name) + " . " + host.String()
		t.host = append(t.host, Element{Key: key})
		t.addSource = append(t.addSource, Element{Key: key, Value: public})
	}
	for _, keep := range r.Keep {
		key := public + " . " + config.ProtoName(keep.Proto)
		if keep.First == 0 {
			t.keepProtocol = append(t.keepProtocol, Element{Key: key})
			continue
		}
		for port := int(keep.First); port <= int(keep.Last); port++ {
			t.keepPort = append(t.keepPort, Element{Key: fmt.Sprintf("%s . %d", key, port)})
		}
	}
	for _, f := range r.Forwards {
		if f.All {
			t.addressForward = append(t.addressForward, Element{public, f.DestIP.String()})
		}
		for _, set := range f.Ports {
			key := public + " . " + config.ProtoName(set.Proto)
			if set.First == 0 {
				t.protocolForward = append(t.protocolForward, Element{key, f.DestIP.String()})
				continue
			}
			for i := 0; i <= int(set.Last)-int(set.First); i++ {
				t.portForward = append(t.portForward, Element{fmt.Sprintf("%s . %d", key, int(set.First)+i),
					fmt.Sprintf("%s . %d", f.DestIP, int(f.DestPort)+i)})
			}
		}
	}
}

func (t *vpsTables) sets() []Set {
	return []Set{
		{"port_forward", []Type{IPv4, Proto, Service}, []Type{IPv4, Service}, t.portForward},
		{"protocol_forward", []Type{IPv4, Proto}, []Type{IPv4}, t.protocolForward},
		{"address_forward", []Type{IPv4}, []Type{IPv4}, t.addressForward},
		{"keep_port", []Type{IPv4, Proto, Service}, nil, t.keepPort},
		{"keep_protocol", []Type{IPv4, Proto}, nil, t.keepProtocol},
		{"host", []Type{IfName, IPv4}, nil, t.host},
		{"source", []Type{IfName, IPv4}, []Type{IPv4}, t.addSource},
	}
}

// routerSets are the declarations of the router's sets: what may come out of a tunnel, and to whom.
const routerSets = `
	# what may be reached through which tunnel: host . protocol . port; without ports; and all of a host
	set open_port { type ifname . ipv4_addr . inet_proto . inet_service; }
	set open_protocol { type ifname . ipv4_addr . inet_proto; }
	set open_host { type ifname . ipv4_addr; }
`

// routerRules are for one tunnel; DEVICE, MARK and MSS stand for its values, GROUP for Group. Only the upper eight bits of marks are
// touched (config.MarkMask).
const routerRules = `
	chain DEVICE_in {
		iifname . ip daddr . meta l4proto . th dport @open_port goto DEVICE_new
		iifname . ip daddr . meta l4proto @open_protocol goto DEVICE_new
		iifname . ip daddr @open_host goto DEVICE_new
		drop
	}
	chain DEVICE_new {
		ct mark set ct mark & 0x00ffffff | MARK
		meta mark set meta mark & 0x00ffffff | MARK
	}
	# the mark of a connection that came by the tunnel: on its packets out of it for rp_filter, on the answers for the
	# way back; errors about the answers go to the host, not back
	chain DEVICE_prerouting {
		type filter hook prerouting priority mangle; policy accept;
		ct mark & 0xff000000 == MARK goto DEVICE_marked
		iifgroup GROUP iifname "DEVICE" ct state new,invalid,untracked goto DEVICE_in
	}
	chain DEVICE_marked {
		iifgroup != GROUP ct direction original accept
		meta mark set meta mark & 0x00ffffff | MARK
	}
	chain DEVICE_output {
		type route hook output priority mangle; policy accept;
		ct direction reply ct mark & 0xff000000 == MARK meta mark set meta mark & 0x00ffffff | MARK
	}
	chain DEVICE_forward {
		type filter hook forward priority mangle; policy accept;
		tcp flags & (syn | rst) == syn jump DEVICE_mss
	}
	chain DEVICE_mss {
		oifname "DEVICE" tcp option maxseg size set MSS
		iifname "DEVICE" tcp option maxseg size set MSS
	}
`

// routerTables collects the rules and elements of the router's relays.
type routerTables struct {
	rules, errorRules                strings.Builder
	openPort, openProtocol, openHost []Element
}

// ipTCPHeaders are the IPv4 and TCP headers without options, in bytes: what an MSS leaves out of an MTU.
const ipTCPHeaders = 40

func (t *routerTables) add(r *config.Relay, link Link) {
	fill := strings.NewReplacer(
		"chain DEVICE", "chain "+chainName(link.Name), "goto DEVICE", "goto "+chainName(link.Name), "jump DEVICE", "jump "+chainName(link.Name), "DEVICE", link.Name,
		"MARK", fmt.Sprintf("%#08x", r.Mark()), "MSS", fmt.Sprint(link.MTU-ipTCPHeaders),
		"LOCAL", link.Local.String(), "GROUP", strconv.Itoa(Group),
	)
	fill.WriteString(&t.rules, routerRules)
	fill.WriteString(&t.errorRules, errorRules)
	for _, f := range r.Forwards {
		key := quote(link.Name) + " . " + f.DestIP.String()
		if f.All {
			t.openHost = append(t.openHost, Element{Key: key})
		}
		for _, set := range f.Ports {
			key := key + " . " + config.ProtoName(set.Proto)
			if set.First == 0 {
				t.openProtocol = append(t.openProtocol, Element{Key: key})
				continue
			}
			for i := 0; i <= int(set.Last)-int(set.First); i++ {
				t.openPort = append(t.openPort, Element{Key: fmt.Sprintf("%s . %d", key, int(f.DestPort)+i)})
			}
		}
	}
}

func (t *routerTables) sets() []Set {
	return []Set{
		{"open_port", []Type{IfName, IPv4, Proto, Service}, nil, t.openPort},
		{"open_protocol", []Type{IfName, IPv4, Proto}, nil, t.openProtocol},
		{"open_host", []Type{IfName, IPv4}, nil, t.openHost},
	}
}

// chainName makes a name that nft takes for a chain of a device's name: a letter first, no dots or hyphens.
func chainName(device string) string {
	return "t_" + strings.NewReplacer(".", "_dot_", "-", "_").Replace(device)
}

// natTable is table ip ds4relay, or false where there is no relay.
func natTable(vps vpsTables, router *routerTables) (Table, bool) {
	if !vps.any && router.rules.Len() == 0 {
		return Table{}, false
	}
	var body string
	var sets []Set
	if vps.any {
		body += strings.ReplaceAll(vpsRuleset, "GROUP", strconv.Itoa(Group))
		sets = append(sets, vps.sets()...)
	}
	if router.rules.Len() > 0 {
		body += routerSets + router.rules.String()
		sets = append(sets, router.sets()...)
	}
	return Table{Family: "ip", Ruleset: tableText("ip", body), Sets: sets}, true
}

// errorRules are for one tunnel of a router. An ICMPv6 error about an outer packet becomes an ICMP error about the inner
// one only if the kernel's look-up of the inner packet's way ends in a tunnel (ip4ip6_err in net/ipv6/ip6_tunnel.c).
// Answers have their way by the mark, and the look-up takes the mark of the error.
const errorRules = `		icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } ip6 daddr LOCAL meta mark set meta mark & 0x00ffffff | MARK
`

// guardSets and guardRules let IPv4 in IPv6 (protocol 4) to an endpoint of a VPS only from the other end of a relay; of
// which one, the kernel sees to: a tunnel takes what has its remote and its local address (ip6_tnl_lookup). Other tunnels
// of the machine have other endpoints.
const guardSets = `
	# our endpoints, and those of the other ends
	set endpoint { type ipv6_addr; }
	set peer { type ipv6_addr; size 1024; }`

const guardRules = `		meta l4proto 4 ip6 saddr @peer accept
		meta l4proto 4 ip6 daddr @endpoint drop
`

// outerTable is table ip6 ds4relay: what concerns the tunnels' own packets.
func outerTable(vps vpsTables, router *routerTables) Table {
	table := Table{Family: "ip6"}
	var sets, rules string
	if vps.any {
		sets, rules = guardSets, guardRules
		table.Sets = []Set{{"endpoint", []Type{IPv6}, nil, vps.endpoint}, {"peer", []Type{IPv6}, nil, vps.peer}}
	}
	table.Ruleset = tableText("ip6", sets+`
	chain input {
		type filter hook input priority mangle; policy accept;
`+rules+router.errorRules.String()+`	}
`)
	return table
}

func tableText(family, body string) string {
	return fmt.Sprintf("table %s %s {\n\tchain %s { }%s}\n", family, TableName, MarkChain, body)
}
