package doctor

import (
	"encoding/binary"
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
	ttl      uint8
}

// NewKnock makes one for a relay and one of its forwards. id is the port, or the ID of an echo request; size is in
// bytes, 0 for the smallest.
func NewKnock(r *config.Relay, f *config.Forward, id uint16, size int) *Knock {
	p := lone(r)
	e, _ := p.entryOf(f)
	return p.knockBy(e, id, size)
}

func (p *patient) knockBy(e entry, id uint16, size int) *Knock {
	k := &Knock{device: p.Device, from: e.forward.DestIP, to: Nowhere, ttl: p.knockTTL()}
	if p.Role == config.VPS {
		k.from, k.to = p.clientInside(e.forward), e.forward.DestIP
		k.Packet = p.testPacket(e.proto, k.from, k.to, e.port, id, k.ttl, size)
		return k
	}
	k.Packet = packet.MakeEcho(k.from, k.to, 1, id, 1, max(size-28, 8))
	return k
}

// Announcement is a packet for a VPS's tunnel by which it tells the router that it has the public address now, of
// several VPSs that have it by turns: a test packet with the DSCP of network control (CS6, RFC 4594 §3.2).
func Announcement(r *config.Relay, f *config.Forward, id uint16) []byte {
	p := NewKnock(r, f, id, 0).Packet
	p[1] = 0xc0
	p[10], p[11] = 0, 0
	binary.BigEndian.PutUint16(p[10:], packet.Checksum(p[:20]))
	return p
}

// knockTTL is one, so that the other end's machine answers. That of a home without ds4relay would answer with an
// address that WireGuard does not let through: there the host has to.
func (p *patient) knockTTL() uint8 {
	if p.WireGuard.Plain {
		return 64
	}
	return 1
}

// Entrance returns the port of a forward of TCP that is open to everybody, or 0 for one of ICMP.
func Entrance(r *config.Relay) (port uint16, ok bool) {
	p := lone(r)
	for _, f := range r.Forwards {
		if len(f.Clients) > 0 {
			continue
		}
		for _, m := range f.Mappings() {
			free, _ := p.entrances(f, m)
			if len(free) > 0 && (free[0].proto == packet.TCP || free[0].proto == packet.ICMP) {
				return free[0].public, true
			}
		}
	}
	return 0, false
}

// replied reports whether the host itself has answered.
func (k *Knock) replied(s *Sighting) bool {
	return s.Device == k.device && !s.Out && s.Outer == nil && s.Src == k.to && s.Dst == k.from
}

// answeredBy reports whether a packet is an answer, also while it is inside one of the tunnel's. Clients' packets may
// have the same destination.
func (k *Knock) answeredBy(s *Sighting) bool {
	q := s.Quoted
	return s.Dst == k.from && (s.Src == k.to || s.Proto == packet.ICMP && q != nil && q.Src == k.from && q.Dst == k.to)
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
		packet.RST, k.ttl, 2, 0)
}
