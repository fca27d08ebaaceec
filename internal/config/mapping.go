package config

import (
	"cmp"
	"net/netip"
	"slices"
)

// Mapping says which packets of one protocol (or of all) to the public address go to which host and port. Everything
// that needs it (DNAT, the router's filter, hairpin, firewalls, status, trace, doctor) uses Forward.Mappings.
type Mapping struct {
	All     bool    // every protocol; Public is empty then
	Public  PortSet // protocol and ports at the public address
	Host    netip.Addr
	Port    uint16         // the host's port that Public.First leads to, the others following; 0 without ports
	Clients []netip.Prefix // who may use it, none within another; nil for everybody
}

// Mappings returns the forward's mappings, in the order of its protocols.
func (f *Forward) Mappings() []Mapping {
	if f.All {
		return []Mapping{{All: true, Host: f.DestIP, Clients: f.Clients}}
	}
	mappings := make([]Mapping, 0, len(f.Ports))
	for _, set := range f.Ports {
		m := Mapping{Public: set, Host: f.DestIP, Clients: f.Clients}
		if set.HasPorts() {
			m.Port = cmp.Or(f.DestPort, set.First)
		}
		mappings = append(mappings, m)
	}
	return mappings
}

// Private is the protocol and the ports on the host's side.
func (m Mapping) Private() PortSet {
	if !m.Public.HasPorts() {
		return m.Public
	}
	return PortSet{m.Public.Proto, m.Port, m.Port + (m.Public.Last - m.Public.First)}
}

// KeepsPorts reports whether the ports are the same on both sides.
func (m Mapping) KeepsPorts() bool { return m.Port == m.Public.First }

// Limited reports whether only some clients may use it.
func (m Mapping) Limited() bool { return len(m.Clients) > 0 }

// Takes finds the forward, and its relay, that gets a client's packet to a public address on a VPS, among the relays
// that are up. It returns nil if the packet stays on the VPS. port is 0 for a protocol without ports.
func Takes(relays []*Relay, public, client netip.Addr, proto uint8, port uint16) (*Relay, *Forward) {
	of := func(s PortSet) bool { return s.Contains(proto, port) }
	var relay *Relay
	var all *Forward
	for _, r := range relays {
		if !r.Has(public) {
			continue
		}
		if slices.ContainsFunc(r.Keep, of) {
			return nil, nil
		}
		for _, f := range r.Forwards {
			if f.All && f.serves(client) {
				relay, all = r, f
			}
		}
	}
	for _, r := range relays {
		for _, f := range r.Forwards {
			switch {
			case !r.Has(public) || !slices.ContainsFunc(f.Ports, of):
			case f.serves(client):
				return r, f
			default: // nor does a forward of all get what one for other clients is there for
				return nil, nil
			}
		}
	}
	return relay, all
}

// serves reports whether a client may use the forward.
func (f *Forward) serves(client netip.Addr) bool {
	return len(f.Clients) == 0 || slices.ContainsFunc(f.Clients, func(p netip.Prefix) bool {
		return p.Contains(client)
	})
}

// HasPorts reports whether the set consists of ports; otherwise it is a whole protocol.
func (p PortSet) HasPorts() bool { return p.First != 0 }

// Contains reports whether the set includes that protocol and port; a protocol without ports has port 0.
func (p PortSet) Contains(proto uint8, port uint16) bool {
	return p.Proto == proto && (!p.HasPorts() || p.First <= port && port <= p.Last)
}
