package packet

import (
	"encoding/binary"
	"net/netip"
)

// Numbers of protocols (IANA).
const (
	ICMP    = 1
	IPIP    = 4 // IPv4 in IPv6
	TCP     = 6
	UDP     = 17
	ICMPv6  = 58
	SCTP    = 132
	UDPLite = 136
)

// TCP flags.
const (
	FIN = 1
	SYN = 2
	RST = 4
	PSH = 8
	ACK = 16
)

// Types of ICMP (RFC 792) and ICMPv6 (RFC 4443).
const (
	EchoReply      = 0
	Unreachable    = 3
	EchoRequest    = 8
	TimeExceeded   = 11
	Unreachable6   = 1
	TooBig6        = 2
	TimeExceeded6  = 3
	Parameter6     = 4
	EchoRequest6   = 128
	EchoReply6     = 129
	lastErrorType6 = 127
)

// Codes of ICMP's destination unreachable with which a host says that it has no such service.
const (
	ProtocolUnreachable = 2
	PortUnreachable     = 3
)

// Abort is the type of SCTP's chunk that ends an association, or refuses it (RFC 9260 §3.3.7).
const Abort = 6

// Packet is one IP packet. With Outer set it came inside an IPv6 packet, and the other fields are those of the inner
// one. Fields behind a truncation stay zero.
type Packet struct {
	Outer *Outer // nil for a plain packet

	Src, Dst netip.Addr
	Proto    uint8 // behind IPv6 extension headers
	TTL      uint8 // hop limit
	ID       uint16
	Len      int // in bytes with header
	DF       bool
	More     bool // a fragment with others behind it
	Offset   int  // of a fragment in bytes

	SrcPort, DstPort uint16
	Flags            uint8  // of TCP
	MSS              int    // the option of TCP, 0 without
	Type, Code       uint8  // of ICMP or ICMPv6; of SCTP the type of the first chunk; of UDP the payload's first byte
	EchoID, EchoSeq  uint16 // of an echo request or reply
	MTU              int    // of "fragmentation needed" and "packet too big"
	Quoted           *Packet
}

// Outer is the IPv6 header around an IPv4 packet (RFC 2473).
type Outer struct {
	Src, Dst   netip.Addr
	HopLimit   uint8
	EncapLimit int // -1 without
	Len        int
}

const ipv6Header = 40

// Decode reads a packet that begins with its IP header; ok is false for what is none.
func Decode(data []byte) (p Packet, ok bool) {
	if len(data) == 0 {
		return p, false
	}
	switch data[0] >> 4 {
	case 4:
		ok = p.decode4(data)
	case 6:
		ok = p.decode6(data)
	}
	return p, ok
}

func (p *Packet) decode4(data []byte) bool {
	header := int(data[0]&0xf) * 4
	if header < 20 || len(data) < header {
		return false
	}
	p.Src, p.Dst = netip.AddrFrom4([4]byte(data[12:])), netip.AddrFrom4([4]byte(data[16:]))
	p.Len, p.ID = int(binary.BigEndian.Uint16(data[2:])), binary.BigEndian.Uint16(data[4:])
	p.TTL, p.Proto = data[8], data[9]
	fragment := binary.BigEndian.Uint16(data[6:])
	p.DF, p.More, p.Offset = fragment&0x4000 != 0, fragment&0x2000 != 0, int(fragment&0x1fff)*8
	p.transport(data[header:])
	return true
}

