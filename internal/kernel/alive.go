package kernel

import (
	"net/netip"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/alive"
	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/state"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// Records of what should be in the kernel, and of what the run of each minute has seen.
const (
	appliedRecord = "applied"
	watchRecord   = "watch"
	// RivalRecord is about another program that takes away again and again what the relays need.
	RivalRecord = "rival"
)

// Applied is what the last `up` or `down` has left.
type Applied struct {
	File   uint64   // config.Config.Sum of the file; 0 means that nothing is known
	Relays []string // that are to be up
}

// Applied returns the record, or zero. It is a list of texts, as others are: each further type takes a kilobyte.
func (k *Kernel) Applied() (a Applied) {
	list := read(k, appliedRecord, func(list []string) bool {
		return len(list) > 1 && sumText(parseSum(list[0])) == list[0]
	})
	if len(list) > 0 {
		a.File, a.Relays = parseSum(list[0]), list[1:]
	}
	return a
}

func sumText(sum uint64) string { return strconv.FormatUint(sum, 16) }

func parseSum(text string) uint64 {
	sum, _ := strconv.ParseUint(text, 16, 64)
	return sum
}

// NoteApplied writes the record. Without relays it removes it.
func (k *Kernel) NoteApplied(a Applied) error {
	if len(a.Relays) == 0 {
		return k.remove(appliedRecord)
	}
	if former := k.Applied(); former.File == a.File && slices.Equal(former.Relays, a.Relays) {
		return nil
	}
	return k.write(appliedRecord, append([]string{sumText(a.File)}, a.Relays...))
}

// Watched returns the record of the last run of each minute, or zero.
func (k *Kernel) Watched() alive.Watch {
	return read(k, watchRecord, func(alive.Watch) bool { return true })
}

// SilentRelays returns the router's relays whose VPS is silent, as far as the last run of each minute knows, where
// another relay may be in their place.
func SilentRelays(relays []*config.Relay, watched *alive.Watch) map[string]bool {
	silent := map[string]bool{}
	for _, r := range relays {
		if config.Replaceable(relays, r) && watched.Silent(r.Name) {
			silent[r.Name] = true
		}
	}
	return silent
}

// NoteWatched writes the record, which everybody may read. Clear removes it.
func (k *Kernel) NoteWatched(w alive.Watch) error { return k.write(watchRecord, w) }

// Uptime returns the seconds since boot, including the time that the machine slept.
func Uptime() int64 {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) != nil {
		return 0
	}
	return int64(t.Sec) + 1 // 0 means never
}

// TunnelOf returns what tells whether something has come out of a tunnel. A tunnel of WireGuard is the same one while
// the other end has the same key, wherever that is. Its counters include handshakes (update_rx_stats in
// drivers/net/wireguard/receive.c).
func TunnelOf(link *state.Link, c *Counters) *alive.Tunnel {
	t := &alive.Tunnel{Index: c.Index, Peer: link.Remote().String(), Packets: c.RxPackets}
	w, ok := link.Tunnel.(transport.WireGuard)
	if !ok {
		return t
	}
	t.Keyed, t.Peer = true, ""
	if w.Peer.Valid() {
		t.Peer = w.Peer.String()
	}
	if device, err := ReadWireGuard(link.Name); err == nil && len(device.Peers) > 0 {
		if endpoint := device.Peers[0].Endpoint; endpoint.IsValid() {
			t.Endpoint = endpoint.String()
		}
		if age, ok := device.Peers[0].Age(); ok {
			t.Shaken = max(Uptime()-age, 1)
		}
	}
	return t
}

// located adds to a new peer of WireGuard where it was last, if the configuration leaves that open: a tunnel that was
// removed and comes back works at once, not only when the other end notices that its keys are worth nothing.
func (k *Kernel) located(s state.SetPeer) state.SetPeer {
	if s.To.Remote.IsValid() || s.From.Peer == s.To.Peer {
		return s
	}
	found := 0 // a home may use a key for several relays
	var last netip.AddrPort
	for _, record := range k.Watched().Relays {
		if record == nil || record.Peer != s.To.Peer.String() {
			continue
		}
		if endpoint, err := netip.ParseAddrPort(record.Endpoint); err == nil {
			last = endpoint
			found++
		}
	}
	if found == 1 {
		s.To.Remote = last
	}
	return s
}

// Announced reports whether a router's tunnel is the one whose VPS has announced that it has the public address, of
// several.
func Announced(device string) bool {
	hosts, err := elements(families["ip"], state.TurnSet(device))
	return err == nil && len(hosts) > 0
}
