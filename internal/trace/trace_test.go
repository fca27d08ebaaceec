package trace

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/packet"
	"github.com/ds4relay/ds4relay/internal/transport"
)

var (
	client = netip.MustParseAddrPort("203.0.113.10:40000")
	public = netip.MustParseAddrPort("198.51.100.144:443")
	host   = netip.MustParseAddrPort("192.168.1.210:8443")
	vps6   = netip.MustParseAddr("2001:db8:6ef9:0:198:51:100:144")
	home6  = netip.MustParseAddr("2001:db8:fdd2:0:198:51:100:144")
)

func relay(role config.Role) *config.Relay {
	return &config.Relay{Name: "home", Role: role, IPAddr: public.Addr(), Device: "wrap1",
		Keep:     []config.PortSet{{Proto: packet.TCP, First: 22, Last: 22}},
		Forwards: []*config.Forward{{DestIP: host.Addr()}}}
}

var (
	onVPS    = &Way{Relay: relay(config.VPS), Access: "eth0", Tunnel: transport.IPIP6{Local: vps6, Remote: home6}}
	onRouter = &Way{Relay: relay(config.Router), Tunnel: transport.IPIP6{Local: home6, Remote: vps6},
		LAN: map[netip.Addr]string{host.Addr(): "br-lan"}}
)

func tcp(t *testing.T, device string, out bool, src, dst netip.AddrPort, flags, ttl uint8, outer ...netip.Addr) Frame {
	t.Helper()
	data := packet.MakeTCP(src, dst, flags, ttl, 1, 1)
	if len(outer) > 0 {
		data = packet.Make4in6(outer[0], outer[1], 64, data)
	}
	p, ok := packet.Decode(data)
	if !ok {
		t.Fatal("a packet that cannot be read")
	}
	return Frame{At: time.Unix(0, 0), Device: device, Out: out, Packet: p}
}

// follow returns the steps that frames are told as.
func follow(f *Follower, frames []Frame) (steps []Step) {
	for _, frame := range frames {
		for _, event := range f.Frame(frame) {
			steps = append(steps, event.Step)
		}
	}
	return steps
}

func same(t *testing.T, got []Step, want ...Step) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%q, want %q", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("step %d: %q, want %q", i, got[i], want[i])
		}
	}
}

// wayOnVPS is a connection's first packet and the answer.
func wayOnVPS(t *testing.T) []Frame {
	return []Frame{
		tcp(t, "eth0", false, client, public, packet.SYN, 60),
		tcp(t, "wrap1", true, client, host, packet.SYN, 59),
		tcp(t, "eth0", true, client, host, packet.SYN, 59, vps6, home6),
		tcp(t, "eth0", false, host, client, packet.SYN|packet.ACK, 63, home6, vps6),
		tcp(t, "wrap1", false, host, client, packet.SYN|packet.ACK, 63),
		tcp(t, "eth0", true, public, client, packet.SYN|packet.ACK, 62),
	}
}

func TestVPS(t *testing.T) {
	f := New([]*Way{onVPS}, netip.Addr{})
	other := netip.MustParseAddrPort("203.0.113.99:1000")
	steps := follow(f, append([]Frame{
		tcp(t, "eth0", false, other, netip.MustParseAddrPort("198.51.100.144:22"), packet.SYN, 60), // kept
		// Another address of the VPS.
		tcp(t, "eth0", false, other, netip.MustParseAddrPort("198.51.100.9:443"), packet.SYN, 60),
	}, wayOnVPS(t)...))
	same(t, steps, FromInternet, Translated, ToPeer, FromPeer, OutOfTunnel, ToInternet)
	if f.End() != "" {
		t.Errorf("a connection that goes both ways: %s", f.End())
	}
	if more := follow(f, []Frame{tcp(t, "eth0", false, other, public, packet.SYN, 60),
		tcp(t, "eth0", false, netip.AddrPortFrom(client.Addr(), 40001), public, packet.SYN, 60)}); len(more) != 0 {
		t.Errorf("other connections: %q", more)
	}
}