func (p *Packet) decode6(data []byte) bool {
	if len(data) < ipv6Header {
		return false
	}
	p.Src, p.Dst = netip.AddrFrom16([16]byte(data[8:])), netip.AddrFrom16([16]byte(data[24:]))
	p.Len, p.TTL = ipv6Header+int(binary.BigEndian.Uint16(data[4:])), data[7]
	limit := -1
	next, rest := data[6], data[ipv6Header:]
	for len(rest) >= 8 {
		length := 8 + int(rest[1])*8
		switch next {
		case 60: // destination options; an encapsulation limit is option 4 (RFC 2473 §4.1.1)
			if rest[2] == 4 && rest[3] == 1 {
				limit = int(rest[4])
			}
		case 44: // fragment
			length = 8
			fragment := binary.BigEndian.Uint16(rest[2:])
			p.More, p.Offset = fragment&1 != 0, int(fragment&^7)
		case 0, 43: // hop-by-hop options, routing
		default:
			length = 0
		}
		if length == 0 || len(rest) < length {
			break
		}
		next, rest = rest[0], rest[length:]
	}
	p.Proto = next
	if next != IPIP || p.Offset != 0 {
		p.transport(rest)
		return true
	}
	inner, ok := Decode(rest)
	if !ok || inner.Outer != nil || !inner.Src.Is4() {
		return true
	}
	inner.Outer = &Outer{Src: p.Src, Dst: p.Dst, HopLimit: p.TTL, EncapLimit: limit, Len: p.Len}
	*p = inner
	return true
}

func (p *Packet) transport(data []byte) {
	if p.Offset != 0 {
		return
	}
	switch p.Proto {
	case TCP:
		if len(data) < 4 {
			return
		}
		p.ports(data)
		if len(data) < 20 {
			return
		}
		p.Flags = data[13]
		if header := int(data[12]>>4) * 4; header >= 20 && len(data) >= header {
			p.MSS = MSS(data[20:header])
		}
	case UDP, 33, SCTP, UDPLite: // and DCCP
		if len(data) >= 4 {
			p.ports(data)
		}
		switch {
		case p.Proto == SCTP && len(data) > 12:
			p.Type = data[12]
		case p.Proto == UDP && len(data) > 8:
			p.Type = data[8]
		}
	case ICMP, ICMPv6:
		if len(data) >= 8 {
			p.icmp(data)
		}
	}
}

func (p *Packet) ports(data []byte) {
	p.SrcPort, p.DstPort = binary.BigEndian.Uint16(data), binary.BigEndian.Uint16(data[2:])
}

func (p *Packet) icmp(data []byte) {
	p.Type, p.Code = data[0], data[1]
	if p.IsEcho() {
		p.EchoID, p.EchoSeq = binary.BigEndian.Uint16(data[4:]), binary.BigEndian.Uint16(data[6:])
		return
	}
	switch {
	case p.Proto == ICMP && p.Type == Unreachable && p.Code == 4:
		p.MTU = int(binary.BigEndian.Uint16(data[6:]))
	case p.Proto == ICMPv6 && p.Type == TooBig6:
		p.MTU = int(binary.BigEndian.Uint32(data[4:]))
	}
	if p.IsError() {
		if quoted, ok := Decode(data[8:]); ok {
			p.Quoted = &quoted
		}
	}
}

// IsEcho tells whether it is an echo request or reply.
func (p *Packet) IsEcho() bool {
	return p.Proto == ICMP && (p.Type == EchoRequest || p.Type == EchoReply) ||
		p.Proto == ICMPv6 && (p.Type == EchoRequest6 || p.Type == EchoReply6)
}

// IsError tells whether it is an error of ICMP or ICMPv6 about another packet.
func (p *Packet) IsError() bool {
	return p.Proto == ICMP && (p.Type == Unreachable || p.Type == TimeExceeded || p.Type == 12) || p.Proto == ICMPv6 &&
		p.Type <= lastErrorType6
}

// MSS finds the maximum segment size in bytes among TCP's options; 0 where there is none.
func MSS(options []byte) int {
	for len(options) > 0 && options[0] != 0 {
		if options[0] == 1 {
			options = options[1:]
			continue
		}
		if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
			return 0
		}
		if options[0] == 2 && options[1] == 4 {
			return int(binary.BigEndian.Uint16(options[2:]))
		}
		options = options[options[1]:]
	}
	return 0
}
