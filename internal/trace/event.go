package trace

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/packet"
)

// Step is what a packet does on a device, in words.
type Step string

// The steps, in the order of the way there and back.
const (
	FromInternet Step = "from the internet"
	FromPeer     Step = "in IPv6, from the other end"
	FromPeerUDP  Step = "in UDP, from the other end"
	OutOfTunnel  Step = "out of the tunnel"
	Translated   Step = "into the tunnel, DNAT done"
	IntoTunnel   Step = "into the tunnel"
	ToHost       Step = "to the host"
	FromHost     Step = "from the host"
	ToPeer       Step = "in IPv6, to the other end"
	ToPeerUDP    Step = "in UDP, to the other end"
	ToInternet   Step = "to the internet"
	ByItself     Step = "answered by this machine itself"
	Astray       Step = "astray: not by the tunnel"
	Refused      Step = "an error about it"
)

// Event is one step of a packet.
type Event struct {
	After time.Duration // since the first packet
	Step  Step
	Frame
}

func (c *Connection) step(f Frame) Step {
	w, r := c.Way, c.Way.Relay
	fromClient := f.Src == c.Client
	switch {
	case f.Src.Is6(), w.encrypted() && w.Tunnel.Refused(&f.Packet):
		return Refused
	case f.Outer != nil && f.Out:
		return ToPeer
	case f.Outer != nil:
		return FromPeer
	case f.Device == r.Device && !f.Out:
		return OutOfTunnel
	case f.Device == r.Device && r.Role == config.VPS && fromClient && r.Has(c.First.Dst):
		return Translated
	case f.Device == r.Device:
		return IntoTunnel
	case r.Role == config.VPS && f.Device == w.Access && !f.Out:
		return FromInternet
	case r.Role == config.VPS && f.Device == w.Access && f.Out && !fromClient && f.TTL == 64:
		return ByItself
	case r.Role == config.VPS && f.Device == w.Access && f.Out && f.Dst == c.Client:
		return ToInternet
	case r.Role == config.Router && f.Device == w.LAN[f.Dst] && f.Out:
		return ToHost
	case r.Role == config.Router && f.Device == w.LAN[f.Src] && !f.Out:
		return FromHost
	}
	return Astray
}

// String is a line of columns: time, device, direction, packet, step.
func (l Event) String() string {
	direction, note := "in ", ""
	if l.Out {
		direction = "out"
	}
	if l.Step == FromPeerUDP || l.Step == ToPeerUDP {
		note = ", encrypted"
	}
	return fmt.Sprintf("%9.3f ms  %-11s %s  %-28s %s%s", float64(l.After)/float64(time.Millisecond), l.Device,
		direction, l.Step, Describe(&l.Packet), note)
}

// Describe writes a packet in words: the inner one of a tunnel's, with the length of the outer one.
func Describe(p *packet.Packet) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s > %s ", end(p.Src, p.SrcPort), end(p.Dst, p.DstPort))
	switch {
	case p.Offset != 0:
		fmt.Fprintf(&b, "%s, fragment at %d", config.ProtoName(p.Proto), p.Offset)
	case p.Proto == packet.TCP:
		b.WriteString("tcp" + flags(p.Flags))
		if p.MSS != 0 {
			fmt.Fprintf(&b, " mss %d", p.MSS)
		}
	case p.IsEcho() && (p.Type == packet.EchoRequest || p.Type == packet.EchoRequest6):
		fmt.Fprintf(&b, "icmp echo request %d", p.EchoSeq)
	case p.IsEcho():
		fmt.Fprintf(&b, "icmp echo reply %d", p.EchoSeq)
	case p.IsError():
		b.WriteString(p.Refusal().Error())
	default:
		b.WriteString(config.ProtoName(p.Proto))
	}
	fmt.Fprintf(&b, ", ttl %d, %d bytes", p.TTL, length(p))
	if p.Quoted != nil {
		fmt.Fprintf(&b, ", about: %s > %s", end(p.Quoted.Src, p.Quoted.SrcPort), end(p.Quoted.Dst, p.Quoted.DstPort))
	}
	return b.String()
}

func length(p *packet.Packet) int {
	if p.Outer != nil {
		return p.Outer.Len
	}
	return p.Len
}

func end(a netip.Addr, port uint16) string {
	if port == 0 {
		return a.String()
	}
	return netip.AddrPortFrom(a, port).String()
}

func flags(f uint8) string {
	var b strings.Builder
	for i, name := range []string{"FIN", "SYN", "RST", "PSH", "ACK"} {
		if f&(1<<i) != 0 {
			b.WriteString(" " + name)
		}
	}
	return b.String()
}

// steps are those that a connection from the internet has to come by, there and back.
func (w *Way) steps() []Step {
	from, to := FromPeer, ToPeer
	if w.encrypted() {
		from, to = FromPeerUDP, ToPeerUDP
	}
	if w.Relay.Role == config.VPS {
		return []Step{FromInternet, Translated, to, from, OutOfTunnel, ToInternet}
	}
	return []Step{from, OutOfTunnel, ToHost, FromHost, IntoTunnel, to}
}

// End says where the connection stopped, as far as this machine sees; "" where all steps were seen, both ways.
func (f *Follower) End() string {
	if f.found == nil {
		return ""
	}
	if f.seen[Astray] || f.seen[ByItself] {
		return "It does not go by the tunnel: another rule or route of this machine comes first. `ds4relay doctor` " +
			"looks for it."
	}
	steps := f.found.Way.steps()
	if !f.seen[steps[0]] { // a connection of the host's own
		return ""
	}
	for i, step := range steps {
		if f.seen[step] {
			continue
		}
		where := "on this machine"
		switch step {
		case FromPeer, FromPeerUDP:
			where = "on the way, or at the other end"
		case FromHost:
			where = "at the host, or on its way to it"
		}
		return fmt.Sprintf("It stops after \"%s\", %s: no packet was seen \"%s\". `ds4relay doctor` looks for "+
			"the reason.", steps[i-1], where, step)
	}
	return ""
}
