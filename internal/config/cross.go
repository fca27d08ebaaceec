package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"sort"

	"github.com/ds4relay/ds4relay/internal/message"
)

// cross reports conflicts between sections. Only enabled relays, forwards and proxies count.
func (r *reader) cross() {
	devices, tables, marks, tunnels := map[string]*Relay{}, map[uint32]*Relay{}, map[uint32]*Relay{},
		map[pair]*Relay{}
	type public struct {
		addr netip.Addr
		role Role
	}
	var enabled []*Relay
	var order []public
	addresses := map[public][]*Relay{}
	for _, relay := range r.config.Relays {
		if !relay.Enabled {
			continue
		}
		if other := devices[relay.Device]; other != nil {
			r.relayProblem(relay, "device", relay.Device, "relay %q has the same device; give each relay its own",
				other.Name)
		}
		devices[relay.Device] = relay
		if relay.Role == Router {
			if other := tables[relay.Table]; other != nil {
				r.relayProblem(relay, "ip4table", fmt.Sprint(relay.Table),
					"relay %q has the same table; give each relay its own", other.Name)
			}
			if other := marks[relay.Mark()]; other != nil && other.Table != relay.Table {
				r.relayProblem(relay, "ip4table", fmt.Sprint(relay.Table),
					"relay %q has table %d, which gives the same connection mark; allowed is a table whose distance "+
						"is no multiple of 255", other.Name, other.Table)
			}
			tables[relay.Table], marks[relay.Mark()] = relay, relay
		}
		r.wireguard(relay, enabled)
		ends := endpoints(relay)
		known := (relay.Local.IsValid() || relay.Auto && relay.IPAddr.IsValid()) &&
			(relay.Peer.IsValid() || relay.PeerName != "")
		if other := tunnels[ends]; other != nil && known {
			r.relayProblem(relay, "peeraddr", cmp.Or(relay.PeerName, relay.Peer.String()),
				"relay %q has a tunnel between the same two endpoints; one of the four must differ", other.Name)
		}
		tunnels[ends] = relay
		enabled = append(enabled, relay)
		key := public{relay.IPAddr, relay.Role}
		if addresses[key] == nil {
			order = append(order, key)
		}
		addresses[key] = append(addresses[key], relay)
	}
	r.cards(enabled)
	for _, key := range order {
		r.overlaps(addresses[key])
	}
	r.backups(enabled)
	r.egresses(enabled)
	r.killSwitches(enabled)
	r.masqs(enabled)
	r.proxies(enabled)
	if relays := r.config.Relays; len(enabled) == 0 && len(relays) > 0 && len(r.config.Proxies) == 0 {
		r.warnings.add(r.at(r.lineOf(relays[0], "enabled"), label("relay", relays[0].Name), "enabled", "0",
			message.New("no relay is enabled, so `up` brings up nothing; write '1' here once the values are yours")))
	}
}

// wireguard reports what relays with the transport WireGuard cannot share: the port of a VPS, and on a router the VPS's
// address, port and key.
func (r *reader) wireguard(relay *Relay, others []*Relay) {
	for _, other := range others {
		if relay.Transport != WireGuard || other.Transport != WireGuard || other.Role != relay.Role ||
			other.WireGuard.Port != relay.WireGuard.Port {
			continue
		}
		port := fmt.Sprint(relay.WireGuard.Port)
		switch {
		case relay.Role == VPS:
			r.relayProblem(relay, "listen_port", port, "relay %q has the same port; give each relay its own",
				other.Name)
		case relay.Peer == other.Peer && relay.PeerName == other.PeerName:
			r.relayProblem(relay, "endpoint_port", port, "relay %q has the same VPS and port; give each relay its own "+
				"port there", other.Name)
		}
	}
}

// cards gives relays of one public address the same address on the network card, and reports cards' addresses that
// cannot stand for one public address: a packet would not say which one it was sent to.
func (r *reader) cards(relays []*Relay) {
	given := map[netip.Addr]*Relay{} // public address → relay with nicaddr
	for _, relay := range relays {
		if other := given[relay.IPAddr]; other != nil && relay.NICAddr.IsValid() && other.NICAddr != relay.NICAddr {
			r.relayProblem(relay, "nicaddr", relay.NICAddr.String(), "relay %q has another one (%s) for the same "+
				"ipaddr; allowed is the same in both", other.Name, other.NICAddr)
		}
		if relay.NICAddr.IsValid() {
			given[relay.IPAddr] = relay
		}
	}
	for _, relay := range relays {
		if other := given[relay.IPAddr]; other != nil && relay.Role == VPS {
			relay.NICAddr = other.NICAddr
		}
	}
	for i, relay := range relays {
		for j, other := range relays {
			same := relay.Translated() && relay.NICAddr == other.Card() && other.Role == VPS
			if !same || relay.IPAddr == other.IPAddr || j > i && other.Translated() {
				continue // of two with the same nicaddr the later one is reported
			}
			r.relayProblem(relay, "nicaddr", relay.NICAddr.String(), "relay %q has the same address on the network "+
				"card for another ipaddr (%s); give each public address its own", other.Name, other.IPAddr)
			break
		}
	}
}

