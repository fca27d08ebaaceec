package config

import (
	"cmp"
	"net/netip"
	"slices"
)

// OwnWays returns a router's hosts with egress all, each with the relays by which its own connections may leave: the
// preferred one first, then its backup, and so on.
func OwnWays(relays []*Relay) map[netip.Addr][]*Relay {
	ways := map[netip.Addr][]*Relay{}
	for _, relay := range relays {
		for _, f := range relay.Forwards {
			if relay.Role == Router && f.Egress == All && !slices.Contains(ways[f.DestIP], relay) {
				ways[f.DestIP] = append(ways[f.DestIP], relay)
			}
		}
	}
	for _, list := range ways {
		for i := range list {
			for j := range list[i:] {
				if !slices.ContainsFunc(list[i:], func(r *Relay) bool { return r.Backup == list[i+j].Name }) {
					first := list[i+j]
					copy(list[i+1:], list[i:i+j])
					list[i] = first
					break
				}
			}
		}
	}
	return ways
}

// Replaceable reports whether another relay of the router may be in a relay's place: its backup, one that it is the
// backup of, or one with the same public address.
func Replaceable(relays []*Relay, r *Relay) bool {
	return r.Role == Router && slices.ContainsFunc(relays, func(other *Relay) bool {
		return other != r && other.Role == Router && (other.IPAddr == r.IPAddr || other.Name == r.Backup ||
			other.Backup == r.Name)
	})
}

// KillPlace returns the relay among a host's ways behind whose ip rules its kill switch has its rule: the last one.
func KillPlace(ways []*Relay) *Relay {
	return slices.MaxFunc(ways, func(a, b *Relay) int { return cmp.Compare(a.Priority, b.Priority) })
}

// backsUp reports whether a relay is the backup of another one, or the backup of its backup, and so on.
func (r *reader) backsUp(relay, other *Relay) bool {
	for range r.config.Relays {
		if other = r.relays[other.Backup]; other == nil || other == relay {
			return other != nil
		}
	}
	return false
}

// backups reports backups that could not take a host's own connections.
func (r *reader) backups(relays []*Relay) {
	ways := OwnWays(relays)
	for _, relay := range relays {
		if relay.Backup == "" {
			continue
		}
		backup := r.relays[relay.Backup]
		switch {
		case backup == nil:
			r.relayProblem(relay, "backup", relay.Backup, "there is no relay section of that name")
			continue
		case backup.Role != Router:
			r.relayProblem(relay, "backup", relay.Backup, "is a relay of a VPS; allowed is one of this router")
			continue
		case r.backsUp(relay, relay):
			r.relayProblem(relay, "backup", relay.Backup, "leads back to this relay; allowed is another one, whose own "+
				"backup is none of those before it")
			continue
		}
		for _, f := range relay.Forwards {
			if own := ways[f.DestIP]; backup.Enabled && slices.Contains(own, relay) && !slices.Contains(own, backup) {
				r.relayProblem(relay, "backup", relay.Backup, "%s has no forward with egress 'all' there, so that VPS "+
					"would not let it out; add egress 'all' to one of its forwards in relay %q", f.DestIP, backup.Name)
				break
			}
		}
	}
}
