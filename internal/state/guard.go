package state

import (
	_ "embed" // the rulesets
	"strconv"
	"strings"
)

// fenceRules are for devices that did not forward before: what they forward now is the relays' only. Connections that
// others let through from elsewhere have their answers; what others forward by DNAT goes on. OWN is for a router's
// hosts.
//
//go:embed nft/fence.nft
var fenceRules string

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
		set.Elements = append(set.Elements, Element{Key: Key{Device: device}})
	}
	return strings.ReplaceAll(apart(fenceRules), "OWN", own), []Set{set}
}

// FenceSet is the set of our table that has the devices which did not forward before: the kernel's note of it.
var FenceSet = Set{Name: "fence", Key: []Type{IfName}}

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
