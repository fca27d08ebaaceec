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
		inner     string
		endpoint  []byte
		keepalive uint16
		want      wgPeer
	}{
		{"2001:db8:fdd2::1", ipv4, 0, wgPeer{netip.MustParseAddr("203.0.113.10"), false, 56}},
		{"2001:db8:9::1", ipv6, 25, wgPeer{netip.MustParseAddr("2001:db8::7"), true, 0}},
		{"10.0.1.1", nil, 0, wgPeer{bits: -1}},
	} {
		data := networks.Serialize()
		if c.endpoint != nil {
			data = append(data, nl.NewRtAttr(wgEndpoint, c.endpoint).Serialize()...)
		}
		data = append(data, nl.NewRtAttr(wgKeepalive, nl.Uint16Attr(c.keepalive)).Serialize()...)
		if got := wireguardPeer(data, netip.MustParseAddr(c.inner)); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.inner, got, c.want)
		}
	}
	if got := wireguardPeer([]byte{1, 2}, netip.MustParseAddr("10.0.0.1")); got.bits != -1 {
		t.Errorf("no attributes: %+v", got)
	}
}
