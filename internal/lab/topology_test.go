//go:build lab && linux

package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m) }

const patience = 5 * time.Second

func build(t *testing.T, opts Options) *Net {
	t.Helper()
	start := time.Now()
	n, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("built in %v", time.Since(start))
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// serve answers each connection with the client's address.
func serve(t *testing.T, h *Host, port int) {
	t.Helper()
	listener, err := h.Listen("tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap())
			conn.Close()
		}
	}()
}

// ask returns the client's address as the server sees it.
func ask(h *Host, server netip.Addr, port uint16, timeout time.Duration) (string, error) {
	conn, err := h.Dial("tcp", netip.AddrPortFrom(server, port).String(), timeout)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(timeout))
	answer, err := io.ReadAll(conn)
	return string(answer), err
}

func TestReachability(t *testing.T) {
	n := build(t, Options{})
	for _, h := range []*Host{n.Client, n.VPS, n.Host, n.Host2, n.LAN2} {
		serve(t, h, 8080)
	}
	for _, test := range []struct {
		name     string
		from     *Host
		to, seen netip.Addr
	}{
		{"client to vps, IPv4", n.Client, VPSIPv4, ClientIPv4},
		{"client to vps, IPv6", n.Client, VPSIPv6, ClientIPv6},
		{"client to host, IPv6", n.Client, HostIPv6, ClientIPv6},
		{"vps to host2, IPv6", n.VPS, Host2IPv6, VPSIPv6},
		{"host to client by DS-Lite", n.Host, ClientIPv4, CarrierIPv4},
		{"lan2 to vps by DS-Lite", n.LAN2, VPSIPv4, CarrierIPv4},
		{"host to client, IPv6", n.Host, ClientIPv6, HostIPv6},
		{"host to host2", n.Host, Host2IPv4, HostIPv4},
		{"host to lan2", n.Host, LAN2IPv4, HostIPv4},
	} {
		t.Run(test.name, func(t *testing.T) {
			seen, err := ask(test.from, test.to, 8080, patience)
			if err != nil {
				t.Fatal(err)
			}
			if seen != test.seen.String() {
				t.Errorf("server sees %s, want %s", seen, test.seen)
			}
		})
	}
	t.Run("client cannot reach the home over IPv4", func(t *testing.T) {
		// This holds even if the internet has a route there.
		if err := n.Core.route("192.168.0.0/16", CarrierIPv4.String(), "carrier"); err != nil {
			t.Fatal(err)
		}
		for _, to := range []netip.Addr{HostIPv4, CarrierIPv4} {
			if seen, err := ask(n.Client, to, 8080, 2*time.Second); err == nil {
				t.Errorf("%v answers: %s", to, seen)
			}
		}
	})
}

func TestWithoutDSLite(t *testing.T) {
	n := build(t, Options{NoIPv4Default: true})
	serve(t, n.Client, 8080)
	if seen, err := ask(n.Host, ClientIPv4, 8080, 2*time.Second); !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("host to client over IPv4: %q, %v; want network unreachable", seen, err)
	}
	if _, err := ask(n.Host, ClientIPv6, 8080, patience); err != nil {
		t.Errorf("host to client over IPv6: %v", err)
	}
}

func TestPathMTU(t *testing.T) {
	n := build(t, Options{PathMTU: 1400})
	capture, err := Capture(n.Client, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := n.Client.Dial("udp", netip.AddrPortFrom(HostIPv6, 9).String(), patience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(make([]byte, 1450)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "packet too big with MTU 1400", func() bool {
		for _, p := range capture.Packets() {
			if p.Proto == syscall.IPPROTO_ICMPV6 && p.ICMPType == 2 && p.ICMPMTU == 1400 && !p.Outgoing {
				return true
			}
		}
		return false
	})
	capture.Stop()
}

func TestAccessMTU(t *testing.T) {
	n := build(t, Options{AccessMTU: 1492})
	link, err := n.Router.Netlink.LinkByName(DSLiteDevice)
	if err != nil {
		t.Fatal(err)
	}
	if got := link.Attrs().MTU; got != 1452 {
		t.Errorf("MTU of %s is %d, want 1452", DSLiteDevice, got)
	}
}

func TestCapture(t *testing.T) {
	n := build(t, Options{})
	serve(t, n.Client, 8080)
	wan, err := Capture(n.Router, WANDevice)
	if err != nil {
		t.Fatal(err)
	}
	inner, err := Capture(n.Router, DSLiteDevice)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ask(n.Host, ClientIPv4, 8080, patience); err != nil {
		t.Fatal(err)
	}
	isSYN := func(p Packet) bool {
		return p.Outgoing && p.Src == HostIPv4 && p.Dst == ClientIPv4 && p.DstPort == 8080 && p.TCPFlags == 2
	}
	outer, plain := find(wan.Stop(), isSYN), find(inner.Stop(), isSYN)
	if outer == nil || plain == nil {
		t.Fatalf("SYN on %s: %v, on %s: %v", WANDevice, outer, DSLiteDevice, plain)
	}
	if plain.IPv6 != nil || plain.TCPMSS != 1460 {
		t.Errorf("in the tunnel: %+v", plain)
	}
	h := outer.IPv6
	if h == nil || h.Src != WANIPv6 || h.Dst != CarrierIPv6 || h.NextHeader != 4 || h.HasDstOpts {
		t.Errorf("outer header: %+v", h)
	}
	if outer.WireLen != plain.WireLen+outerHeader || outer.Len != plain.Len {
		t.Errorf("lengths: %d/%d outside, %d/%d inside", outer.WireLen, outer.Len, plain.WireLen, plain.Len)
	}
}

func TestInject(t *testing.T) {
	n := build(t, Options{})
	capture, err := Capture(n.Router, WANDevice)
	if err != nil {
		t.Fatal(err)
	}
	forged := netip.MustParseAddr("2001:db8:bad::1")
	src, dst := netip.MustParseAddrPort("10.9.8.7:1000"), netip.AddrPortFrom(HostIPv4, 2000)
	if err := Send4in6(n.Client, forged, WANIPv6, UDP4(src, dst, []byte("knock"))); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the forged packet", func() bool {
		return find(capture.Packets(), func(p Packet) bool {
			return p.IPv6 != nil && p.IPv6.Src == forged && p.Src == src.Addr() && p.DstPort == 2000 &&
				bytes.Equal(p.Payload, []byte("knock"))
		}) != nil
	})
	capture.Stop()

	listener, err := n.Client.ListenPacket("udp4", ":2000")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for _, test := range []struct {
		host *Host
		dev  string
		seen netip.Addr
	}{{n.Router, DSLiteDevice, CarrierIPv4}, {n.VPS, "eth0", src.Addr()}} {
		if err := SendRaw4(test.host, test.dev,
			UDP4(src, netip.AddrPortFrom(ClientIPv4, 2000), []byte("x"))); err != nil {
			t.Fatal(err)
		}
		listener.SetReadDeadline(time.Now().Add(patience))
		buf := make([]byte, 10)
		length, from, err := listener.ReadFrom(buf)
		if err != nil {
			t.Fatalf("from %s: %v", test.dev, err)
		}
		if got := from.(*net.UDPAddr).AddrPort().Addr().Unmap(); got != test.seen || length != 1 {
			t.Errorf("from %s: %d bytes from %v, want 1 from %v", test.dev, length, got, test.seen)
		}
	}
}

