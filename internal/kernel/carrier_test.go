//go:build !openwrt

package kernel

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// TestWireguardPeer reads a peer as the kernel writes it: the endpoint is a sockaddr, and networks are nested twice.
func TestWireguardPeer(t *testing.T) {
	network := func(prefix string) *nl.RtAttr {
		p := netip.MustParsePrefix(prefix)
		one := nl.NewRtAttr(unix.NLA_F_NESTED, nil)
		one.AddRtAttr(wgAllowedAddr, p.Addr().AsSlice())
		one.AddRtAttr(wgAllowedBits, nl.Uint8Attr(uint8(p.Bits())))
		return one
	}
	networks := nl.NewRtAttr(wgAllowedIPs|unix.NLA_F_NESTED, nil)
	for _, prefix := range []string{"10.0.0.0/24", "::/0", "2001:db8:fdd2::/56"} {
		networks.AddChild(network(prefix))
	}
	ipv4 := append(nl.Uint16Attr(unix.AF_INET), 0xca, 0x6c, 203, 0, 113, 10, 0, 0, 0, 0, 0, 0, 0, 0)
	ipv6 := append(nl.Uint16Attr(unix.AF_INET6), 0xca, 0x6c, 0, 0, 0, 0)
	ipv6 = append(append(ipv6, netip.MustParseAddr("2001:db8::7").AsSlice()...), 0, 0, 0, 0)
	for _, c := range []struct {
		endpoint  []byte
		keepalive uint16
		want      string
	}{
		{ipv4, 0, "203.0.113.10:51820"},
		{ipv6, 25, "[2001:db8::7]:51820"},
		{nil, 0, "invalid AddrPort"},
	} {
		data := networks.Serialize()
		if c.endpoint != nil {
			data = append(data, nl.NewRtAttr(wgEndpoint, c.endpoint).Serialize()...)
		}
		data = append(data, nl.NewRtAttr(wgKeepalive, nl.Uint16Attr(c.keepalive)).Serialize()...)
		p, err := wireGuardPeer(data)
		if err != nil || p.Endpoint.String() != c.want || p.Keepalive != int(c.keepalive) ||
			allowedText(p.Allowed) != "10.0.0.0/24,::/0,2001:db8:fdd2::/56" {
			t.Errorf("%s: %+v, %v", c.want, p, err)
		}
	}
	if _, err := wireGuardPeer([]byte{1, 0, 0, 0}); err == nil {
		t.Error("a truncated attribute is taken")
	}
}
