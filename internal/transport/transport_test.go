package transport

import (
	"net/netip"
	"testing"
)

// TestOpening: an opening as nft and iptables read it, whole and in parts.
func TestOpening(t *testing.T) {
	here, there := netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("2001:db8:2::2")
	tunnel := IPIP6{Local: here, Remote: there, EncapLimit: NoEncapLimit}.Opening()
	port := Opening{Proto: 17, Port: 51846, To: netip.MustParseAddr("198.51.100.144")}
	for _, c := range []struct {
		opening             Opening
		nft, program, match string
	}{
		{tunnel, "ip6 saddr 2001:db8:2::2 ip6 daddr 2001:db8:1::1 meta l4proto 4", "ip6tables", "-s 2001:db8:2::2/128 -d 2001:db8:1::1/128 -p 4"},
		{tunnel.Anywhere(), "ip6 saddr 2001:db8:2::2 meta l4proto 4", "ip6tables", "-s 2001:db8:2::2/128 -p 4"},
		{tunnel.Anywhere().Outwards(), "ip6 daddr 2001:db8:2::2 meta l4proto 4", "ip6tables", "-d 2001:db8:2::2/128 -p 4"},
		{port, "ip daddr 198.51.100.144 meta l4proto 17 th dport 51846", "iptables", "-d 198.51.100.144/32 -p 17 --dport 51846"},
	} {
		if got := c.opening.Nft(); got != c.nft {
			t.Errorf("nft: %q, want %q", got, c.nft)
		}
		if program, match := c.opening.IPTables(); program != c.program || match != c.match {
			t.Errorf("iptables: %s %q, want %s %q", program, match, c.program, c.match)
		}
	}
}

// TestIPIP6: tunnels are compared by value, and each has its overhead.
func TestIPIP6(t *testing.T) {
	a := IPIP6{Local: netip.MustParseAddr("2001:db8:1::1"), Remote: netip.MustParseAddr("2001:db8:2::2"), EncapLimit: NoEncapLimit, TTL: 64}
	b := a
	if Tunnel(a) != Tunnel(b) || a.Overhead() != 40 {
		t.Errorf("%+v is not %+v, or has an overhead of %d", a, b, a.Overhead())
	}
	if b.EncapLimit = 4; Tunnel(a) == Tunnel(b) || b.Overhead() != 48 {
		t.Errorf("%+v is %+v, or has an overhead of %d", a, b, b.Overhead())
	}
	const want = "type ip6tnl mode ipip6 local 2001:db8:1::1 remote 2001:db8:2::2 encaplimit 4 hoplimit 64"
	if got := b.Arguments(); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
