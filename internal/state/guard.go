package state

import (
	_ "embed" // the rulesets
	"strconv"
	"strings"
)

// fenceRules are for devices that did not forward before: they now forward for the relays only. Answers to connections
// that others let through pass, and so does what others forward by DNAT. OWN stands for the rules for a router's hosts.
//
//go:embed nft/fence.nft
var fenceRules string

const fenceOwn = `		oifgroup GROUP ip saddr @egress_host accept
`

// fence is the part of table ip that stops devices from forwarding for others.
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

// FenceSet is the set in our table with the devices that did not forward before. It also serves as the record of that
// in the kernel.
var FenceSet = Set{Name: "fence", Key: []Type{IfName}}

// errorRules are for one tunnel of a router. The kernel converts an ICMPv6 error about an outer packet to an ICMP error
// about the inner one only if its route lookup for the inner packet ends in a tunnel (ip4ip6_err in
// net/ipv6/ip6_tunnel.c). Answers are routed by mark, and the lookup uses the mark of the error.
const errorRules = `		icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } ip6 daddr LOCAL meta mark set meta mark & 0x00ffffff | MARK
`

// guardSets, guardChain and guardRules admit IPv4 in IPv6 (protocol 4) to a VPS's endpoint only from the other end of a
// relay. The kernel checks that it is the right relay: a tunnel accepts only packets from its remote to its local
// address (ip6_tnl_lookup). Other tunnels of the machine have other endpoints. A first fragment may end before the
// header with the protocol: then no comparison matches, and the packet is dropped.
const guardSets = `
	# our endpoints, and those of the other ends
	set endpoint { type ipv6_addr; }
	set peer { type ipv6_addr; size 1024; }`

const guardChain = `
	chain to_endpoint {
		meta l4proto != 4 accept
		drop
	}`

// guardRules accept the packets of the tunnels by one lookup, in a set of fixed size.
const guardRules = `		ip6 saddr @peer accept
		ip6 daddr @endpoint goto to_endpoint
`

// outerTable is table ip6 ds4relay, for the outer packets of tunnels of IPv4 in IPv6; false if there are none.
// WireGuard knows its packets by their keys.
func outerTable(vps *vpsTables, router *routerTables) (Table, bool) {
	table := Table{Family: "ip6", Name: TableName}
	var sets, rules string
	endpoints := len(vps.elements["endpoint"]) > 0
	if endpoints {
		sets, rules = guardSets+guardChain, guardRules
		table.Sets = filled([]Set{{Name: "endpoint", Key: []Type{IPv6}}, {Name: "peer", Key: []Type{IPv6}}},
			vps.elements)
	}
	table.Ruleset = tableText(table, sets+`
	chain input {
		type filter hook input priority mangle; policy accept;
`+router.errorRules.String()+rules+`	}
`)
	return table, endpoints || router.errorRules.Len() > 0
}
