package doctor

import (
	"net/netip"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/packet"
)

// Knock is a packet for a relay's tunnel. The machine at the other end answers it with ICMP time exceeded through the
// tunnel, whatever hosts do. If the host is the router itself, it answers like any host.
type Knock struct {
	Packet   []byte
	device   string
	from, to netip.Addr
}

// NewKnock makes one for a relay and one of its forwards. id is the port, or the ID of an echo request; size is in
// bytes, 0 for the smallest.
func NewKnock(r *config.Relay, f *config.Forward, id uint16, size int) *Knock {
	p := &patient{Relay: r}
	k := &Knock{device: r.Device, from: f.DestIP, to: Nowhere}
	if r.Role == config.VPS {
		proto, _, port := p.protoOf(f)
		k.from, k.to = clientOf(f), f.DestIP
		k.Packet = p.testPacket(proto, k.from, k.to, port, id, 1, size)
		return k
	}
	k.Packet = packet.MakeEcho(k.from, k.to, 1, id, 1, max(size-28, 8))
	return k
}

// Entrance returns the port of a forward of TCP that is open to everybody, or 0 for one of ICMP.
func Entrance(r *config.Relay) (port uint16, ok bool) {
	p := &patient{Relay: r}
	for _, f := range r.Forwards {
		proto, public, _ := p.protoOf(f)
		if len(f.Clients) == 0 && (proto == packet.TCP || proto == packet.ICMP) {
			return public, true
		}
	}
	return 0, false
}

// replied reports whether the host itself has answered.
func (k *Knock) replied(s *Sighting) bool {
	return s.Device == k.device && !s.Out && s.Outer == nil && s.Src == k.to && s.Dst == k.from
}

// Answers reports whether a packet is the answer.
func (k *Knock) Answers(s *Sighting) bool {
	q := s.Quoted
	return k.replied(s) || s.Device == k.device && !s.Out && s.Proto == packet.ICMP && s.Type == packet.TimeExceeded &&
		q != nil && q.Src == k.from && q.Dst == k.to
}

// HangUp returns a packet that ends the half-open connection after an answer, or nil if there is none.
func (k *Knock) HangUp(s *Sighting) []byte {
	if !k.replied(s) || s.Flags&packet.SYN == 0 {
		return nil
	}
	return packet.MakeTCP(netip.AddrPortFrom(k.from, s.DstPort), netip.AddrPortFrom(k.to, s.SrcPort),
		packet.RST, 1, 2, 0)
}