func TestRouter(t *testing.T) {
	f := New([]*Way{onRouter}, client.Addr())
	same(t, follow(f, []Frame{
		// Another client.
		tcp(t, "wan", false, netip.MustParseAddrPort("203.0.113.99:1000"), host, packet.SYN, 59, vps6, home6),
		tcp(t, "wan", false, client, host, packet.SYN, 59, vps6, home6),
		tcp(t, "wrap1", false, client, host, packet.SYN, 59),
		tcp(t, "br-lan", true, client, host, packet.SYN, 58),
		tcp(t, "br-lan", false, host, client, packet.SYN|packet.ACK, 64),
		tcp(t, "ds-wan6_4", true, host, client, packet.SYN|packet.ACK, 63),
	}), FromPeer, OutOfTunnel, ToHost, FromHost, Astray)
	if end := f.End(); !strings.Contains(end, "does not go by the tunnel") {
		t.Errorf("an answer that goes astray: %q", end)
	}
}

// TestEnd: where a connection stops is said for each step after which nothing comes.
func TestEnd(t *testing.T) {
	whole := wayOnVPS(t)
	for n, want := range map[int]string{
		1: `It stops after "from the internet", on this machine: no packet was seen "into the tunnel, DNAT done".`,
		2: `It stops after "into the tunnel, DNAT done", on this machine: no packet was seen "in IPv6, to the ` +
			`other end".`, 3: `It stops after "in IPv6, to the other end", on the way, or at the other end: no ` +
			`packet was seen "in IPv6, from the other end".`, 4: `no packet was seen "out of the tunnel".`,
		5: `no packet was seen "to the internet".`,
	} {
		f := New([]*Way{onVPS}, netip.Addr{})
		follow(f, whole[:n])
		if end := f.End(); !strings.Contains(end, want) {
			t.Errorf("after %d steps: %q, want %q", n, end, want)
		}
	}
	f := New([]*Way{onVPS}, netip.Addr{})
	same(t, follow(f, []Frame{whole[0], tcp(t, "eth0", true, public, client, packet.RST, 64)}), FromInternet, ByItself)
}

// TestErrors: an ICMPv6 error about the tunnel's packet, and an ICMP error about the client's, belong to the
// connection.
func TestErrors(t *testing.T) {
	f := New([]*Way{onVPS}, netip.Addr{})
	frames := wayOnVPS(t)[:3]
	outer := packet.Make4in6(vps6, home6, 64, packet.MakeTCP(client, host, packet.SYN, 59, 1, 0))
	data := packet.Make4in6(home6, vps6, 64, append([]byte{packet.Unreachable6, 4, 0, 0, 0, 0, 0, 0}, outer...))
	data[6] = packet.ICMPv6
	refused, _ := packet.Decode(data)
	frames = append(frames, Frame{Device: "eth0", Packet: refused})
	unreachable, _ := packet.Decode(packet.Make4(netip.MustParseAddr("192.168.1.1"), client.Addr(), packet.ICMP, 64,
		append([]byte{packet.Unreachable, 1, 0, 0, 0, 0, 0, 0}, packet.MakeTCP(client, host, packet.SYN, 58, 1, 0)...)))
	frames = append(frames, Frame{Device: "wrap1", Packet: unreachable})
	same(t, follow(f, frames), FromInternet, Translated, ToPeer, Refused, OutOfTunnel)
	if text := Describe(&refused); !strings.Contains(text, "no tunnel for it (port unreachable)") ||
		!strings.Contains(text, "about: 203.0.113.10:40000 > 192.168.1.210:8443") {
		t.Errorf("%s", text)
	}
}

func TestLine(t *testing.T) {
	frame := tcp(t, "eth0", true, client, host, packet.SYN, 59, vps6, home6)
	event := Event{After: 41 * time.Microsecond, Step: ToPeer, Frame: frame}
	const want = "    0.041 ms  eth0        out  in IPv6, to the other end    " +
		"203.0.113.10:40000 > 192.168.1.210:8443 tcp SYN, ttl 59, 80 bytes"
	if event.String() != want {
		t.Errorf("%s\nwant\n%s", event, want)
	}
}

// outer is a packet of WireGuard on the wire that has an inner packet of a size, or a message of another type.
func outer(t *testing.T, device string, out bool, src, dst netip.AddrPort, kind byte, inner int) Frame {
	t.Helper()
	payload := make([]byte, transport.Padded(inner, 1420))
	payload[0] = kind
	p, ok := packet.Decode(packet.MakeUDP(src, dst, 64, payload))
	if !ok {
		t.Fatal("a packet that cannot be read")
	}
	return Frame{At: time.Unix(0, 0), Device: device, Out: out, Packet: p}
}

