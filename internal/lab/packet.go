//go:build linux

package lab

import (
	"encoding/binary"
	"net/netip"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// Packet is a captured packet. For 4in6 the fields are those of the inner IPv4 packet, and IPv6 is the outer header.
// For plain IPv6, IPv6 is set and Src and Dst are its addresses.
type Packet struct {
	Dev      string
	Outgoing bool
	WireLen  int // from the network header on; more than the MTU if the kernel segments later

	IPv6 *IPv6Header // nil for plain IPv4

	Src, Dst         netip.Addr
	Proto            byte // after IPv6 extension headers
	Len              int  // total length of the (inner) IPv4 packet or of the IPv6 packet, including the header
	TTL              byte
	DF, MF           bool // IPv4; MF also for an IPv6 fragment header
	FragOffset       int  // in bytes
	SrcPort, DstPort uint16
	TCPFlags         byte // FIN 1, SYN 2, RST 4, PSH 8, ACK 16
	TCPMSS           int  // value of the option, 0 if missing
	ICMPType         byte // ICMP or ICMPv6
	ICMPCode         byte
	ICMPMTU          int    // of "fragmentation needed" and "packet too big"
	Payload          []byte // after the TCP, UDP or ICMP header, as far as captured
}

// IPv6Header is the outer header of a 4in6 packet, or the header of a plain IPv6 packet.
type IPv6Header struct {
	Src, Dst   netip.Addr
	NextHeader byte // of the fixed header: 60 for destination options, else 4 for IPv4
	HopLimit   byte
	HasDstOpts bool // destination options, which carry the encapsulation limit (RFC 2473 §4.1.1)
	EncapLimit int  // encapsulation limit; -1 if missing
}

// decode reads a packet that starts with its network header. It uses a library instead of the code under test. Fields
// behind a truncation stay zero.
func decode(p *Packet, data []byte) {
	if len(data) == 0 {
		return
	}
	switch data[0] >> 4 {
	case 4:
		p.decode(layers.LayerTypeIPv4, data)
	case 6:
		p.decode(layers.LayerTypeIPv6, data)
	}
}

func (p *Packet) decode(first gopacket.LayerType, data []byte) {
	for _, layer := range gopacket.NewPacket(data, first, gopacket.NoCopy).Layers() {
		switch l := layer.(type) {
		case *layers.IPv4:
			if l.DstIP == nil || p.IPv6 == nil && p.Src.IsValid() { // truncated, or in a tunnel that is not ours
				return
			}
			p.Src, p.Dst = address(l.SrcIP), address(l.DstIP)
			p.Len, p.TTL, p.Proto = int(l.Length), l.TTL, byte(l.Protocol)
			p.DF, p.MF, p.FragOffset = l.Flags&layers.IPv4DontFragment != 0, l.Flags&layers.IPv4MoreFragments != 0,
				int(l.FragOffset)*8
			p.Payload = l.Payload
		case *layers.IPv6:
			if l.DstIP == nil { // truncated
				return
			}
			p.IPv6 = &IPv6Header{Src: address(l.SrcIP), Dst: address(l.DstIP), NextHeader: byte(l.NextHeader),
				HopLimit: l.HopLimit, EncapLimit: -1}
			p.Src, p.Dst = p.IPv6.Src, p.IPv6.Dst
			const header = 40
			p.Len, p.TTL, p.Proto = header+int(l.Length), l.HopLimit, byte(l.NextHeader)
			p.Payload = l.Payload
		case *layers.IPv6HopByHop:
			p.Proto, p.Payload = byte(l.NextHeader), l.Payload
		case *layers.IPv6Routing:
			p.Proto, p.Payload = byte(l.NextHeader), l.Payload
		case *layers.IPv6Destination:
			p.Proto, p.Payload = byte(l.NextHeader), l.Payload
			p.IPv6.HasDstOpts = true
			for _, option := range l.Options {
				if option.OptionType == 4 && len(option.OptionData) == 1 { // RFC 2473 §4.1.1
					p.IPv6.EncapLimit = int(option.OptionData[0])
				}
			}
		case *layers.IPv6Fragment:
			p.Proto, p.Payload = byte(l.NextHeader), l.Payload
			p.MF, p.FragOffset = l.MoreFragments, int(l.FragmentOffset)*8
		case *gopacket.Fragment: // the library does not decode first fragments either, which contain the next header
			if p.FragOffset == 0 {
				p.decode(layers.IPProtocol(p.Proto).LayerType(), p.Payload)
			}
			return
		case *layers.TCP:
			p.SrcPort, p.DstPort, p.Payload = uint16(l.SrcPort), uint16(l.DstPort), l.Payload
			p.TCPFlags = tcpFlags(l)
			for _, option := range l.Options {
				if option.OptionType == layers.TCPOptionKindMSS && len(option.OptionData) == 2 {
					p.TCPMSS = int(binary.BigEndian.Uint16(option.OptionData))
				}
			}
		case *layers.UDP:
			p.SrcPort, p.DstPort, p.Payload = uint16(l.SrcPort), uint16(l.DstPort), l.Payload
		case *layers.ICMPv4:
			p.ICMPType, p.ICMPCode, p.Payload = l.TypeCode.Type(), l.TypeCode.Code(), l.Payload
			if p.ICMPType == layers.ICMPv4TypeDestinationUnreachable &&
				p.ICMPCode == layers.ICMPv4CodeFragmentationNeeded {
				p.ICMPMTU = int(l.Seq) // in the same two bytes (RFC 1191 §4)
			}
		case *layers.ICMPv6:
			p.ICMPType, p.ICMPCode = l.TypeCode.Type(), l.TypeCode.Code()
			if len(l.Payload) < 4 {
				return
			}
			if p.ICMPType == layers.ICMPv6TypePacketTooBig {
				p.ICMPMTU = int(binary.BigEndian.Uint32(l.Payload))
			}
			p.Payload = l.Payload[4:]
			return
		default: // other protocols, for example the content of a GRE packet
			return
		}
	}
}

func address(ip []byte) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return addr
}

func tcpFlags(l *layers.TCP) (flags byte) {
	for i, set := range []bool{l.FIN, l.SYN, l.RST, l.PSH, l.ACK, l.URG, l.ECE, l.CWR} {
		if set {
			flags |= 1 << i
		}
	}
	return flags
}
