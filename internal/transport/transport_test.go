package transport

import (
	"net/netip"
	"testing"

	"github.com/ds4relay/ds4relay/internal/packet"
)

// TestOpening: an opening in the syntax of nft and iptables, complete and partial.
func TestOpening(t *testing.T) {
	here, there := netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("2001:db8:2::2")
	tunnel := IPIP6{Local: here, Remote: there, EncapLimit: NoEncapLimit}.Opening()
	port := Opening{Proto: 17, Port: 51846, To: netip.MustParseAddr("198.51.100.144")}
	for _, c := range []struct {
		opening             Opening
		nft, program, match string
	}{
		{tunnel, "ip6 saddr 2001:db8:2::2 ip6 daddr 2001:db8:1::1 meta l4proto 4", "ip6tables",
			"-s 2001:db8:2::2/128 -d 2001:db8:1::1/128 -p 4"},
		{tunnel.Anywhere(), "ip6 saddr 2001:db8:2::2 meta l4proto 4", "ip6tables", "-s 2001:db8:2::2/128 -p 4"},
		{tunnel.Anywhere().Outwards(), "ip6 daddr 2001:db8:2::2 meta l4proto 4", "ip6tables",
			"-d 2001:db8:2::2/128 -p 4"},
		{port, "ip daddr 198.51.100.144 meta l4proto 17 th dport 51846", "iptables",
			"-d 198.51.100.144/32 -p 17 --dport 51846"},
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
	a := IPIP6{Local: netip.MustParseAddr("2001:db8:1::1"), Remote: netip.MustParseAddr("2001:db8:2::2"),
		EncapLimit: NoEncapLimit, TTL: 64}
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

// TestWire: a tunnel recognises its own packets, and errors about them.
func TestWire(t *testing.T) {
	here, there := netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("2001:db8:2::2")
	hop, stranger := netip.MustParseAddr("2001:db8:f::1"), netip.MustParseAddr("2001:db8:3::3")
	tunnel, back := IPIP6{Local: here, Remote: there}, IPIP6{Local: there, Remote: here}
	inner := packet.MakeEcho(netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("192.168.1.210"), 9, 1, 1, 8)
	refusal := func(from, to netip.Addr, quoted []byte) []byte {
		header := []byte{0x60, 0, 0, 0, 0, byte(8 + len(quoted)), packet.ICMPv6, 64}
		header = append(append(header, from.AsSlice()...), to.AsSlice()...)
		return append(append(header, packet.Unreachable6, 4, 0, 0, 0, 0, 0, 0), quoted...)
	}
	sent := back.Encapsulate(inner)
	for _, c := range []struct {
		name                     string
		data                     []byte
		sends, receives, refused bool
	}{
		{"to the other end", sent, true, false, false},
		{"from the other end", tunnel.Encapsulate(inner), false, true, false},
		{"of another tunnel here", IPIP6{Local: here, Remote: stranger}.Encapsulate(inner), false, false, false},
		{"of another tunnel there", IPIP6{Local: stranger, Remote: here}.Encapsulate(inner), false, false, false},
		{"without a tunnel", inner, false, false, false},
		{"refused on the way", refusal(hop, here, sent), false, false, true},
		{"refused on the way, cut off", refusal(hop, here, sent[:48]), false, false, true},
		{"refused, of another tunnel", refusal(hop, here, IPIP6{Local: stranger, Remote: here}.Encapsulate(inner)),
			false, false, false},
		{"refused, of another machine", refusal(hop, stranger, sent), false, false, false},
	} {
		p, ok := packet.Decode(c.data)
		if !ok {
			t.Fatalf("%s: no packet", c.name)
		}
		sends, receives, refused := tunnel.Sends(&p), tunnel.Receives(&p), tunnel.Refused(&p)
		if sends != c.sends || receives != c.receives || refused != c.refused {
			t.Errorf("%s: sends %v, receives %v, refused %v; want %v, %v, %v", c.name, sends, receives, refused,
				c.sends, c.receives, c.refused)
		}
		if p.Outer != nil && (p.Dst.String() != "192.168.1.210" || p.TTL != 9) {
			t.Errorf("%s: not the packet that was put in: %+v", c.name, p)
		}
	}
}