func (r *reader) relayProblem(relay *Relay, option, value, code string, args ...any) {
	r.problems.add(r.at(r.lineOf(relay, option), label("relay", relay.Name), option, value, message.New(code, args...)))
}

// pair is what a tunnel's endpoints are made of. An end that is not known yet has what makes it: the public address in
// the prefix that the link gets delegated, or the other end's name.
type pair struct {
	local, peer, public netip.Addr
	link, name          string
}

func endpoints(relay *Relay) pair {
	ends := pair{local: relay.Local, peer: relay.Peer, name: relay.PeerName}
	if relay.Auto {
		ends.public, ends.link = relay.IPAddr, relay.Tunlink
	}
	return ends
}

// claim is a set of ports of a public address that a forward uses; order is its place in the file.
type claim struct {
	PortSet
	forward *Forward
	relay   *Relay
	order   int
}

// kept is a `list keep` of a relay.
type kept struct {
	PortSet
	relay *Relay
}

// keeps returns the relays' `list keep` values, and by protocol their ports with the indices of these values.
func keeps(relays ...*Relay) (list []kept, ports map[uint8][]span) {
	ports = map[uint8][]span{}
	for _, relay := range relays {
		for _, keep := range relay.Keep {
			ports[keep.Proto] = append(ports[keep.Proto], span{keep.First, keep.Last, len(list)})
			list = append(list, kept{keep, relay})
		}
	}
	for proto, spans := range ports {
		ports[proto] = disjoint(spans)
	}
	return list, ports
}

// overlaps reports ports of an address that two forwards use, and forwards all of whose ports are kept: keep comes
// first. The relays have the same address and role. A forward of all gets what the others leave, and overlaps only with
// another forward of all.
func (r *reader) overlaps(relays []*Relay) {
	keep, keptPorts := keeps(relays...)
	var all *claim
	claims := map[uint8][]claim{}
	order := 0
	for _, c := range r.inTurn(relays) {
		relay, f := c.relay, c.forward
		if relay.Has(f.DestIP) {
			r.forwardProblem(f, "dest_ip", f.DestIP.String(), "is the public address itself; allowed is %s",
				allowed(sectionSpec("forward").option("dest_ip").Allowed))
		}
		if f.All && all != nil && all.forward.Same(f) {
			continue
		}
		if f.All && all != nil && f.Pushed != "" && all.relay != relay {
			r.forwardProblem(f, "proto", "all", "another home of the VPS has it already; only one host can")
		} else if f.All && all != nil {
			r.forwardProblem(f, "proto", "all", "forward %q of relay %q has all of %s already; only one host can",
				short(all.forward.Section), all.relay.Name, relay.IPAddr)
		}
		if f.All && all == nil {
			all = &claim{forward: f, relay: relay}
		}
		for _, set := range f.Ports {
			claims[set.Proto] = append(claims[set.Proto], claim{set, f, relay, order})
			order++
			i, ok := find(keptPorts[set.Proto], set.First, set.Last)
			if !ok || keep[i].First > set.First || keep[i].Last < set.Last { // something of it is left
				continue
			}
			if f.Pushed != "" {
				r.forwardProblem(f, "src_dport", set.String(), "is kept for the VPS itself; allowed is another port")
				continue
			}
			if own, has := keep[i].relay.KeptPort(); has && own == keep[i].PortSet {
				r.forwardProblem(f, "src_dport", set.String(),
					"is the port of relay %q's own WireGuard; allowed is another one, or another port for the "+
						"relay (option listen_port on the VPS, endpoint_port at home)", keep[i].relay.Name)
				continue
			}
			r.forwardProblem(f, "src_dport", set.String(),
				"is also kept for the VPS (list keep '%s' of relay %q); remove one of the two", keep[i].PortSet,
				keep[i].relay.Name)
		}
	}
	for _, of := range claims {
		r.clashes(of)
	}
}

// inTurn are the relays' forwards: those of the file come first, then what homes have pushed.
func (r *reader) inTurn(relays []*Relay) (list []claim) {
	total := 0
	for _, relay := range relays {
		total += len(relay.Forwards)
	}
	list = make([]claim, 0, total)
	for _, relay := range relays {
		for _, f := range relay.Forwards {
			list = append(list, claim{forward: f, relay: relay})
		}
	}
	if r.turns > 0 {
		sort.SliceStable(list, func(i, j int) bool { return list[i].forward.turn < list[j].forward.turn })
	}
	return list
}

