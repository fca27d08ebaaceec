package reconcile

import "github.com/ds4relay/ds4relay/internal/config"

// answered reports whether a host of a relay has answered a client whose connection is open.
func answered(r *config.Relay, flows map[*config.Forward]*Flows) bool {
	for _, f := range r.Forwards {
		if open := flows[f]; open != nil && open.Answered > 0 {
			return true
		}
	}
	return false
}

// NoteServed notes the relays of a router whose hosts have answered a client, each once. A record that cannot be
// written is tried again by the next run; forms only show their first steps for longer without it.
func (m *End) NoteServed() {
	var flows map[*config.Forward]*Flows
	read := false
	for _, r := range m.Config.Relays {
		if !r.Enabled || r.Role != config.Router {
			continue
		}
		if address, _ := m.Kernel.Served(r.Name); address == r.IPAddr.String() {
			continue
		}
		if !read {
			flows, read = openFlows(m.Config.Relays), true
		}
		if answered(r, flows) {
			_ = m.Kernel.NoteServed(r.Name, r.IPAddr.String())
		}
	}
}

// served reports whether a host of a router's relay has answered a client at some time; nil if that is not known.
func (m *End) served(r *config.Relay, flows map[*config.Forward]*Flows) *bool {
	if r.Role != config.Router {
		return nil
	}
	address, err := m.Kernel.Served(r.Name)
	served := address == r.IPAddr.String() || answered(r, flows)
	if err != nil && !served {
		return nil
	}
	return &served
}
