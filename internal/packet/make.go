package packet

import (
	"encoding/binary"
	"net/netip"
)

// MakeTCP is an IPv4 packet with a TCP segment without options.
func MakeTCP(src, dst netip.AddrPort, flags, ttl uint8, seq, ack uint32, data ...byte) []byte {
	tcp := make([]byte, 20, 20+len(data))
	binary.BigEndian.PutUint16(tcp, src.Port())
	binary.BigEndian.PutUint16(tcp[2:], dst.Port())
	binary.BigEndian.PutUint32(tcp[4:], seq)
	binary.BigEndian.PutUint32(tcp[8:], ack)
	tcp[12], tcp[13], tcp[14], tcp[15] = 0x50, flags, 0xff, 0xff
	tcp = append(tcp, data...)
	binary.BigEndian.PutUint16(tcp[16:], pseudoSum(src.Addr(), dst.Addr(), TCP, tcp))
	return Make4(src.Addr(), dst.Addr(), TCP, ttl, tcp)
}

// MakeUDP is an IPv4 packet with an UDP datagram.
func MakeUDP(src, dst netip.AddrPort, ttl uint8, payload []byte) []byte {
	return makeUDP(UDP, src, dst, ttl, payload)
}

// MakeUDPLite is an IPv4 packet with a datagram of UDP-Lite whose checksum covers all of it (RFC 3828): its header then
// has the same fields.
func MakeUDPLite(src, dst netip.AddrPort, ttl uint8, payload []byte) []byte {
	return makeUDP(UDPLite, src, dst, ttl, payload)
}

func makeUDP(proto uint8, src, dst netip.AddrPort, ttl uint8, payload []byte) []byte {
	udp := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(udp, src.Port())
	binary.BigEndian.PutUint16(udp[2:], dst.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(8+len(payload)))
	udp = append(udp, payload...)
	sum := pseudoSum(src.Addr(), dst.Addr(), proto, udp)
	if sum == 0 {
		sum = 0xffff // RFC 768: 0 means none
	}
	binary.BigEndian.PutUint16(udp[6:], sum)
	return Make4(src.Addr(), dst.Addr(), proto, ttl, udp)
}

// MakeSCTPInit is an IPv4 packet with the first packet of an SCTP association (RFC 9260 §3.3.2), with a padding
// parameter (RFC 4820) of that many bytes, a multiple of four.
func MakeSCTPInit(src, dst netip.AddrPort, ttl uint8, padding int) []byte {
	sctp := make([]byte, 32+padding)
	copy(sctp[12:], []byte{1, 0, 0, 0, 0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1})
	binary.BigEndian.PutUint16(sctp, src.Port())
	binary.BigEndian.PutUint16(sctp[2:], dst.Port())
	binary.BigEndian.PutUint16(sctp[14:], uint16(20+padding))
	if padding > 0 {
		binary.BigEndian.PutUint32(sctp[32:], 0x8005<<16|uint32(padding))
	}
	binary.LittleEndian.PutUint32(sctp[8:], crc32c(sctp))
	return Make4(src.Addr(), dst.Addr(), SCTP, ttl, sctp)
}

// crc32c is SCTP's checksum (RFC 9260 appendix A). hash/crc32 has tables for it, which a router's flash memory has no
// room for.
func crc32c(data []byte) uint32 {
	sum := ^uint32(0)
	for _, b := range data {
		sum ^= uint32(b)
		for range 8 {
			sum = sum>>1 ^ 0x82f63b78&-(sum&1)
		}
	}
	return ^sum
}

// MakeEcho is an IPv4 packet with an ICMP echo request, and so many bytes of data.
func MakeEcho(src, dst netip.Addr, ttl uint8, id, seq uint16, size int) []byte {
	icmp := make([]byte, 8+size)
	icmp[0] = EchoRequest
	binary.BigEndian.PutUint16(icmp[4:], id)
	binary.BigEndian.PutUint16(icmp[6:], seq)
	binary.BigEndian.PutUint16(icmp[2:], Checksum(icmp))
	return Make4(src, dst, ICMP, ttl, icmp)
}

// Make4 is an IPv4 packet without options that must not be fragmented.
func Make4(src, dst netip.Addr, proto, ttl uint8, payload []byte) []byte {
	p := make([]byte, 20, 20+len(payload))
	p[0], p[6], p[8], p[9] = 0x45, 0x40, ttl, proto
	binary.BigEndian.PutUint16(p[2:], uint16(20+len(payload)))
	copy(p[12:], src.AsSlice())
	copy(p[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(p[10:], Checksum(p))
	return append(p, payload...)
}

// Make4in6 puts an IPv4 packet into an IPv6 packet without further headers.
func Make4in6(src, dst netip.Addr, hopLimit uint8, inner []byte) []byte {
	p := make([]byte, ipv6Header, ipv6Header+len(inner))
	p[0], p[6], p[7] = 0x60, IPIP, hopLimit
	binary.BigEndian.PutUint16(p[4:], uint16(len(inner)))
	copy(p[8:], src.AsSlice())
	copy(p[24:], dst.AsSlice())
	return append(p, inner...)
}

// MakePuzzle is like Make4in6, with a destination option that nobody knows: the receiver answers with an error, also if
// the option's header comes before a packet that it would not answer (RFC 8200 §4.2, an experimental type of RFC 4727).
func MakePuzzle(src, dst netip.Addr, hopLimit uint8, inner []byte) []byte {
	p := Make4in6(src, dst, hopLimit, append([]byte{IPIP, 0, 0x9e, 4, 0, 0, 0, 0}, inner...))
	p[6] = 60 // destination options
	return p
}

func pseudoSum(src, dst netip.Addr, proto uint8, segment []byte) uint16 {
	pseudo := append(src.AsSlice(), dst.AsSlice()...)
	pseudo = append(pseudo, 0, proto, byte(len(segment)>>8), byte(len(segment)))
	return Checksum(append(pseudo, segment...))
}

// Checksum is that of RFC 1071.
func Checksum(data []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(data); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(data[i:]))
	}
	if len(data)%2 == 1 {
		sum += uint32(data[len(data)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
