package reconcile

import (
	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/state"
)

// Path is the path of a relay's packets to the other end. All sizes are in bytes.
type Path struct {
	*state.Link
	Config *config.Relay
	Route  int // the MTU that the tunnel would have by the route
	Passes int // the largest packet that passes, once it is measured; 0: not known
	Note   state.PathNote
}

// Paths returns the paths of the relays that are up, if the configuration leaves their MTU open. There are none of a
// file that was changed, and not applied yet; an MTU that somebody has changed in the kernel is left alone.
func (m *End) Paths() ([]*Path, error) {
	if m.edited() {
		return nil, nil
	}
	o, err := m.Kernel.Observe(state.State{})
	if err != nil {
		return nil, err
	}
	var relays []*config.Relay
	var paths []*Path
	for i := range o.Links {
		link := &o.Links[i]
		if r := m.Config.Relay(link.Relay); r != nil && link.Up && r.MTU == 0 && len(r.Forwards) > 0 {
			relays, paths = append(relays, r), append(paths, &Path{Link: link, Config: r})
		}
	}
	if len(paths) == 0 {
		return nil, nil
	}
	facts, err := m.Kernel.Facts(relays)
	kept := paths[:0]
	for _, p := range paths {
		p.Route = state.RouteMTU(p.Config, facts)
		local, peer := p.Tunnel.Endpoints()
		if p.Config.Transport == config.WireGuard { // the home may be anywhere
			peer = state.PeerOf(p.Config, facts)
		}
		key := state.PathKey(p.Config, &facts, local, peer)
		p.Note = m.Kernel.PathNote(p.Relay)
		if p.MTU == p.Route || p.MTU == p.Note.Passes {
			kept = append(kept, p)
		}
		if p.Note.Path != key {
			p.Note = state.PathNote{Path: key}
		}
	}
	return kept, err
}

// NotePaths records what was measured, and returns the relays whose tunnels should have another MTU.
func (m *End) NotePaths(paths []*Path) (changed []string, err error) {
	for _, p := range paths {
		note := p.Note
		note.Passes = p.Passes
		switch {
		case p.Passes == 0:
			continue
		case p.Passes >= p.Route:
			note = state.PathNote{}
		}
		if note != p.Note {
			if err := m.Kernel.NotePath(p.Relay, note); err != nil {
				return changed, err
			}
		}
		if p.Passes != p.MTU {
			changed = append(changed, p.Relay)
		}
	}
	return changed, nil
}
