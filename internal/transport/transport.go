// Package transport says what carries a relay's packets between its ends: the parameters of its link, what it adds to a
// packet, and what firewalls have to let through for it. It decides, and does no I/O; package kernel has a driver for
// each kind.
package transport

import (
	"net/netip"

	"github.com/ds4relay/ds4relay/internal/packet"
)

// Tunnel are the parameters of a link of one kind, a comparable value: two links with equal tunnels are alike.
type Tunnel interface {
	// Kind is the type of the device, as ip-link(8) calls it.
	Kind() string
	// Arguments are the words for `ip link add` and `ip link change` behind the name of the device (ip-link(8)).
	Arguments() string
	// Endpoints are the addresses of the outer packets here and at the other end.
	Endpoints() (local, remote netip.Addr)
	// Overhead is what the tunnel adds to a packet, in bytes.
	Overhead() int
	// Opening is what has to come in from the other end.
	Opening() Opening
	// Encapsulate makes of an IPv4 packet the one that arrives here when the other end sends it through the tunnel.
	Encapsulate(inner []byte) []byte
	// Sends and Receives tell whether a packet is the tunnel's on the wire, on its way to the other end or from it.
	Sends(*packet.Packet) bool
	Receives(*packet.Packet) bool
	// Refused tells whether a packet is an error about one that the tunnel has sent.
	Refused(*packet.Packet) bool
}

// DefaultPathMTU is assumed where there is no route to the other end yet (Ethernet's), in bytes.
const DefaultPathMTU = 1500
