package state

import (
	_ "embed" // the rulesets
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
)

// vpsRuleset is the same for every configuration (GROUP stands for Group); only the elements differ. So a packet's cost
// does not grow with the number of forwards, and a change of one forward changes one element.
//
//go:embed nft/vps.nft
var vpsRuleset string

// cardRules are for VPSs whose cloud translates a public address: packets from and to clients carry the address of the
// network card; those of the homes, and of the VPS's own programs, the public one. They come after the forwards
// (priority) and before the chain srcnat.
//
//go:embed nft/vps_card.nft
var cardRules string

// vpsTables collects the elements of vpsRuleset.
type vpsTables struct {
	elements
	any   bool
	slots slots
	keeps map[Key][]span // by public address and protocol
	plain []string       // tunnels to homes without ds4relay
	turns []string       // public addresses that another VPS has by turns
}

func (t *vpsTables) add(r *config.Relay, link Link) {
	t.any = true
	for _, addr := range r.Addresses() {
		t.insert("public_address", Key{Addr: addr})
		t.insert("inside", Key{Addr: addr})
	}
	t.addCard(r)
	if r.Standby {
		t.turns = append(t.turns, r.Card().String())
	}
	if r.WireGuard.Plain {
		t.plain = append(t.plain, quote(link.Name))
	}
	if r.Transport == config.IPIP6 {
		t.insert("endpoint", Key{Addr: link.Local()})
		t.insert("peer", Key{Addr: link.Remote()})
	}
	opens := egressHosts(r)
	for _, host := range hosts(r) {
		key := Key{Device: link.Name, Addr: host}
		t.insert("member", key)
		t.insert("inside", Key{Addr: host})
		established, opening := key, key
		established.CtState, opening.CtState = "established", "new"
		t.put("host", established, Value{Verdict: "accept"})
		if slices.Contains(opens, host) {
			opened := "goto opened_public"
			if r.EgressPrivate {
				opened = "goto opened"
			}
			t.put("host", opening, Value{Verdict: opened})
			t.put("source", key, Value{Addr: r.Card()})
			if r.Translated() {
				t.put("card_source", key, Value{Addr: r.IPAddr})
			}
		}
	}
	if t.elements["port_forward"] == nil { // most forwards are one port
		t.elements["port_forward"] = make([]Element, 0, len(r.Forwards))
	}
	for _, f := range r.Forwards {
		for _, m := range f.Mappings() {
			for _, addr := range r.Addresses() {
				t.addMapping(addr, m)
			}
		}
	}
}

// addCard fills the maps of cardRules but card_source. Relays may share a public address.
func (t *vpsTables) addCard(r *config.Relay) {
	public, card := Key{Addr: r.IPAddr}, Key{Addr: r.NICAddr}
	if !r.Translated() || slices.ContainsFunc(t.elements["card"], func(e Element) bool { return e.Key == public }) {
		return
	}
	t.put("card", public, Value{Addr: r.NICAddr})
	t.put("card_public", card, Value{Addr: r.IPAddr})
}

// addKeeps adds what stays the VPS's own; relays are all relays of this machine.
func (t *vpsTables) addKeeps(relays []*config.Relay) {
	t.keeps = map[Key][]span{}
	for _, r := range relays {
		for _, addr := range r.Addresses() {
			for _, keep := range r.Keep {
				key := protoKey(addr, keep.Proto)
				if keep.HasPorts() {
					t.keeps[key] = append(t.keeps[key], span{first: keep.First, last: keep.Last})
				} else {
					t.put("protocol_exception", key, Value{Verdict: "accept"})
				}
			}
		}
	}
	for key, spans := range t.keeps {
		t.keeps[key] = disjoint(spans)
		t.putSpans("port_exception", "range_exception", key, t.keeps[key], "accept")
	}
}

// left returns the parts of a set of ports that no relay keeps; key is the public address and the protocol.
func (t *vpsTables) left(key Key, set config.PortSet) (parts []span) {
	next, last := int(set.First), int(set.Last)
	for _, keep := range t.keeps[key] {
		if int(keep.first) > last {
			break
		}
		if next < int(keep.first) {
			parts = append(parts, span{first: uint16(next), last: keep.first - 1})
		}
		next = max(next, int(keep.last)+1)
	}
	if next <= last {
		parts = append(parts, span{first: uint16(next), last: set.Last})
	}
	return parts
}

// addOwn lets the VPS's own programs reach the homes by public addresses, unless a relay with the address objects.
func (t *vpsTables) addOwn(relays []*config.Relay) {
	objects := map[netip.Addr]bool{}
	for _, r := range relays {
		for _, addr := range r.Addresses() {
			objects[addr] = objects[addr] || !r.TargetLocal
		}
	}
	for addr, objects := range objects {
		if !objects {
			t.insert("target_local", Key{Addr: addr})
		}
	}
}

func (t *vpsTables) addMapping(public netip.Addr, m config.Mapping) {
	host := Value{Addr: m.Host}
	if m.All && !m.Limited() {
		t.put("address_forward", Key{Addr: public}, host)
	}
	key := protoKey(public, m.Public.Proto)
	for _, client := range m.Clients {
		switch {
		case m.All:
			t.put("client_forward", Key{Addr: public, Client: client}, host)
		case !m.Public.HasPorts():
			t.insert("protocol_client", key.from(client))
		default:
			t.insert("port_client", key.between(m.Public.First, m.Public.Last).from(client))
		}
	}
	if m.All {
		return
	}
	t.destinations(key, m, "port_forward", "range_forward", "protocol_forward")
	switch {
	case !m.Limited():
	case !m.Public.HasPorts():
		t.put("protocol_exception", key, Value{Verdict: "goto limited_protocol"})
	default:
		t.putSpans("port_exception", "range_exception", key, t.left(key, m.Public), "goto limited_port")
	}
}

