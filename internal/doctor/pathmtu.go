package doctor

import (
	"net/netip"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/packet"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// Sounding is a packet of the tunnel that tells whether packets of its size reach the other end: hop limit one inside
// makes that answer. One of IPIP6 is sent past this end's tunnel, so that neither the tunnel's MTU nor what the kernel
// has learnt about the path stops it. One of WireGuard, which only the kernel can encrypt, goes through it.
type Sounding struct {
	Packet []byte // with the IPv6 header, unless Into is set
	Into   string // the tunnel that it is put into

	relay    *config.Relay
	carrier  transport.Tunnel
	from, to netip.Addr
	id       uint16
	size     int // of the inner packet
}

// NewSounding makes one for a relay with a forward. size is that of a packet inside the tunnel, in bytes; id is the
// port or the ICMP identifier that answers have.
func NewSounding(r *config.Relay, tunnel transport.Tunnel, id uint16, size int) *Sounding {
	p := lone(r)
	e := p.entries()[0]
	s := &Sounding{relay: r, carrier: tunnel, from: e.forward.DestIP, to: Nowhere, id: id}
	proto, port := uint8(packet.ICMP), uint16(0)
	if r.Role == config.VPS {
		proto, port = e.proto, e.port
		s.from, s.to = p.clientInside(e.forward), e.forward.DestIP
	}
	ipip6, ok := tunnel.(transport.IPIP6)
	if ok {
		size += ipip6.Overhead() - transport.OuterHeader // in place of the option, which an answer does not need
	}
	s.Packet = p.testPacket(proto, s.from, s.to, port, id, p.knockTTL(), size)
	s.size = len(s.Packet)
	if ok { // it makes what comes from the other end
		s.Packet = transport.IPIP6{Local: ipip6.Remote, Remote: ipip6.Local}.Encapsulate(s.Packet)
	} else {
		s.Into = r.Device
	}
	return s
}

// Answer reports whether a packet that came in by a device shows that the sounding has reached the other end.
func (s *Sounding) Answer(device string, p packet.Packet) bool {
	if device != s.relay.Device || p.Outer != nil {
		return false
	}
	if q := p.Quoted; p.Proto == packet.ICMP && q != nil {
		return q.Src == s.from && q.Dst == s.to && q.Len == s.size &&
			(q.SrcPort|q.EchoID == s.id || q.SrcPort|q.EchoID == 0) // zero: a protocol without ports
	}
	return p.Src == s.to && p.Dst == s.from && p.DstPort|p.EchoID == s.id // of a host that is the other end itself
}

// TooBig returns how large a packet inside the tunnel may be by an ICMPv6 error about the relay's packets, in bytes, or
// 0 if the packet is none. WireGuard's packets go in fragments after such an error.
func (s *Sounding) TooBig(p packet.Packet) int {
	if s.Into != "" || p.Type != packet.TooBig6 || !s.carrier.Refused(&p) {
		return 0
	}
	return p.MTU - s.carrier.Overhead()
}

// SmallSounding, in bytes, passes wherever anything does.
const SmallSounding = smallPing

const (
	losses = 4 // packets that must get lost, while small ones pass, before a path counts as narrower
	tries  = 2 // packets of each other size
)

// PathMTU finds the largest packet of a tunnel that passes, in bytes, if now is the tunnel's MTU; 0 means that nothing
// is known. Above now it looks only if higher is set, and never above most. try sends one packet of a size; told is
// what an ICMPv6 error says should pass, or 0. Anybody may forge such errors, so a size counts only if a packet passes.
func PathMTU(now, most int, higher bool, try func(size int) (passed bool, told int)) int {
	hint := 0
	passes := func(size int, tries int) bool {
		for range tries {
			passed, told := try(size)
			if passed {
				return true
			}
			if told > 0 {
				hint = told
			}
		}
		return false
	}
	search := func(low, high int) int { // low passes, high does not
		for high-low > 1 {
			middle := (low + high) / 2
			if hint > low && hint < high {
				middle, hint = hint, 0
				if passes(middle, tries) {
					low, hint = middle, 0
					if !passes(middle+1, tries) { // usually
						high = middle + 1
					} else {
						low = middle + 1
					}
					continue
				}
			} else if passes(middle, tries) {
				low = middle
				continue
			}
			high = middle
		}
		return low
	}
	if passes(now, 1) {
		if !higher || now >= most || !passes(now+1, tries) {
			return now
		}
		if passes(most, tries) {
			return most
		}
		return search(now+1, most)
	}
	for range losses { // a loss says something about the size only if a small packet passes after it
		if !passes(SmallSounding, 1) {
			return 0
		}
		if passes(now, 1) {
			return now
		}
	}
	low, high := min(minIPv6MTU-transport.OuterHeader, now), now
	if low == now || !passes(low, tries) {
		low, high = minIPv4MTU, low
		if low >= high || !passes(low, tries) {
			return 0
		}
	}
	found := search(low, high)
	if passes(now, 1) { // the path changes
		return now
	}
	return found
}
