//go:build linux

package lab

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

// TestDecode: outer and inner headers are decoded, also if the payload looks like a packet.
func TestDecode(t *testing.T) {
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	outer := func(next byte, payload []byte) []byte {
		p := []byte{0x60, 0, 0, 0}
		p = binary.BigEndian.AppendUint16(p, uint16(len(payload)))
		p = append(p, next, 64)
		p = append(p, VPSIPv6.AsSlice()...)
		p = append(p, WANIPv6.AsSlice()...)
		return append(p, payload...)
	}
	udp := UDP4(netip.AddrPortFrom(a, 1000), netip.AddrPortFrom(b, 53), []byte("question"))
	first := append([]byte(nil), udp...)
	first[6] = 0x20 // more fragments
	gre := IPv4(a, b, 47, append([]byte{0, 0, 0x08, 0x00}, udp...))
	limit := append([]byte{4, 0, 4, 1, 3, 1, 1, 0}, udp...) // destination options: an encapsulation limit of 3, PadN
	for name, c := range map[string]struct {
		data  []byte
		proto byte
		port  uint16
		outer bool
		limit int
	}{
		"UDP":                     {udp, 17, 53, false, 0},
		"a first fragment":        {first, 17, 53, false, 0},
		"GRE with a packet in it": {gre, 47, 0, false, 0},
		"4in6":                    {outer(4, udp), 17, 53, true, -1},
		"4in6 with a limit":       {outer(60, limit), 17, 53, true, 3},
		"GRE in 4in6":             {outer(4, gre), 47, 0, true, -1},
		"cut off in the TCP header": {TCP4(netip.AddrPortFrom(a, 1), netip.AddrPortFrom(b, 2), 2)[:30], 6, 0,
			false, 0},
		"cut off in the IPv6 header": {outer(4, udp)[:20], 0, 0, false, 0},
	} {
		var p Packet
		decode(&p, c.data)
		if p.Proto != c.proto || p.DstPort != c.port || (p.IPv6 != nil) != c.outer || c.outer &&
			p.IPv6.EncapLimit != c.limit {
			t.Errorf("%s: %+v, %+v", name, p, p.IPv6)
		}
		if c.proto != 0 && (p.Src != a || p.Dst != b) {
			t.Errorf("%s: from %v to %v", name, p.Src, p.Dst)
		}
	}
}
