package state

import (
	_ "embed" // the rulesets
	"fmt"
	"net/netip"
	"slices"

	"github.com/ds4relay/ds4relay/internal/config"
)

// On a VPS, hosts of two homes may have the same address. One of them has its route in the main table. Each of the
// others belongs to a slot of its relay: a routing table, a packet and connection mark, and a connection tracking zone
// (nf_conntrack_zones.h), in which its connections cannot clash with the others'.

// slotTable is the routing table of slot 0, slotMark its mark. A slot's number is added to the table, and is in the
// middle 16 bits of the mark. The lower eight bits of marks are left to others.
const (
	slotTable    = 460000
	slotMark     = 0xd4000000
	slotMarkMask = 0xffffff00
	maxSlot      = 0xffff
)

func markOfSlot(slot int) uint32 { return slotMark | uint32(slot)<<8 }

// slots says which hosts of a VPS's relays belong to a slot.
type slots struct {
	of    map[string]int                 // relay → slot, for relays with such hosts
	hosts map[string]map[netip.Addr]bool // relay → those hosts
}

func (s slots) has(relay string, host netip.Addr) bool { return s.hosts[relay][host] }

// assignSlots leaves every host where the existing routes (own) have it, so that connections survive when homes come
// and go. The first of several new hosts gets the main table.
func assignSlots(relays []*config.Relay, own []Route) slots {
	s := slots{of: map[string]int{}, hosts: map[string]map[netip.Addr]bool{}}
	inMain := map[netip.Addr]string{} // host → device
	inSlot := map[Route]bool{}        // without a table
	slotOf := map[string]int{}        // device → slot
	taken := map[int]bool{}
	for _, route := range own {
		switch slot := int(route.Table) - slotTable; {
		case route.Table == MainTable && route.Dst.Bits() == 32:
			inMain[route.Dst.Addr()] = route.Device
		case slot > 0 && slot <= maxSlot:
			inSlot[Route{Dst: route.Dst, Device: route.Device}] = true
			slotOf[route.Device] = slot
			taken[slot] = true
		}
	}
	owner := map[netip.Addr]string{} // host → relay whose route is in the main table
	claim := func(wanted func(device string, host netip.Addr) bool) {
		for _, r := range relays {
			for _, host := range hosts(r) {
				if _, ok := owner[host]; !ok && wanted(r.Device, host) {
					owner[host] = r.Name
				}
			}
		}
	}
	claim(func(device string, host netip.Addr) bool { return inMain[host] == device })
	claim(func(device string, host netip.Addr) bool {
		return !inSlot[Route{Dst: netip.PrefixFrom(host, 32), Device: device}]
	})
	next := 1
	for _, r := range relays {
		for _, host := range hosts(r) {
			if owner[host] == r.Name {
				continue
			}
			if s.hosts[r.Name] == nil {
				s.hosts[r.Name] = map[netip.Addr]bool{}
				slot, ok := slotOf[r.Device]
				for ; !ok && taken[next]; next++ {
				}
				if !ok {
					slot, taken[next] = next, true
				}
				s.of[r.Name] = slot
			}
			s.hosts[r.Name][host] = true
		}
	}
	return s
}

// slotSets and slotChains exist as long as a host belongs to a slot.
//
//go:embed nft/slot_sets.nft
var slotSets string

//go:embed nft/slot_chains.nft
var slotChains string

// slotRules are for one slot. If a host opens connections, the zone applies to what it sends. Otherwise the host's side
// of each connection is in the zone: then not even the answers to one client that talks to two homes from one port
// clash. In the first case the kernel changes the client port of the second connection.
//
//go:embed nft/slot.nft
var slotRules string

// slotVerdicts returns the chains for packets that clients send to a host, and for those that it sends. Packets of
// clients that are not admitted must not get a zone.
func slotVerdicts(slot int, r *config.Relay, host netip.Addr) (client, answer string) {
	for _, f := range r.Forwards {
		if f.DestIP == host && (f.Egress == config.All || len(f.Clients) > 0) {
			return fmt.Sprintf("goto slot_%d_all", slot), fmt.Sprintf("goto slot_%d_opener", slot)
		}
	}
	return fmt.Sprintf("goto slot_%d_client", slot), fmt.Sprintf("goto slot_%d_host", slot)
}

func sortedSlots(s slots) []int {
	var numbers []int
	for _, n := range s.of {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	return numbers
}

// slotSetTypes describes the sets in slotSets.
var slotSetTypes = []Set{
	{Name: "slot_host", Key: []Type{IfName, IPv4}, Value: []Type{Verdict}},
	{Name: "slot_port", Key: []Type{IPv4, Proto, Service}, Value: []Type{Verdict}},
	{Name: "slot_range", Key: []Type{IPv4, Proto, Service}, Value: []Type{Verdict}},
	{Name: "slot_protocol", Key: []Type{IPv4, Proto}, Value: []Type{Verdict}},
	{Name: "slot_address", Key: []Type{IPv4}, Value: []Type{Verdict}},
}
