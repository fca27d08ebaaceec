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
	MTU    int                   // of the tunnel in bytes
	Remote netip.AddrPort        // with WireGuard: where the other end is; not valid if that is not known
}

// encrypted reports whether the tunnel's packets on the wire do not show what is inside.
func (w *Way) encrypted() bool { return w.Relay.Transport == config.WireGuard }

// Ends says what the ends of the tunnel are.
func (w *Way) Ends() string {
	name := "relay " + w.Relay.Name + " (" + string(w.Relay.Role) + ")"
	local, peer := w.Tunnel.Endpoints()
	switch {
	case !w.encrypted():
		return name + ", " + local.String() + " is here, " + peer.String() + " is the other end"
	case !w.Remote.IsValid():
		return name + ", WireGuard; the other end has not begun"
	}
	return name + ", WireGuard; " + w.Remote.String() + " is the other end"
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
	seen   map[Step]bool

	came  map[*Way][]Frame // encrypted packets that came in, and did not come out of a tunnel yet
	going []int            // sizes of the encrypted packets that the connection's packets are to leave in
}

// New follows the next connection of a client, or of anybody where client is not valid.
func New(ways []*Way, client netip.Addr) *Follower {
	return &Follower{ways: ways, client: client, seen: map[Step]bool{}, came: map[*Way][]Frame{}}
}

// Connection is what was found, or nil.
func (f *Follower) Connection() *Connection { return f.found }

// Frame takes the next packet on any device, and returns what it shows of the connection: nothing, a step, or also an
// earlier one, which is known only now.
func (f *Follower) Frame(frame Frame) []Event {
	if sent, ok := f.encrypted(frame); ok {
		return sent
	}
	if f.found == nil && !f.begins(frame) {
		return nil
	}
	unhidden := f.found.unhidden(frame)
	if !f.found.has(&unhidden.Packet) {
		return nil
	}
	w := f.found.Way
	var events []Event
	if w.encrypted() && frame.Device == w.Relay.Device {
		size := transport.Padded(frame.Len, w.MTU)
		if frame.Out {
			f.going = append(f.going, size)
		} else if before, ok := f.take(w, size); ok {
			if f.start == frame.At {
				f.start = before.At
			}
			events = append(events, f.event(before, FromPeerUDP))
		}
	}
	return append(events, f.event(frame, f.found.step(unhidden)))
}

func (f *Follower) event(frame Frame, step Step) Event {
	f.seen[step] = true
	return Event{After: frame.At.Sub(f.start), Step: step, Frame: frame}
}

// maxWaiting limits how many encrypted packets may be on their way through this machine.
const maxWaiting = 64

// encrypted tells whether a packet is one of WireGuard's on the wire. Its size and the time tell which inner packet it
// has. Those without an inner packet do not count.
func (f *Follower) encrypted(frame Frame) (events []Event, ok bool) {
	for _, w := range f.ways {
		switch {
		case !w.encrypted() || frame.Device == w.Relay.Device:
		case frame.Out && w.Tunnel.Sends(&frame.Packet):
			if i := slices.Index(f.going, payload(&frame.Packet)); i >= 0 && f.found.Way == w &&
				frame.Type == transport.Data {
				f.going = f.going[i+1:]
				events = []Event{f.event(frame, ToPeerUDP)}
			}
			return events, true
		case !frame.Out && w.Tunnel.Receives(&frame.Packet):
			if frame.Type == transport.Data && payload(&frame.Packet) > transport.Padded(0, w.MTU) {
				f.came[w] = append(f.came[w][max(len(f.came[w])-maxWaiting+1, 0):], frame)
			}
			return nil, true
		}
	}
	return nil, false
}

// take returns the first encrypted packet of a size, without those before it: they come out of the tunnel in order.
func (f *Follower) take(w *Way, size int) (frame Frame, ok bool) {
	i := slices.IndexFunc(f.came[w], func(c Frame) bool { return payload(&c.Packet) == size })
	if i < 0 {
		return frame, false
	}
	frame = f.came[w][i]
	f.came[w] = f.came[w][i+1:]
	return frame, true
}

// payload is the size in bytes of a UDP packet's payload.
func payload(p *packet.Packet) int {
	if p.Src.Is6() {
		return p.Len - 48
	}
	return p.Len - 28
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
		if r.Role == config.VPS && !frame.Out && r.Has(frame.Dst) && !w.kept(&frame.Packet) {
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

// unhidden returns a packet with the client's address, where the host sees this router's instead (option masq).
func (c *Connection) unhidden(frame Frame) Frame {
	host := c.First.Dst
	if frame.Outer != nil || frame.Device != c.Way.LAN[host] || !slices.ContainsFunc(c.Way.Relay.Forwards,
		func(f *config.Forward) bool { return f.DestIP == host && f.Masq }) {
		return frame
	}
	switch {
	case frame.Out && frame.Dst == host:
		frame.Src = c.Client
	case !frame.Out && frame.Src == host:
		frame.Dst = c.Client
	}
	return frame
}

// has tells whether a packet belongs to the connection: also a later fragment, or an error about one of its packets.
func (c *Connection) has(p *packet.Packet) bool {
	if c.Way.encrypted() && c.Way.Tunnel.Refused(p) {
		return true
	}
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
