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
}

type forwardKey struct {
	mark  uint32     // on a router; 0 on a VPS
	addr  netip.Addr // the host on a router, the public address on a VPS
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
		wide: map[forwardKey][]wideForward{}, all: map[forwardKey]*config.Forward{}}
	for _, r := range relays {
		if !r.Enabled {
			continue
		}
		for _, f := range r.Forwards {
			key := forwardKey{addr: r.IPAddr}
			if r.Role == config.Router {
				key = forwardKey{addr: f.DestIP, mark: r.Mark()}
				w.marks[key.mark] = true
			}
			for _, m := range f.Mappings() {
				if m.All {
					w.all[key] = f
					continue
				}
				set := m.Public
				if r.Role == config.Router {
					set = m.Private()
				}
				key.proto, key.port = set.Proto, 0
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
	}
	return w
}

// Of returns the forward of a connection. A router recognises them by their mark.
func (w *Forwarded) Of(f Flow) *config.Forward {
	key := forwardKey{addr: f.Dst}
	if mark := f.Mark & config.MarkMask; w.marks[mark] {
		key.mark = mark
	} else if f.Dst == f.AnswerSrc { // a connection of the VPS itself
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
