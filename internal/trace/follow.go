package trace

import (
	"net/netip"
	"slices"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/packet"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// Way is how the packets of a relay go on this machine.
type Way struct {
	Relay  *config.Relay
	Access string                // VPS: the device that clients come by
	Tunnel transport.Tunnel      // with the endpoints that it has now
	LAN    map[netip.Addr]string // router: host → device
}

// Frame is a packet on a device.
type Frame struct {
	At     time.Time
	Device string
	Out    bool // it leaves
	packet.Packet
}

// Connection is what is followed: one client (or what a host at home talks to) by its address and port, and the first
// packet.
type Connection struct {
	Way    *Way
	Client netip.Addr
	Proto  uint8
	Port   uint16 // the client's; the number of an echo; 0 where the protocol has none
	First  packet.Packet
}

// Follower finds a connection, and then its packets.
type Follower struct {
	ways   []*Way
	client netip.Addr // not valid: anybody
	found  *Connection
	start  time.Time
	last   Step
	seen   map[Step]bool
}

// New follows the next connection of a client, or of anybody where client is not valid.
func New(ways []*Way, client netip.Addr) *Follower {
	return &Follower{ways: ways, client: client, seen: map[Step]bool{}}
}

// Connection is what was found, or nil.
func (f *Follower) Connection() *Connection { return f.found }

// Frame takes the next packet on any device; ok is false for what is not of the connection.
func (f *Follower) Frame(frame Frame) (event Event, ok bool) {
	if f.found == nil && !f.begins(frame) {
		return Event{}, false
	}
	if !f.found.has(&frame.Packet) {
		return Event{}, false
	}
	step := f.found.step(frame)
	f.last = step
	f.seen[step] = true
	return Event{After: frame.At.Sub(f.start), Step: step, Frame: frame}, true
}

// begins tells whether a packet is the first one of a connection to follow.
func (f *Follower) begins(frame Frame) bool {
	for _, w := range f.ways {
		client, ok := w.client(frame)
		if !ok || f.client.IsValid() && f.client != client || frame.IsError() {
			continue
		}
		f.found = &Connection{Way: w, Client: client, Proto: frame.Proto, First: frame.Packet}
		f.found.Port = f.found.port(&frame.Packet)
		f.start = frame.At
		return true
	}
	return false
}

// client is who a packet comes from or goes to beyond the relay, where it is one of the relay's.
func (w *Way) client(frame Frame) (netip.Addr, bool) {
	r := w.Relay
	hosts := func(a netip.Addr) bool {
		return slices.ContainsFunc(r.Forwards, func(f *config.Forward) bool { return f.DestIP == a })
	}
	switch {
	case frame.Outer != nil && !w.Tunnel.Sends(&frame.Packet) && !w.Tunnel.Receives(&frame.Packet):
	case frame.Outer == nil && frame.Device != r.Device && frame.Device != w.Access && frame.Device != w.LAN[frame.Src]:
	case frame.Outer == nil && frame.Device == w.Access:
		if r.Role == config.VPS && !frame.Out && frame.Dst == r.IPAddr && !w.kept(&frame.Packet) {
			return frame.Src, true
		}
	case hosts(frame.Dst):
		return frame.Src, true
	case hosts(frame.Src) && (frame.Outer != nil || frame.Device == r.Device):
		return frame.Dst, true
	}
	return netip.Addr{}, false
}

// kept tells whether a packet is for the VPS itself.
func (w *Way) kept(p *packet.Packet) bool {
	return slices.ContainsFunc(w.Relay.Keep, func(s config.PortSet) bool { return s.Contains(p.Proto, p.DstPort) })
}

// port is the client's port of a packet, or what stands for it.
func (c *Connection) port(p *packet.Packet) uint16 {
	switch {
	case p.IsEcho():
		return p.EchoID
	case p.Src == c.Client:
		return p.SrcPort
	}
	return p.DstPort
}

// has tells whether a packet belongs to the connection: also a later fragment, or an error about one of its packets.
func (c *Connection) has(p *packet.Packet) bool {
	if p.Src.Is6() {
		return p.IsError() && p.Quoted != nil && p.Quoted.Src.Is4() && c.has(p.Quoted)
	}
	if p.IsError() && p.Quoted != nil {
		return c.has(p.Quoted)
	}
	if p.Src != c.Client && p.Dst != c.Client || p.Proto != c.Proto {
		return false
	}
	return p.Offset != 0 || c.port(p) == c.Port
}
