package state

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
)

// LeastMTU is the least MTU in bytes of a tunnel (RFC 791: every host takes packets of 576 bytes).
const LeastMTU = 576

// PathNote is what a probe has found out about the path to the other end. The zero value means that the path carries
// what its route says.
type PathNote struct {
	Path   string // see PathKey
	Passes int    // the largest packet of the tunnel that passes, in bytes
	Tried  int64  // when a larger one was last tried, in seconds since 1970
}

// PathKey says what a relay's path is made of: endpoints, device and MTU of the route. What is known about a path holds
// as long as all of this stays.
func PathKey(r *config.Relay, facts *Facts, local, peer netip.Addr) string {
	from := local.String()
	if r.Transport == config.WireGuard {
		from = string(config.WireGuard)
	}
	to := "any" // where a VPS learns the home's address
	if peer.IsValid() {
		to = peer.String()
	}
	return from + "-" + to + "-" + facts.Uplink[r.Name] + "-" + strconv.Itoa(RouteMTU(r, *facts))
}

// String writes the note for ParsePathNote.
func (n PathNote) String() string { return fmt.Sprintf("%s %d %d", n.Path, n.Passes, n.Tried) }

// ParsePathNote reads a note; ok is false for what is none.
func ParsePathNote(text string) (n PathNote, ok bool) {
	words := strings.Fields(text)
	if len(words) != 3 {
		return n, false
	}
	passes, err := strconv.Atoi(words[1])
	tried, err2 := strconv.ParseInt(words[2], 10, 64)
	return PathNote{words[0], passes, tried}, err == nil && err2 == nil && passes >= LeastMTU
}

// Due reports whether larger packets should be tried again, which is once an hour. The clock may have been set.
func (n PathNote) Due(now time.Time) bool {
	age := now.Unix() - n.Tried
	return age < 0 || age >= 3600
}
