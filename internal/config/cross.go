package config

import (
	"fmt"
	"net/netip"
)

// cross reports what is wrong between sections. Only enabled relays and forwards take part.
func (r *reader) cross() {
	devices, tables, tunnels := map[string]*Relay{}, map[uint32]*Relay{}, map[[2]netip.Addr]*Relay{}
	var before []*Relay
	for _, relay := range r.config.Relays {
		if !relay.Enabled {
			continue
		}
		if other := devices[relay.Device]; other != nil {
			r.relayProblem(relay, "device", relay.Device, fmt.Sprintf("relay %q has the same device; give each relay its own", other.Name))
		}
		devices[relay.Device] = relay
		if relay.Role == Router {
			if other := tables[relay.Table]; other != nil {
				r.relayProblem(relay, "ip4table", fmt.Sprint(relay.Table), fmt.Sprintf("relay %q has the same table; give each relay its own", other.Name))
			}
			for _, other := range tables {
				if other.Table != relay.Table && other.Mark() == relay.Mark() {
					r.relayProblem(relay, "ip4table", fmt.Sprint(relay.Table), fmt.Sprintf(
						"relay %q has table %d, which gives the same connection mark; allowed is a table whose distance is no multiple of 255", other.Name, other.Table))
				}
			}
			tables[relay.Table] = relay
		}
		pair := [2]netip.Addr{relay.Local, relay.Peer}
		if other := tunnels[pair]; other != nil && relay.Peer.IsValid() {
			r.relayProblem(relay, "peeraddr", relay.Peer.String(), fmt.Sprintf("relay %q has a tunnel between the same two endpoints; one of the four must differ", other.Name))
		}
		tunnels[pair] = relay
		r.overlaps(relay, before)
		before = append(before, relay)
	}
}

func (r *reader) relayProblem(relay *Relay, option, value, message string) {
	r.problems = append(r.problems, Problem{File: r.file.Path, Line: r.lines[relay](option), Section: fmt.Sprintf("relay %q", relay.Name),
		Option: option, Value: value, Message: message})
}

// overlaps reports ports of a relay's address that two forwards want, or that are both kept and forwarded. A forward
// of all takes what the others leave and overlaps only with another of all.
func (r *reader) overlaps(relay *Relay, before []*Relay) {
	type claim struct {
		forward *Forward
		relay   *Relay
	}
	var claims []claim
	for _, other := range before {
		if other.IPAddr == relay.IPAddr && other.Role == relay.Role {
			for _, f := range other.Forwards {
				claims = append(claims, claim{f, other})
			}
		}
	}
	index := map[uint8][]struct {
		PortSet
		claim
	}{}
	taken := func(set PortSet) *claim {
		for i := range index[set.Proto] {
			if c := &index[set.Proto][i]; c.overlaps(set) {
				return &c.claim
			}
		}
		return nil
	}
	var all *claim
	add := func(c claim) {
		if c.forward.All {
			all = &c
		}
		for _, set := range c.forward.Ports {
			index[set.Proto] = append(index[set.Proto], struct {
				PortSet
				claim
			}{set, c})
		}
	}
	for _, c := range claims {
		add(c)
	}
	for _, f := range relay.Forwards {
		if f.DestIP == relay.IPAddr {
			r.forwardProblem(f, "dest_ip", f.DestIP.String(), "is the public address itself; allowed is "+sectionSpec("forward").option("dest_ip").Allowed)
		}
		if f.All && all != nil {
			r.forwardProblem(f, "proto", "all", fmt.Sprintf("forward %q of relay %q has all of %s already; only one host can", all.forward.Section, all.relay.Name, relay.IPAddr))
		}
		for _, set := range f.Ports {
			if other := taken(set); other != nil {
				option := "src_dport"
				if set.First == 0 {
					option = "proto"
				}
				r.forwardProblem(f, option, set.String(), fmt.Sprintf("overlaps with forward %q of relay %q (%s); a port of %s can go to one host only",
					other.forward.Section, other.relay.Name, other.forward, relay.IPAddr))
			}
			for _, keep := range relay.Keep {
				if keep.overlaps(set) {
					r.forwardProblem(f, "src_dport", set.String(), fmt.Sprintf("is also kept for the VPS (list keep '%s' of relay %q); remove one of the two", keep, relay.Name))
				}
			}
		}
		add(claim{f, relay})
	}
}

func (r *reader) forwardProblem(f *Forward, option, value, message string) {
	r.problems = append(r.problems, Problem{File: r.file.Path, Line: r.lines[f](option), Section: fmt.Sprintf("forward %q", f.Section),
		Option: option, Value: value, Message: message})
}
