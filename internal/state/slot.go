package state

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/ds4relay/ds4relay/internal/config"
)

// On a VPS with several homes, hosts of two of them may have the same address. One of them has its route in the main
// table; each of the others belongs to a slot of its relay: a routing table, a packet and connection mark, and a zone of
// connection tracking (nf_conntrack_zones.h), in which its connections cannot clash with those of the others.

// slotTable is the routing table of slot 0, slotMark its mark; a slot's number is added to the one, and stands in the
// middle 16 bits of the other. The lower eight bits of marks are left to others.
const (
	slotTable    = 460000
	slotMark     = 0xd4000000
	slotMarkMask = 0xffffff00
	maxSlot      = 0xffff
)

func markOfSlot(slot int) uint32 { return slotMark | uint32(slot)<<8 }

// slots say which hosts of which relays of a VPS belong to a slot.
type slots struct {
	of    map[string]int                 // relay → slot, for relays with such hosts
	hosts map[string]map[netip.Addr]bool // relay → those hosts
}

func (s slots) has(relay string, host netip.Addr) bool { return s.hosts[relay][host] }

// assignSlots leaves every host where it is in own, the routes that are there already: connections go on when homes come
// and go. Of those that are new the first one gets the main table.
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

// slotSets and slotRules are there as long as a host belongs to a slot.
const slotSets = `
	# homes whose hosts have addresses that another home's hosts have too: which packets belong to which
	map slot_host { type ifname . ipv4_addr : verdict; }
	map slot_port { type ipv4_addr . inet_proto . inet_service : verdict; }
	map slot_range { type ipv4_addr . inet_proto . inet_service : verdict; flags interval; }
	map slot_protocol { type ipv4_addr . inet_proto : verdict; }
	map slot_address { type ipv4_addr : verdict; }
`

const slotChains = `
	chain slot {
		type filter hook prerouting priority raw; policy accept;
		iifgroup GROUP iifname . ip saddr vmap @slot_host
		iifgroup GROUP accept
		ip daddr . meta l4proto . th dport vmap @slot_port
		ip daddr . meta l4proto . th dport vmap @slot_range
		ip daddr . meta l4proto vmap @slot_protocol
		ip daddr vmap @slot_address
	}
	# the mark of a connection is that of its first packet, and brings all that goes to the home there
	chain slot_mark {
		type filter hook prerouting priority mangle; policy accept;
		ct mark & 0xff000000 == 0xd4000000 iifgroup != GROUP meta mark set ct mark
		ct state new meta mark & 0xff000000 == 0xd4000000 ct mark set meta mark
	}
`

// slotRules are for one slot. A host that opens connections has the zone for what it sends; else all that belongs to
// the host's side of a connection is in the zone: then even the answers to one client that talks to two homes from one
// port cannot clash, where otherwise the kernel gives the second connection another port.
const slotRules = `
	chain slot_N_client { ct reply zone set N; goto slot_N_all; }
	chain slot_N_host { ct zone set N; goto slot_N_all; }
	chain slot_N_opener { ct original zone set N; goto slot_N_all; }
	chain slot_N_all { meta mark set meta mark & 0x000000ff | MARK; }
`

// slotVerdicts are the chains of a host's packets: those that clients send to it, and those that it sends. Where some
// clients are not let in, what they send must not have a zone either.
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
