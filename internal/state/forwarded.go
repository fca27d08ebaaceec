package state

import (
	"net/netip"

	"github.com/ds4relay/ds4relay/internal/config"
)

// Forwarded finds the forward that a connection uses, or nil.
type Forwarded struct {
	marks map[uint32]bool // of a router's tunnels
	ports map[forwardKey]*config.Forward
	wide  map[forwardKey][]wideForward // by key without port
	all   map[forwardKey]*config.Forward
	cards map[netip.Addr]bool // of VPSs whose cloud translates the public address
}

type forwardKey struct {
	mark  uint32     // on a router; 0 on a VPS
	addr  netip.Addr // the host on a router, on a VPS the public address or the network card's
	proto uint8
	port  uint16
}

type wideForward struct {
	ports   config.PortSet
	forward *config.Forward
}

// NewForwarded indexes the forwards of a machine's relays.
func NewForwarded(relays []*config.Relay) *Forwarded {
	w := &Forwarded{marks: map[uint32]bool{}, ports: map[forwardKey]*config.Forward{},
		wide: map[forwardKey][]wideForward{}, all: map[forwardKey]*config.Forward{}, cards: map[netip.Addr]bool{}}
	for _, r := range relays {
		if !r.Enabled {
			continue
		}
		if r.Translated() {
			w.cards[r.NICAddr] = true
		}
		for _, f := range r.Forwards {
			if r.Role == config.Router {
				w.marks[r.Mark()] = true
				w.add(forwardKey{addr: f.DestIP, mark: r.Mark()}, f, config.Mapping.Private)
				continue
			}
			for _, addr := range r.Addresses() {
				w.add(forwardKey{addr: addr}, f, func(m config.Mapping) config.PortSet { return m.Public })
			}
		}
	}
	return w
}

// add adds a forward's mappings at an address; side returns the ports that packets have there.
func (w *Forwarded) add(key forwardKey, f *config.Forward, side func(config.Mapping) config.PortSet) {
	for _, m := range f.Mappings() {
		key.proto, key.port = 0, 0
		if m.All {
			w.all[key] = f
			continue
		}
		set := side(m)
		key.proto = set.Proto
		if wide(set.First, set.Last) {
			w.wide[key] = append(w.wide[key], wideForward{set, f})
			continue
		}
		for port := int(set.First); port <= int(set.Last); port++ {
			key.port = uint16(port)
			w.ports[key] = f
		}
	}
}

// Of returns the forward of a connection. A router recognises them by their mark.
func (w *Forwarded) Of(f Flow) *config.Forward {
	key := forwardKey{addr: f.Dst}
	if mark := f.Mark & config.MarkMask; w.marks[mark] {
		key.mark = mark
	} else if f.Dst == f.AnswerSrc || w.cards[f.AnswerSrc] { // a connection of the VPS itself
		return nil
	}
	all := w.all[key]
	key.proto = f.Proto
	for _, wide := range w.wide[key] {
		if wide.ports.Contains(f.Proto, f.DstPort) {
			return wide.forward
		}
	}
	if config.HasPorts(f.Proto) {
		key.port = f.DstPort
	}
	if forward := w.ports[key]; forward != nil {
		return forward
	}
	return all
}
