package reconcile

import (
	"slices"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/state"
)

// Moved returns the relays that could not be brought up before but could be now, those whose DNS name now has another
// address than their tunnel uses, and those whose own endpoint (auto) has another prefix. Tunnels of WireGuard from
// whose address nothing comes take the name's next one, which may be of the other version of IP. With missing, it adds
// those with a name, or with auto, that should be up, are not, and could be now, except those that a person has taken
// down. If no relay has a name, nothing is looked up. There are none of a file that was changed, and not applied yet.
func (m *End) Moved(missing bool) ([]string, error) {
	o, err := m.Kernel.Observe(state.State{})
	if err != nil {
		return nil, err
	}
	failed, applied := m.Kernel.FailedRelays(), m.Kernel.Applied()
	if m.edited() {
		return nil, nil
	}
	downByHand := func(r *config.Relay) bool {
		return applied.File != 0 && !slices.Contains(applied.Relays, r.Name)
	}
	var moved []string
	for _, r := range m.Config.Relays {
		i := slices.IndexFunc(o.Links, func(l state.Link) bool { return l.Relay == r.Name })
		again := i < 0 && slices.Contains(failed, r.Name)
		if !again && (r.PeerName == "" && !r.Auto || i < 0 && (!missing || !r.Enabled || downByHand(r))) {
			continue
		}
		facts, err := m.Kernel.Facts([]*config.Relay{r})
		if err != nil {
			return nil, err
		}
		if facts.Failed[r.Name] != nil || facts.Waiting[r.Name] != nil {
			continue
		}
		peer := state.PeerOf(r, facts)
		if i >= 0 && r.Transport == config.WireGuard && o.Links[i].Remote() == peer && m.silent(r.Name) {
			if peer, err = m.Kernel.NextPeer(r, peer); err != nil {
				return nil, err
			}
		}
		if i < 0 || o.Links[i].Remote() != peer || r.Auto && o.Links[i].Local() != facts.Local[r.Name] {
			moved = append(moved, r.Name)
		}
	}
	return moved, nil
}

// silent reports whether the last run of each minute found the other end silent.
func (m *End) silent(relay string) bool {
	watched := m.Kernel.Watched()
	return watched.Silent(relay)
}
