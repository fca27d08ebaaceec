package state

import (
	"net/netip"
	"slices"

	"github.com/ds4relay/ds4relay/internal/config"
)

// ownWays says by which relays of a router the hosts' own connections leave.
type ownWays struct {
	ways    map[netip.Addr][]*config.Relay // hosts with egress all → relays, the preferred one first
	several []*config.Relay                // that are among several ways of a host
	out     map[*config.Relay]bool         // whose VPS is silent, while that of another one in its place is not
}

func newOwnWays(relays []*config.Relay, facts Facts) ownWays {
	w := ownWays{ways: config.OwnWays(relays), out: map[*config.Relay]bool{}}
	replaced := func(r *config.Relay, by []*config.Relay) {
		if facts.Silent[r.Name] && slices.ContainsFunc(by, func(other *config.Relay) bool {
			return !facts.Silent[other.Name]
		}) {
			w.out[r] = true
		}
	}
	for _, r := range relays {
		if r.Role != config.Router {
			continue
		}
		var turns []*config.Relay
		for _, other := range relays {
			if other.Role == config.Router && other.IPAddr == r.IPAddr {
				turns = append(turns, other)
			}
		}
		replaced(r, turns)
		for _, ways := range w.ways {
			if len(ways) > 1 && slices.Contains(ways, r) {
				replaced(r, ways)
				if !slices.Contains(w.several, r) {
					w.several = append(w.several, r)
				}
			}
		}
	}
	return w
}

// relay is the one by which the new connections of a host with egress all leave now.
func (w *ownWays) relay(host netip.Addr) *config.Relay {
	ways := w.ways[host]
	if i := slices.IndexFunc(ways, func(r *config.Relay) bool { return !w.out[r] }); i >= 0 {
		return ways[i]
	}
	return ways[0]
}

// Leaving returns the relays of a router that are among several by which a host may open connections, and whether
// they leave by them now.
func Leaving(relays []*config.Relay, facts Facts) map[string]bool {
	w := newOwnWays(relays, facts)
	leaving := map[string]bool{}
	for _, r := range w.several {
		leaving[r.Name] = false
	}
	for host, ways := range w.ways {
		if len(ways) > 1 {
			leaving[w.relay(host).Name] = true
		}
	}
	return leaving
}

// TurnSet is the set of the hosts for which a tunnel's VPS has announced itself, of several with one public address.
func TurnSet(device string) Set { return Set{Name: chainName(device) + "_here", Key: []Type{IPv4}} }