// TestWireGuard: of the encrypted packets those count that the connection's are in: not keepalives, handshakes, and
// those of other sizes.
func TestWireGuard(t *testing.T) {
	here, there := netip.AddrPortFrom(public.Addr(), 51846), netip.MustParseAddrPort("192.0.2.7:40123")
	r := relay(config.VPS)
	r.Transport = config.WireGuard
	r.Keep = append(r.Keep, config.PortSet{Proto: packet.UDP, First: 51846, Last: 51846})
	w := &Way{Relay: r, Access: "eth0", Tunnel: transport.WireGuard{ListenPort: 51846}, MTU: 1420, Remote: there}
	f := New([]*Way{w}, netip.Addr{})
	frames := []Frame{
		outer(t, "eth0", false, there, here, transport.Data, 60),
		tcp(t, "eth0", false, client, public, packet.SYN, 60),
		outer(t, "eth0", true, here, there, transport.Data, 40), // of another connection
		tcp(t, "wrap1", true, client, host, packet.SYN, 59),
		outer(t, "eth0", true, here, there, transport.Response, 40),
		outer(t, "eth0", true, here, there, transport.Data, 0), // keepalive
		outer(t, "eth0", true, here, there, transport.Data, 40),
		outer(t, "eth0", false, there, here, transport.Data, 0),
		outer(t, "eth0", false, there, here, transport.Initiation, 40),
		outer(t, "eth0", false, there, here, transport.Data, 1420),
		outer(t, "eth0", false, there, here, transport.Data, 40),
		tcp(t, "wrap1", false, host, client, packet.SYN|packet.ACK, 63),
		tcp(t, "eth0", true, public, client, packet.SYN|packet.ACK, 62),
	}
	same(t, follow(f, frames), FromInternet, Translated, ToPeerUDP, FromPeerUDP, OutOfTunnel, ToInternet)
	if end := f.End(); end != "" {
		t.Errorf("a connection that goes both ways: %s", end)
	}
	f = New([]*Way{w}, netip.Addr{})
	follow(f, frames[:7])
	if end := f.End(); !strings.Contains(end, `It stops after "in UDP, to the other end", on the way`) {
		t.Errorf("without an answer: %q", end)
	}

	atHome := &Way{Relay: relay(config.Router), Tunnel: transport.WireGuard{Remote: here}, MTU: 1420, Remote: here,
		LAN: map[netip.Addr]string{host.Addr(): "br-lan"}}
	atHome.Relay.Transport = config.WireGuard
	near := netip.MustParseAddrPort("192.168.178.2:40123")
	f = New([]*Way{atHome}, netip.Addr{})
	sent := outer(t, "wan", true, near, here, transport.Data, 40)
	refused, _ := packet.Decode(packet.Make4(here.Addr(), near.Addr(), packet.ICMP, 64, append([]byte{
		packet.Unreachable, 3, 0, 0, 0, 0, 0, 0}, packet.MakeUDP(near, here, 64, []byte{transport.Data})...)))
	came := outer(t, "wan", false, here, near, transport.Data, 40)
	came.At = time.Unix(-1, 0)
	frames = []Frame{came, tcp(t, "wrap1", false, client, host, packet.SYN, 59),
		tcp(t, "br-lan", true, client, host, packet.SYN, 58),
		tcp(t, "br-lan", false, host, client, packet.SYN|packet.ACK, 64),
		tcp(t, "wrap1", true, host, client, packet.SYN|packet.ACK, 63), sent, {Device: "wan", Packet: refused}}
	same(t, follow(f, frames), FromPeerUDP, OutOfTunnel, ToHost, FromHost, IntoTunnel, ToPeerUDP, Refused)
	const want = "        0.000 ms  wan         out  in UDP, to the other end     " +
		"192.168.178.2:40123 > 198.51.100.144:51846 udp, ttl 64, 108 bytes, encrypted"
	if got := (Event{Step: ToPeerUDP, Frame: sent}).String(); "    "+got != want {
		t.Errorf("%q\nwant\n%q", got, want)
	}
	for way, want := range map[*Way]string{w: "relay home (vps), WireGuard; 192.0.2.7:40123 is the other end",
		onRouter: "relay home (router), " + home6.String() + " is here, " + vps6.String() + " is the other end"} {
		if got := way.Ends(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