// clashes reports each claim of one protocol that begins within an earlier one.
func (r *reader) clashes(claims []claim) {
	sort.SliceStable(claims, func(i, j int) bool {
		a, b := &claims[i], &claims[j]
		return a.First < b.First || a.First == b.First && a.order < b.order
	})
	for i, furthest := 1, 0; i < len(claims); i++ {
		if claims[i].First <= claims[furthest].Last && !claims[i].forward.Same(claims[furthest].forward) {
			later, earlier := claims[i], claims[furthest]
			if later.order < earlier.order {
				later, earlier = earlier, later
			}
			option := "src_dport"
			if later.First == 0 {
				option = "proto"
			}
			if later.forward.Pushed != "" && later.relay != earlier.relay {
				r.forwardProblem(later.forward, option, later.String(), "another home of the VPS has it already; "+
					"allowed is another port")
				continue
			}
			r.forwardProblem(later.forward, option, later.String(),
				"overlaps with forward %q of relay %q (%s); a port of %s can go to one host only",
				short(earlier.forward.Section), earlier.relay.Name, earlier.forward.brief(), later.relay.IPAddr)
		}
		if claims[i].Last > claims[furthest].Last {
			furthest = i
		}
	}
}

// Same reports whether two forwards are one section, which is for several relays.
func (f *Forward) Same(other *Forward) bool {
	return other != nil && f.Line == other.Line && f.Pushed == other.Pushed
}

// egresses reports hosts of a router whose own connections would have to go through two tunnels.
func (r *reader) egresses(relays []*Relay) {
	through := map[netip.Addr][]*Relay{}
	type section struct {
		line   int
		pushed string
	}
	replies := map[section]*Relay{} // forwards with egress replies → a relay of theirs
	for _, relay := range relays {
		for _, f := range relay.Forwards {
			if f.Egress != All {
				replies[section{f.Line, f.Pushed}] = relay
			}
		}
	}
	for _, relay := range relays {
		for _, f := range relay.Forwards {
			if relay.Role != Router || f.Egress != All {
				continue
			}
			if other := replies[section{f.Line, f.Pushed}]; other != nil {
				r.forwardProblem(f, "egress", "all", "is the default of relay %q, but not of relay %q, which has this "+
					"forward, too; give it here", relay.Name, other.Name)
				continue
			}
			others := through[f.DestIP]
			i := slices.IndexFunc(others, func(other *Relay) bool {
				return other != relay && !r.backsUp(relay, other) && !r.backsUp(other, relay)
			})
			switch {
			case slices.Contains(others, relay):
			case i < 0:
				through[f.DestIP] = append(others, relay)
			case slices.ContainsFunc(others[i].Forwards, f.Same):
				r.forwardProblem(f, "egress", "all", "is for several relays only if one is the backup of the other; "+
					"allowed is replies, or option backup in relay %q", others[i].Name)
			default:
				r.forwardProblem(f, "egress", "all", "%s sends its own connections through relay %q already; allowed "+
					"is egress 'replies' in one of the two, or option backup in relay %q", f.DestIP, others[i].Name,
					others[i].Name)
			}
		}
	}
}

// killSwitches reports relays of a router whose ip rules come after the kill switch of another one for a host of both:
// the host's answers to their clients would not leave.
func (r *reader) killSwitches(relays []*Relay) {
	strict, ways := map[netip.Addr]*Relay{}, OwnWays(relays)
	for _, relay := range relays {
		for _, f := range relay.Forwards {
			if relay.Role == Router && f.KillSwitch && f.Egress == All {
				strict[f.DestIP] = KillPlace(ways[f.DestIP])
			}
		}
	}
	for _, relay := range relays {
		for _, f := range relay.Forwards {
			other := strict[f.DestIP]
			if other == nil || relay.Role != Router || relay.Priority+AnswersRule < other.Priority+KillSwitchRule {
				continue
			}
			r.relayProblem(relay, "priority", fmt.Sprint(relay.Priority), "comes after the kill switch of relay %q for "+
				"%s, which both have; allowed is at most %d", other.Name, f.DestIP,
				other.Priority+KillSwitchRule-AnswersRule-1)
			break
		}
	}
}

// masqs reports forwards of a router's relay to one host that differ in masq: the host has one default gateway. If that
// is another router, what the host sends by itself does not come here.
func (r *reader) masqs(relays []*Relay) {
	for _, relay := range relays {
		first := map[netip.Addr]*Forward{}
		for _, f := range relay.Forwards {
			if relay.Role == Router && f.Masq && f.Egress == All {
				r.warnings.add(r.at(r.lineOf(f, "egress"), label("forward", f.Section), "egress", "all", message.New(
					"is only for what %s sends through this machine; with masq '1' its gateway is another router, and "+
						"its own connections do not come here", f.DestIP)))
			}
			switch other := first[f.DestIP]; {
			case other == nil:
				first[f.DestIP] = f
			case relay.Role == Router && other.Masq != f.Masq:
				value := map[bool]string{true: "1", false: "0"}
				r.forwardProblem(f, "masq", value[f.Masq], "%s has masq '%s' in forward %q; allowed is the same in all "+
					"forwards of a relay to one host", f.DestIP, value[other.Masq], short(other.Section))
			}
		}
	}
}

func (r *reader) forwardProblem(f *Forward, option, value, code string, args ...any) {
	p := r.at(r.lineOf(f, option), label("forward", f.Section), option, value, message.New(code, args...))
	if f.Pushed != "" {
		p.File = f.Pushed
	}
	r.problems.add(p)
}
