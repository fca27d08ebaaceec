package transport

import (
	"fmt"
	"net/netip"

	"github.com/ds4relay/ds4relay/internal/packet"
)

// IPIP6 is IPv4 in IPv6 without encryption (RFC 2473): a device of kind ip6tnl in mode ipip6.
type IPIP6 struct {
	Local, Remote netip.Addr // the endpoints
	EncapLimit    int        // 0-255, or NoEncapLimit
	TTL           int        // hop limit of outer packets; 0: that of the packet inside
}

// NoEncapLimit is the encapsulation limit of tunnels that send no destination options header (`encaplimit none`).
const NoEncapLimit = -1

// IPIP6Kind is IPIP6's kind of device.
const IPIP6Kind = "ip6tnl"

// Numbers of RFC 2473: the header around each packet (§5) and the option with the encapsulation limit (§4.1.1), in
// bytes; the IP protocol (IANA's assigned numbers).
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

// Opening implements Tunnel.
func (t IPIP6) Opening() Opening { return Opening{Proto: ProtoIPIP, From: t.Remote, To: t.Local} }

// testHopLimit is the hop limit of packets that Encapsulate makes.
const testHopLimit = 64

// Encapsulate implements Tunnel.
func (t IPIP6) Encapsulate(inner []byte) []byte {
	return packet.Make4in6(t.Remote, t.Local, testHopLimit, inner)
}

// Sends implements Tunnel. The IPv4 packet within can be read: it is p, in the outer packet.
func (t IPIP6) Sends(p *packet.Packet) bool {
	return p.Outer != nil && p.Outer.Src == t.Local && p.Outer.Dst == t.Remote
}

// Receives implements Tunnel.
func (t IPIP6) Receives(p *packet.Packet) bool {
	return p.Outer != nil && p.Outer.Src == t.Remote && p.Outer.Dst == t.Local
}

// Refused implements Tunnel: errors of ICMPv6 that quote an outer packet, whole or cut off.
func (t IPIP6) Refused(p *packet.Packet) bool {
	if p.Proto != packet.ICMPv6 || !p.IsError() || p.Quoted == nil || p.Dst != t.Local {
		return false
	}
	return p.Quoted.Dst == t.Remote || p.Quoted.Outer != nil && p.Quoted.Outer.Dst == t.Remote
}

// Derive makes an endpoint of a prefix: the octets of the relay's IPv4 address, written in decimal as in the IPv4
// address, become the last four groups. 2001:db8:1::/64 and 198.51.100.144 give 2001:db8:1:0:198:51:100:144.
func Derive(prefix netip.Prefix, ipaddr netip.Addr) netip.Addr {
	a := prefix.Masked().Addr().As16()
	for i, octet := range ipaddr.As4() {
		group := uint16(octet/100)<<8 | uint16(octet/10%10)<<4 | uint16(octet%10)
		a[8+2*i], a[9+2*i] = byte(group>>8), byte(group)
	}
	return netip.AddrFrom16(a)
}