// addSlots fills the maps of slotSets, which slotChains use; relays are all relays of this machine.
func (t *vpsTables) addSlots(relays []*config.Relay) {
	public := map[netip.Addr]bool{} // public addresses with a host in a slot
	for _, r := range relays {
		if len(t.slots.hosts[r.Name]) > 0 {
			public[r.IPAddr] = true
		}
	}
	for _, r := range relays {
		for _, host := range hosts(r) {
			if t.slots.has(r.Name, host) {
				_, verdict := slotVerdicts(t.slots.of[r.Name], r, host)
				t.put("slot_host", Key{Device: r.Device, Addr: host}, Value{Verdict: verdict})
			}
		}
		if public[r.IPAddr] {
			for _, addr := range r.Addresses() {
				t.addSlotsAt(addr, r)
			}
		}
	}
}

// addSlotsAt adds what a relay has at one of its addresses.
func (t *vpsTables) addSlotsAt(addr netip.Addr, r *config.Relay) {
	for _, keep := range r.Keep {
		key := protoKey(addr, keep.Proto)
		if !keep.HasPorts() {
			t.put("slot_protocol", key, Value{Verdict: "accept"})
		}
		t.putSpans("slot_port", "slot_range", key, t.keeps[key], "accept")
	}
	for _, f := range r.Forwards {
		verdict := "accept"
		if t.slots.has(r.Name, f.DestIP) {
			verdict, _ = slotVerdicts(t.slots.of[r.Name], r, f.DestIP)
		}
		for _, m := range f.Mappings() {
			key := protoKey(addr, m.Public.Proto)
			switch {
			case m.All:
				t.put("slot_address", Key{Addr: addr}, Value{Verdict: verdict})
			case !m.Public.HasPorts():
				t.put("slot_protocol", key, Value{Verdict: verdict})
			default:
				t.putSpans("slot_port", "slot_range", key, t.left(key, m.Public), verdict)
			}
		}
	}
}

// vpsSets describes the sets of vpsRuleset.
var vpsSets = []Set{
	{Name: "port_forward", Key: []Type{IPv4, Proto, Service}, Value: []Type{IPv4, Service}},
	{Name: "range_forward", Key: []Type{IPv4, Proto, Service}, Value: []Type{IPv4}},
	{Name: "protocol_forward", Key: []Type{IPv4, Proto}, Value: []Type{IPv4}},
	{Name: "address_forward", Key: []Type{IPv4}, Value: []Type{IPv4}},
	{Name: "client_forward", Key: []Type{IPv4, IPv4}, Value: []Type{IPv4}},
	{Name: "port_exception", Key: []Type{IPv4, Proto, Service}, Value: []Type{Verdict}},
	{Name: "range_exception", Key: []Type{IPv4, Proto, Service}, Value: []Type{Verdict}},
	{Name: "protocol_exception", Key: []Type{IPv4, Proto}, Value: []Type{Verdict}},
	{Name: "port_client", Key: []Type{IPv4, Proto, Service, IPv4}},
	{Name: "protocol_client", Key: []Type{IPv4, Proto, IPv4}},
	{Name: "host", Key: []Type{IfName, IPv4, CtState}, Value: []Type{Verdict}},
	{Name: "source", Key: []Type{IfName, IPv4}, Value: []Type{IPv4}},
	{Name: "member", Key: []Type{IfName, IPv4}},
	{Name: "public_address", Key: []Type{IPv4}},
	{Name: "target_local", Key: []Type{IPv4}},
	{Name: "inside", Key: []Type{IPv4}},
}

// cardSets describes the sets of cardRules.
var cardSets = []Set{
	{Name: "card", Key: []Type{IPv4}, Value: []Type{IPv4}},
	{Name: "card_public", Key: []Type{IPv4}, Value: []Type{IPv4}},
	{Name: "card_source", Key: []Type{IfName, IPv4}, Value: []Type{IPv4}},
}

// text returns the VPS's part of table ip, with its sets.
func (t *vpsTables) text() (string, []Set) {
	body, sets := apart(vpsRuleset), filled(vpsSets, t.elements)
	if numbers := sortedSlots(t.slots); len(numbers) > 0 {
		body += apart(slotSets)
		for _, n := range numbers {
			body += strings.NewReplacer("_N_", fmt.Sprintf("_%d_", n), "set N", fmt.Sprintf("set %d", n),
				"MARK", fmt.Sprintf("%#08x", markOfSlot(n))).Replace(apart(slotRules))
		}
		body += apart(slotChains)
		sets = append(sets, filled(slotSetTypes, t.elements)...)
	}
	if len(t.elements["card"]) > 0 {
		body += apart(cardRules)
		sets = append(sets, filled(cardSets, t.elements)...)
	}
	plain := ""
	if len(t.plain) > 0 {
		plain = fmt.Sprintf("\t\toifname { %s } snat to %s\n", strings.Join(t.plain, ", "), config.PlainAddr)
	}
	stray := ""
	if len(t.turns) > 0 {
		slices.Sort(t.turns)
		stray = fmt.Sprintf("\t\tip daddr { %s } ct state invalid drop\n", strings.Join(slices.Compact(t.turns), ", "))
	}
	fill := strings.NewReplacer("GROUP", strconv.Itoa(Group), "PRIVATE", prefixList(config.ReservedNetworks()),
		"PLAIN", plain, "STRAY", stray)
	return fill.Replace(body), sets
}
