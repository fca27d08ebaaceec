// Package transport describes what carries a relay's packets between its ends: the parameters of the link, its
// overhead, and what firewalls must allow for it. It decides and does no I/O; package kernel has a driver for each
// kind.
package transport

import (
	"net/netip"

	"github.com/ds4relay/ds4relay/internal/packet"
)

// Tunnel holds the parameters of a link of one kind. It is comparable: links with equal Tunnels are set up alike.
type Tunnel interface {
	// Kind returns the device type for ip-link(8).
	Kind() string
	// Arguments returns what follows the device name in `ip link add` and `ip link change` (ip-link(8)).
	Arguments() string
	// Endpoints returns the addresses of outer packets at this end and at the other end.
	Endpoints() (local, remote netip.Addr)
	// Overhead returns how many bytes the tunnel adds to a packet.
	Overhead() int
	// Openings returns the traffic from the other end that must come in.
	Openings() []Opening
	// Sends and Receives report whether a packet on the wire belongs to the tunnel, on its way to or from the other
	// end.
	Sends(*packet.Packet) bool
	Receives(*packet.Packet) bool
	// Refused reports whether a packet is an error about a packet that the tunnel has sent.
	Refused(*packet.Packet) bool
}

// DefaultPathMTU, in bytes, is Ethernet's. The internet carries no larger packets, and it is used while there is no
// route to the other end.
const DefaultPathMTU = 1500
