//go:build linux

package lab

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	headers "github.com/ds4relay/ds4relay/internal/packet"
)

// Packet is a captured packet. The header fields are those of the IPv4 packet, also when it is inside an IPv6 packet
// (then IPv6 is set), or of a plain IPv6 packet (then IPv6 is set and Src and Dst are equal to its own).
type Packet struct {
	Dev      string
	Outgoing bool
	WireLen  int // from the network header on; more than the MTU where the kernel segments later

	IPv6 *IPv6Header // nil for plain IPv4

	Src, Dst         netip.Addr
	Proto            byte // after IPv6 extension headers
	Len              int  // total length of the (inner) IPv4 packet, or of the IPv6 packet, with header
	TTL              byte
	DF, MF           bool // IPv4; MF also from an IPv6 fragment header
	FragOffset       int  // in bytes
	SrcPort, DstPort uint16
	TCPFlags         byte // FIN 1, SYN 2, RST 4, PSH 8, ACK 16
	TCPMSS           int  // the option's value, 0 without
	ICMPType         byte // ICMP or ICMPv6
	ICMPCode         byte
	ICMPMTU          int    // of "fragmentation needed" and "packet too big"
	Payload          []byte // what follows the TCP, UDP or ICMP header, as far as it was captured
}

// IPv6Header is the outer header of a 4in6 packet, or the only one of an IPv6 packet.
type IPv6Header struct {
	Src, Dst   netip.Addr
	NextHeader byte // of the fixed header: 60 with destination options, else 4 for IPv4
	HopLimit   byte
	HasDstOpts bool // destination options, where an encapsulation limit travels (RFC 2473 §4.1.1)
	EncapLimit int  // its value; -1 without
}

const ipv6HeaderLen = 40

// decode reads a packet that starts with its network header. Fields behind a truncation stay zero.
func decode(p *Packet, data []byte) {
	if len(data) == 0 {
		return
	}
	switch data[0] >> 4 {
	case 4:
		decodeIPv4(p, data)
	case 6:
		decodeIPv6(p, data)
	}
}

func decodeIPv4(p *Packet, data []byte) {
	headerLen := int(data[0]&0xf) * 4
	if headerLen < 20 || len(data) < headerLen {
		return
	}
	p.Src, p.Dst = netip.AddrFrom4([4]byte(data[12:])), netip.AddrFrom4([4]byte(data[16:]))
	p.Len = int(binary.BigEndian.Uint16(data[2:]))
	p.TTL, p.Proto = data[8], data[9]
	frag := binary.BigEndian.Uint16(data[6:])
	p.DF, p.MF, p.FragOffset = frag&0x4000 != 0, frag&0x2000 != 0, int(frag&0x1fff)*8
	decodeTransport(p, data[headerLen:])
}

func decodeIPv6(p *Packet, data []byte) {
	if len(data) < ipv6HeaderLen {
		return
	}
	outer := &IPv6Header{
		Src: netip.AddrFrom16([16]byte(data[8:])), Dst: netip.AddrFrom16([16]byte(data[24:])),
		NextHeader: data[6], HopLimit: data[7], EncapLimit: -1,
	}
	p.IPv6, p.Src, p.Dst = outer, outer.Src, outer.Dst
	p.Len, p.TTL = ipv6HeaderLen+int(binary.BigEndian.Uint16(data[4:])), outer.HopLimit
	next := outer.NextHeader
	for data = data[ipv6HeaderLen:]; len(data) >= 8; {
		length := 8 + int(data[1])*8
		switch next {
		case unix.IPPROTO_DSTOPTS:
			outer.HasDstOpts = true
			if data[2] == 4 && data[3] == 1 { // RFC 2473 §4.1.1
				outer.EncapLimit = int(data[4])
			}
		case unix.IPPROTO_FRAGMENT:
			length = 8
			frag := binary.BigEndian.Uint16(data[2:])
			p.MF, p.FragOffset = frag&1 != 0, int(frag&^7)
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING:
		default:
			length = 0
		}
		if length == 0 || len(data) < length {
			break
		}
		next, data = data[0], data[length:]
	}
	p.Proto = next
	if next == unix.IPPROTO_IPIP && p.FragOffset == 0 && len(data) > 0 {
		decodeIPv4(p, data)
		return
	}
	decodeTransport(p, data)
}

func decodeTransport(p *Packet, data []byte) {
	if p.FragOffset != 0 {
		p.Payload = data
		return
	}
	headerLen := 8
	switch {
	case p.Proto == unix.IPPROTO_TCP && len(data) >= 20:
		p.TCPFlags = data[13]
		headerLen = int(data[12]>>4) * 4
		if headerLen >= 20 && len(data) >= headerLen {
			p.TCPMSS = headers.MSS(data[20:headerLen])
		}
		fallthrough
	case p.Proto == unix.IPPROTO_UDP && len(data) >= 8:
		p.SrcPort, p.DstPort = binary.BigEndian.Uint16(data), binary.BigEndian.Uint16(data[2:])
	case p.Proto == unix.IPPROTO_ICMP && len(data) >= 8:
		p.ICMPType, p.ICMPCode = data[0], data[1]
		if p.ICMPType == 3 && p.ICMPCode == 4 {
			p.ICMPMTU = int(binary.BigEndian.Uint16(data[6:]))
		}
	case p.Proto == unix.IPPROTO_ICMPV6 && len(data) >= 8:
		p.ICMPType, p.ICMPCode = data[0], data[1]
		if p.ICMPType == 2 {
			p.ICMPMTU = int(binary.BigEndian.Uint32(data[4:]))
		}
	default:
		headerLen = 0
	}
	if len(data) >= headerLen {
		p.Payload = data[headerLen:]
	}
}
