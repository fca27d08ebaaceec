package doctor

import (
	"net/netip"
	"slices"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/packet"
)

// lineTime covers one repetition of a TCP client's first packet, maxLines limits how many forwards are tried.
const (
	lineTime = 3 * time.Second
	maxLines = 4
)

// blocked are TCP ports to which many homes cannot connect: their providers stop spam and worms.
var blocked = []uint16{25, 135, 139, 445}

// line is the path of a packet that this router sends to the public address over its own IPv4 line.
type line struct {
	own      *Sighting // it left
	outer    *Sighting // the VPS sent it here, to whatever host
	arrived  *Sighting // it came out of the tunnel
	turn     *Sighting // it came out of another one, of a VPS that has the public address now
	answered *Sighting // the public address answered
}

func (p *patient) dial(w *walk) (l line) {
	begins := func(s Sighting) bool {
		return s.Proto == w.proto && (s.Proto != packet.TCP || s.Flags&(packet.SYN|packet.ACK) == packet.SYN) &&
			(s.Proto != packet.ICMP || s.Type == packet.EchoRequest)
	}
	step := func(s Sighting) **Sighting {
		switch {
		case begins(s) && !s.Out && p.carrier().Receives(&s.Packet) && l.own != nil && s.ID == l.own.ID:
			return &l.outer
		case s.Outer != nil:
		case begins(s) && s.Out && s.Dst == p.IPAddr && s.DstPort == w.public:
			return &l.own
		case begins(s) && !s.Out && s.Device == p.Device && s.Dst == w.forward.DestIP && s.DstPort == w.port:
			return &l.arrived
		case begins(s) && !s.Out && p.takesTurns(s.Device) && s.Dst == w.forward.DestIP && s.DstPort == w.port:
			return &l.turn
		case begins(s) && !s.Out && s.Device == p.Device && p.Transport == config.WireGuard && l.own != nil &&
			s.ID == l.own.ID:
			return &l.outer
		case !s.Out && s.Device != p.Device && s.Proto == w.proto && s.Src == p.IPAddr && s.SrcPort == w.public &&
			!s.IsError():
			return &l.answered
		}
		return nil
	}
	t := Trial{Dials: []Dial{{w.proto, p.IPAddr, w.public}}, Wait: lineTime}
	t.Match = func(s Sighting) bool { return step(s) != nil }
	t.Done = func(s Sighting) bool {
		*step(s) = &s
		return (l.arrived != nil || l.turn != nil) && (l.answered != nil || !answers(w.proto))
	}
	p.prober.Try(t)
	return l
}

// takesTurns reports whether a device is the tunnel of another of this router's relays with the same public address.
func (p *patient) takesTurns(device string) bool {
	return slices.ContainsFunc(p.config.Relays, func(r *config.Relay) bool {
		return r.Device == device && r != p.Relay && r.Enabled && r.Role == p.Role && r.IPAddr == p.IPAddr
	})
}

// lines are what can be tried over this router's own line.
func (p *patient) lines() []*walk {
	var walks []*walk
	for _, a := range p.attempts() {
		w := a.best()
		if w != nil && len(a.forward.Clients) == 0 && len(walks) < maxLines &&
			slices.Contains([]uint8{packet.TCP, packet.UDP, packet.ICMP}, w.proto) {
			walks = append(walks, w)
		}
	}
	return walks
}

// internet sends to the public address like a client, over the router's own IPv4 line. A VPS can only check whether
// clients get through.
func (p *patient) internet() Finding {
	if p.Role == config.VPS {
		n := p.prober.Clients(p.Relay)
		switch {
		case n > 0:
			return ok("connections of clients that are open: %d", n)
		case p.path.Unheard != nil:
			return failed(message.New("nothing can arrive: %v", p.path.Unheard),
				"write the address that packets of clients carry on this machine into option nicaddr, then run "+
					"`ds4relay up`")
		}
		return skipped("no client's connection is open now; ds4relay doctor on the router tries it from outside, and " +
			"ds4relay trace here shows whether a client's packets arrive")
	}
	if !p.sys().IPv4Default {
		return skipped("this router has no other IPv4 line to try it over")
	}
	var good []*message.Text
	worst := skipped("no forward of TCP, UDP or ICMP is open to everybody")
	for _, w := range p.lines() {
		f := p.overLine(w)
		switch {
		case f.State == Failed, f.State == Skipped: // the same would be said of the others
			return f
		case f.State == OK:
			good = append(good, f.Codes.Evidence)
		default:
			worst = f
		}
	}
	if len(good) == 0 || worst.State == Warning {
		return worst
	}
	return NewFinding(OK, message.Join("; ", good...), nil)
}

// address writes an address, with its port if it has one.
func address(addr netip.Addr, port uint16) string {
	if port == 0 {
		return addr.String()
	}
	return netip.AddrPortFrom(addr, port).String()
}

func (p *patient) overLine(w *walk) Finding {
	target := address(p.IPAddr, w.public)
	l := p.dial(w)
	if l.arrived == nil && l.answered == nil && w.proto != packet.TCP { // one datagram may be lost
		l = p.dial(w)
	}
	switch {
	case l.own == nil || l.own.Device == p.Device:
		return skipped("what this router sends to %s does not take its own line", target)
	case l.turn != nil:
		return skipped("what this router sends to %s comes in by %s: another VPS has the address now", target,
			l.turn.Device)
	case l.arrived != nil && l.answered != nil:
		return ok("%s answers over this router's own line", target)
	case l.arrived != nil && !answers(w.proto):
		return ok("what this router sends to %s over %s comes in by %s", target, l.own.Device, p.Device)
	case l.arrived != nil && l.arrived.Src == l.own.Src:
		return skipped("what this router sends to %s over %s comes in by %s; an answer to its own address %s cannot",
			target, l.own.Device, p.Device, l.own.Src)
	case l.arrived != nil:
		return failed(message.New("packets to %s come in by %s, and no answer gets back to a client on the internet",
			target, p.Device), "run `ds4relay doctor` on the VPS: it needs an IPv4 default route, and its provider's "+
			"firewall has to let answers out")
	case l.outer != nil && (l.outer.Dst != w.forward.DestIP || l.outer.DstPort != w.port):
		return failed(message.New("the VPS sends packets to %s by the tunnel to %s, not to %s", target,
			address(l.outer.Dst, l.outer.DstPort), address(w.forward.DestIP, w.port)),
			"give forward %s the same values at both ends (option src_dport, dest_ip and dest_port), then run "+
				"`ds4relay up` there", w.forward.Section)
	case l.answered != nil:
		return failed(message.New("%s answers, but nothing comes in by %s: the VPS answers itself", target, p.Device),
			"on the VPS forward %s has to be in the file, and option keep must not name it: run `ds4relay up` and "+
				"`ds4relay doctor` there", w.forward.Section)
	case w.proto == packet.TCP && slices.Contains(blocked, w.public):
		return warning(message.New("%s does not answer over this router's own line", target),
			"try it from elsewhere: providers of homes block port %d outwards; else open it in the firewall of the "+
				"VPS's provider", w.public)
	}
	return failed(message.New("%s does not answer from the internet (over this router's own line)", target),
		"open it in the firewall of the VPS's provider (security group, control panel), and run `ds4relay doctor` on "+
			"the VPS; keep there (option keep) must not name %s", w.forward.Section)
}