func TestSnapshot(t *testing.T) {
	n := build(t, Options{RPFilter: 1, RouterFirewall: true})
	serve(t, n.Client, 8080)
	snapshot := func() string {
		t.Helper()
		start := time.Now()
		text, err := n.Router.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d lines in %v", strings.Count(text, "\n"), time.Since(start))
		return text
	}
	before := snapshot()
	for _, want := range []string{
		"ds-wan6_4@NONE", "ip6tnl ipip6 remote 2001:db8:af::1 local 2001:db8:fdd1::2", "encaplimit none",
		"192.168.2.1/24", "2001:db8:fdd2::1/64", "from all lookup main", "default via 2001:db8:fdd1::1 dev wan",
		"chain relay_forward", "net/ipv4/ip_forward = 1",
		"conf wan family 2 number 7 = 1", "conf br-lan family 10 number 24 = 0", // rp_filter, accept_dad
	} {
		if !strings.Contains(before, want) {
			t.Errorf("missing: %s", want)
		}
	}
	if _, err := ask(n.Host, ClientIPv4, 8080, patience); err != nil { // counters and caches
		t.Fatal(err)
	}
	if after := snapshot(); after != before {
		t.Errorf("differs after traffic:\n%s", firstDifference(before, after))
	}
	if err := n.FlushWAN(); err != nil {
		t.Fatal(err)
	}
	if after := snapshot(); after != before {
		t.Errorf("differs after FlushWAN:\n%s", firstDifference(before, after))
	}
	if _, err := ask(n.Host, ClientIPv4, 8080, patience); err != nil {
		t.Errorf("after FlushWAN: %v", err)
	}
	if err := n.Router.Sysctl("net.ipv4.conf.wan.rp_filter", "2"); err != nil {
		t.Fatal(err)
	}
	if snapshot() == before {
		t.Error("a changed sysctl does not show")
	}
}

func TestRouterFirewall(t *testing.T) {
	n := build(t, Options{RouterFirewall: true})
	for _, h := range []*Host{n.Client, n.Host} {
		serve(t, h, 8080)
	}
	if _, err := ask(n.Host, ClientIPv6, 8080, patience); err != nil {
		t.Errorf("out: %v", err)
	}
	if _, err := ask(n.Host, ClientIPv4, 8080, patience); err != nil {
		t.Errorf("out by DS-Lite: %v", err)
	}
	if _, err := ask(n.Client, HostIPv6, 8080, 2*time.Second); err == nil {
		t.Error("the client reaches the host through the firewall")
	}
	if out, err := n.Client.Run("busybox", "ping", "-6", "-c", "1", "-W", "5", HostIPv6.String()); err != nil {
		t.Errorf("ping: %v %s", err, out)
	}
	if err := n.OpenRouterFirewall("wrap1", VPSPrefix); err != nil {
		t.Error(err)
	}
}

// TestClose: Close leaves nothing behind, and the lab can be built again.
func TestClose(t *testing.T) {
	n := build(t, Options{})
	sleep := n.Host.Command("sleep", "100")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := sleep.Wait(); err == nil {
		t.Error("a program outlives its host")
	}
	build(t, Options{})
}

func find(packets []Packet, match func(Packet) bool) *Packet {
	for i := range packets {
		if match(packets[i]) {
			return &packets[i]
		}
	}
	return nil
}

func waitFor(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not seen: %s", what)
		}
	}
}

func firstDifference(a, b string) string {
	was, is := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(was), len(is)) {
		if was[i] != is[i] {
			return "- " + was[i] + "\n+ " + is[i]
		}
	}
	return fmt.Sprintf("%d lines, then %d", len(was), len(is))
}
