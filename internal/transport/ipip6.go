package transport

import (
	"fmt"
	"net/netip"

	"github.com/ds4relay/ds4relay/internal/packet"
)

// IPIP6 is IPv4 in IPv6 without encryption (RFC 2473): a device of type ip6tnl in mode ipip6.
type IPIP6 struct {
	Local, Remote netip.Addr // endpoints
	EncapLimit    int        // 0-255, or NoEncapLimit
	TTL           int        // hop limit of outer packets; 0: copied from the inner packet
}

// NoEncapLimit is the encapsulation limit of tunnels that send no destination options header (`encaplimit none`).
const NoEncapLimit = -1

// IPIP6Kind is the device type of IPIP6.
const IPIP6Kind = "ip6tnl"

// Numbers of RFC 2473: sizes in bytes of the outer header (§5) and of the option with the encapsulation limit (§4.1.1),
// and the IP protocol number (IANA).
const (
	OuterHeader      = 40
	EncapLimitOption = 8
	ProtoIPIP        = packet.IPIP
)

// Kind implements Tunnel.
func (t IPIP6) Kind() string { return IPIP6Kind }

// Arguments implements Tunnel.
func (t IPIP6) Arguments() string {
	limit := "none"
	if t.EncapLimit != NoEncapLimit {
		limit = fmt.Sprint(t.EncapLimit)
	}
	return fmt.Sprintf("type ip6tnl mode ipip6 local %s remote %s encaplimit %s hoplimit %d", t.Local, t.Remote, limit,
		t.TTL)
}

// Endpoints implements Tunnel.
func (t IPIP6) Endpoints() (local, remote netip.Addr) { return t.Local, t.Remote }

// Overhead implements Tunnel.
func (t IPIP6) Overhead() int {
	if t.EncapLimit != NoEncapLimit {
		return OuterHeader + EncapLimitOption
	}
	return OuterHeader
}

// Openings implements Tunnel.
func (t IPIP6) Openings() []Opening { return []Opening{t.Opening()} }

// Opening returns the only one of Openings.
func (t IPIP6) Opening() Opening {
	return Opening{Family: IPv6, Proto: ProtoIPIP, From: t.Remote, To: t.Local}
}

// testHopLimit is the hop limit in packets from Encapsulate.
const testHopLimit = 64

// Encapsulate returns the packet that arrives here when the other end sends an IPv4 packet through the tunnel.
func (t IPIP6) Encapsulate(inner []byte) []byte {
	return packet.Make4in6(t.Remote, t.Local, testHopLimit, inner)
}

// Puzzle returns a packet to the other end, with an IPv4 packet inside, that it answers with an error outside the
// tunnel if the firewalls on the way let the tunnel's packets through.
func (t IPIP6) Puzzle(inner []byte) []byte {
	return packet.MakePuzzle(t.Local, t.Remote, testHopLimit, inner)
}

// Sends implements Tunnel. p is the inner packet, p.Outer the outer one.
func (t IPIP6) Sends(p *packet.Packet) bool {
	return p.Outer != nil && p.Outer.Src == t.Local && p.Outer.Dst == t.Remote
}

// Receives implements Tunnel.
func (t IPIP6) Receives(p *packet.Packet) bool {
	return p.Outer != nil && p.Outer.Src == t.Remote && p.Outer.Dst == t.Local
}

// Refused implements Tunnel. It recognises ICMPv6 errors that quote an outer packet, complete or truncated.
func (t IPIP6) Refused(p *packet.Packet) bool {
	if p.Proto != packet.ICMPv6 || !p.IsError() || p.Quoted == nil || p.Dst != t.Local {
		return false
	}
	return p.Quoted.Dst == t.Remote || p.Quoted.Outer != nil && p.Quoted.Outer.Dst == t.Remote
}

// Derive returns an endpoint in a prefix: the decimal octets of the relay's IPv4 address become the last four groups.
// 2001:db8:1::/64 and 198.51.100.144 give 2001:db8:1:0:198:51:100:144.
func Derive(prefix netip.Prefix, ipaddr netip.Addr) netip.Addr {
	a := prefix.Masked().Addr().As16()
	for i, octet := range ipaddr.As4() {
		group := uint16(octet/100)<<8 | uint16(octet/10%10)<<4 | uint16(octet%10)
		a[8+2*i], a[9+2*i] = byte(group>>8), byte(group)
	}
	return netip.AddrFrom16(a)
}
