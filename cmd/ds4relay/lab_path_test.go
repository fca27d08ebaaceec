//go:build lab

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/lab"
)

// reaches checks everything that the client may do with the home server's public address.
func (r *relay) reaches(t *testing.T) {
	t.Helper()
	seenTCP(t, r.Client, public+":80", client4)
	seenUDP(t, r.Client, public+":5000", client4, 100)
	pings(t, r.Client, public)
}

// TestReversePath tests all combinations of the router's rp_filter, with and without another IPv4 default route, before
// and after the WAN's addresses were set again; each with one kind of egress, the strict filter with both.
func TestReversePath(t *testing.T) {
	for _, filter := range []int{0, 1, 2} {
		for _, noDefault := range []bool{false, true} {
			for i, egress := range []string{"replies", "all"} {
				if filter != 1 && noDefault == (i == filter/2) {
					continue
				}
				t.Run(fmt.Sprintf("rp_filter=%d,no_default=%v,egress=%s", filter, noDefault, egress),
					func(t *testing.T) {
						r := newRelay(t, lab.Options{RPFilter: filter, NoIPv4Default: noDefault},
							forwardAll+"\toption egress '"+egress+"'\n")
						serveTCP(t, r.Host, 80)
						serveUDP(t, r.Host, 5000)
						serveTCP(t, r.Client, 90)
						r.up()
						r.reaches(t)
						switch {
						case egress == "all":
							seenTCP(t, r.Host, client4+":90", public)
						case noDefault:
							refusedTCP(t, r.Host, client4+":90")
						default:
							seenTCP(t, r.Host, client4+":90", natted4)
						}
						if err := r.FlushWAN(); err != nil {
							t.Fatal(err)
						}
						r.reaches(t)
						if out := r.router.do("up"); !strings.Contains(out, "Nothing to do") {
							t.Errorf("up after the WAN's addresses were set anew: %s", out)
						}
					})
			}
		}
	}
}

// TestOnTheWire looks at the packets between VPS and router, and at both ends of the path.
func TestOnTheWire(t *testing.T) {
	for _, limit := range []string{"none", "4"} {
		t.Run("encaplimit="+limit, func(t *testing.T) {
			r := newRelay(t, lab.Options{}, forwardAll)
			option := "\toption encaplimit '" + limit + "'\n"
			r.vps.write(vpsRelay + option + forwardAll)
			r.router.write(routerRelay + option + forwardAll)
			serveTCP(t, r.Host, 80)
			serveUDP(t, r.Host, 5000)
			r.up()
			// The server has no traffic of its own (DNS, time), so all packets on the WAN are ours.
			wan, server, client := capture(t, r.Router, "wan"), capture(t, r.Host, "eth0"), capture(t, r.Client, "eth0")
			r.reaches(t)
			tunnelled := 0
			for _, p := range wan() {
				switch {
				case p.IPv6 == nil:
					t.Errorf("plain IPv4 on the WAN: %+v", p)
				case p.Proto == 58: // neighbour discovery
				case p.Outgoing && (p.IPv6.Src != routerEndpoint || p.IPv6.Dst != vpsEndpoint),
					!p.Outgoing && (p.IPv6.Src != vpsEndpoint || p.IPv6.Dst != routerEndpoint):
					t.Errorf("not between the two endpoints: %+v %+v", p, p.IPv6)
				case limit == "none" && (p.IPv6.NextHeader != 4 || p.IPv6.HasDstOpts), limit != "none" &&
					p.IPv6.EncapLimit != 4:
					t.Errorf("wrong headers for encaplimit %s: %+v %+v", limit, p, p.IPv6)
				default:
					tunnelled++
				}
			}
			if tunnelled < 10 {
				t.Errorf("%d packets went through the tunnel, want at least 10", tunnelled)
			}
			protocols := map[byte]bool{}
			for _, p := range server() {
				if p.IPv6 != nil || p.Src.String() != client4 && p.Dst.String() != client4 {
					continue
				}
				if p.Outgoing && p.Src.String() != home4 || !p.Outgoing &&
					(p.Src.String() != client4 || p.Dst.String() != home4) {
					t.Errorf("the server's packet: %+v", p)
				}
				protocols[p.Proto] = true
			}
			for _, p := range client() {
				if p.IPv6 == nil && !p.Outgoing && p.Src.String() != public {
					t.Errorf("an answer to the client comes from %s, want %s", p.Src, public)
				}
			}
			if !protocols[1] || !protocols[6] || !protocols[17] {
				t.Errorf("the server saw protocols %v, want ICMP, TCP and UDP", protocols)
			}
		})
	}
}

// TestTransfer moves much data and large packets through paths of different MTU.
func TestTransfer(t *testing.T) {
	for _, options := range []lab.Options{{}, {PathMTU: 1400, NoIPv4Default: true}} {
		t.Run(fmt.Sprintf("path=%d,no_default=%v", options.PathMTU, options.NoIPv4Default), func(t *testing.T) {
			r := newRelay(t, options, forwardAll)
			serveUDP(t, r.Host, 5000)
			listener, err := r.Host.Listen("tcp4", ":80")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			const size = 100 << 20
			served := make(chan error, 1)
			go func() {
				served <- func() error {
					conn, err := listener.Accept()
					if err != nil {
						return err
					}
					defer conn.Close()
					conn.SetDeadline(time.Now().Add(time.Minute))
					if err := receives(conn, 1, size); err != nil {
						return fmt.Errorf("up: the server got %w", err)
					}
					_, err = io.CopyN(conn, pattern(0), size)
					return err
				}()
			}()
			r.up()
			conn, err := r.Client.Dial("tcp4", public+":80", patience)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(time.Minute))
			if _, err := io.CopyN(conn, pattern(1), size); err != nil {
				t.Fatal(err)
			}
			conn.(*net.TCPConn).CloseWrite()
			if err := receives(conn, 0, size); err != nil {
				t.Errorf("down: the client got %v", err)
			}
			if err := <-served; err != nil {
				t.Error(err)
			}
			for _, size := range []int{1400, 9000} {
				seenUDP(t, r.Client, public+":5000", client4, size)
			}
		})
	}
}

// TestPathMTU: the client is told about a narrow link on the tunnel's path.
func TestPathMTU(t *testing.T) {
	r := newRelay(t, lab.Options{PathMTU: 1400}, forwardAll)
	r.up()
	client := capture(t, r.Client, "eth0")
	for range 3 {
		r.Client.Run("ping", "-4", "-n", "-M", "do", "-s", "1400", "-c", "1", "-W", "1", public)
	}
	told := 0
	for _, p := range client() {
		if !p.Outgoing && p.Proto == 1 && p.ICMPType == 3 && p.ICMPCode == 4 {
			told = p.ICMPMTU
		}
	}
	if told != 1360 {
		t.Errorf("the client was told an MTU of %d, want 1360 (1400 less the outer header)", told)
	}
	pings(t, r.Client, public)
}

// tooBigFilter is a provider that drops ICMPv6 "packet too big".
const tooBigFilter = `table ip6 provider {
	chain output {
		type filter hook output priority filter;
		icmpv6 type packet-too-big drop
	}
}
`

// TestNarrowPathUnsaid: the path is narrower than both lines, nothing says so, and the senders ignore ICMP. Their
// datagrams pass from the next run of watch on, in both directions; each end measures its own.
func TestNarrowPathUnsaid(t *testing.T) {
	t.Parallel() // it mostly waits
	r := newRelay(t, lab.Options{Prefix: "unsaid-", PathMTU: 1400}, forwardAll)
	for _, h := range []*lab.Host{r.Core, r.ISP} {
		if err := h.NFT(tooBigFilter); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range []*lab.Host{r.Client, r.Host} {
		if err := h.Sysctl("net.ipv4.ip_no_pmtu_disc", "1"); err != nil {
			t.Fatal(err)
		}
		if err := h.NFT("table ip deaf { chain input { type filter hook input priority filter; icmp type " +
			"destination-unreachable icmp code frag-needed drop; }; }"); err != nil {
			t.Fatal(err)
		}
	}
	const size = 1472
	serveUDP(t, r.Host, 5000)
	r.up()
	conn, err := r.Client.Dial("udp4", public+":5000", patience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	wan := capture(t, r.Router, "wan")
	if _, err := conn.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	lab.Settle()
	for _, p := range wan() {
		if p.IPv6 != nil && p.Len > 1000 {
			t.Fatalf("a large packet passes before anything is measured: %+v", p)
		}
	}
	mtu := func(e *end) string {
		e.t.Helper()
		out, err := e.host.Run("ip", "-o", "link", "show", "dev", "wrap1")
		if err != nil {
			e.t.Fatal(err)
		}
		_, after, _ := strings.Cut(out, " mtu ")
		number, _, _ := strings.Cut(after, " ")
		return number
	}
	uplink := map[*end]string{r.vps: "eth0", r.router: "wan"}
	t.Run("measured", func(t *testing.T) {
		r.atOnce(t, func(t *testing.T, e *end) {
			e.do("watch")
			if got := mtu(e); got != "1360" {
				t.Errorf("the tunnel's MTU is %s, want 1360", got)
			}
			if out := e.do("up"); !strings.Contains(out, "Nothing to do") {
				t.Errorf("up after that: %s", out)
			}
			e.do("status")
			packets := capture(t, e.host, uplink[e])
			e.do("watch")
			sent := 0
			for _, p := range packets() {
				if p.IPv6 != nil && p.Outgoing && p.TTL == 1 {
					sent++
				}
			}
			// The home also reminds firewalls in front of it.
			if want := map[*end]int{r.vps: 1, r.router: 2}[e]; sent != want {
				t.Errorf("%d packets were sent in a quiet minute, want %d", sent, want)
			}
		})
	})
	seenUDP(t, r.Client, public+":5000", client4, size)
	sendsMegabyte(t, r.Host, r.VPS, ":91", public+":91", true)

	// An hour later a path that has become wider counts, and down forgets what was measured.
	r.vps.t, r.router.t = t, t
	for host, device := range map[*lab.Host]string{r.Core: "isp", r.ISP: "core"} {
		if out, err := host.Run("ip", "link", "set", device, "mtu", "1500"); err != nil {
			t.Fatal(err, out)
		}
	}
	r.vps.do("watch")
	if got := mtu(r.vps); got != "1360" {
		t.Errorf("the tunnel's MTU is %s within the hour, want 1360", got)
	}
	record := filepath.Join(r.vps.runDir(), kernel.PathPrefix+"home")
	data, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	hourAgo := regexp.MustCompile(` \d+"`).ReplaceAll(data, []byte(` 1"`))
	if err := os.WriteFile(record, hourAgo, 0o600); err != nil {
		t.Fatal(err)
	}
	r.vps.do("watch")
	if got := mtu(r.vps); got != "1460" {
		t.Errorf("the tunnel's MTU is %s an hour later, want 1460", got)
	}
	if _, err := os.Stat(record); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the record of a path that is not narrow: %v", err)
	}
	seenUDP(t, r.Client, public+":5000", client4, size)
	r.router.do("down")
	if _, err := os.Stat(filepath.Join(r.router.runDir(), kernel.PathPrefix+"home")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the record after down: %v", err)
	}
}

// TestErrorReachesHost: the first packet that does not fit tells the host about a narrow link, even if the router has
// no other IPv4 route.
func TestErrorReachesHost(t *testing.T) {
	r := newRelay(t, lab.Options{PathMTU: 1400, NoIPv4Default: true}, forwardAll)
	r.up()
	server, err := r.Host.ListenPacket("udp4", ":5000")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	client, err := r.Client.Dial("udp4", public+":5000", patience)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	host := capture(t, r.Host, "eth0")
	if _, err := client.Write([]byte("how much?")); err != nil {
		t.Fatal(err)
	}
	server.SetDeadline(time.Now().Add(patience))
	_, from, err := server.ReadFrom(make([]byte, 100))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.WriteTo(make([]byte, 1420), from); err != nil {
		t.Fatal(err)
	}
	lab.Settle()
	told := 0
	for _, p := range host() {
		if !p.Outgoing && p.Proto == 1 && p.ICMPType == 3 && p.ICMPCode == 4 {
			told = p.ICMPMTU
		}
	}
	if told != 1360 {
		t.Errorf("the host was told an MTU of %d, want 1360", told)
	}
}

// pattern is an endless stream with a long period.
type patternReader struct {
	block []byte
	at    int
}

func pattern(seed uint32) *patternReader {
	block := make([]byte, patternLength)
	for i := range block {
		seed = seed*1664525 + 1013904223
		block[i] = byte(seed >> 24)
	}
	return &patternReader{block: block}
}

// patternLength is a prime: a lost or repeated packet changes the pattern.
const patternLength = 65537

func (p *patternReader) Read(b []byte) (n int, err error) {
	for n < len(b) {
		copied := copy(b[n:], p.block[p.at:])
		n += copied
		p.at = (p.at + copied) % patternLength
	}
	return n, nil
}

// receives reads a pattern of that size to the end, and compares each byte.
func receives(r io.Reader, seed uint32, size int) error {
	want, expected, buffer := pattern(seed), make([]byte, 1<<16), make([]byte, 1<<16)
	for total := 0; ; {
		n, err := r.Read(buffer)
		want.Read(expected[:n])
		if !bytes.Equal(buffer[:n], expected[:n]) {
			return fmt.Errorf("other bytes behind %d", total)
		}
		switch total += n; {
		case err == io.EOF && total == size:
			return nil
		case err != nil:
			return fmt.Errorf("%d of %d bytes: %w", total, size, err)
		}
	}
}

// TestNarrowPathFromEnds: packets that the router and the VPS themselves send into the tunnel find the path's MTU on a
// path narrower than both lines, without an earlier forwarded packet. The VPS's programs may use the public address;
// what they send there themselves finds it once it is measured (TestNarrowPathUnsaid).
func TestNarrowPathFromEnds(t *testing.T) {
	const router4 = "192.168.1.1"
	own := strings.NewReplacer("192.168.1.211", router4, "8080", "8080-8081", "'80'", "'80-81'").Replace(forwardWeb) +
		forwardAll
	r := newRelay(t, lab.Options{PathMTU: 1400}, own)
	r.up()
	for _, c := range []struct {
		listener, client *lab.Host
		port, address    string
		clientSends      bool
	}{
		{r.Router, r.Client, ":80", public + ":8080", false},
		{r.Host, r.VPS, ":90", "192.168.1.210:90", true},
		{r.Host, r.VPS, ":91", public + ":91", false},
		{r.Router, r.VPS, ":81", public + ":8081", false},
	} {
		sendsMegabyte(t, c.listener, c.client, c.port, c.address, c.clientSends)
	}
}

// sendsMegabyte sends a megabyte over a connection.
func sendsMegabyte(t *testing.T, server, client *lab.Host, port, address string, clientSends bool) {
	t.Helper()
	const size = 1 << 20
	listener, err := server.Listen("tcp4", port)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	to, err := client.Dial("tcp4", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	from, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	if clientSends {
		from, to = to, from
	}
	from.SetDeadline(time.Now().Add(patience))
	to.SetDeadline(time.Now().Add(patience))
	go func() {
		io.CopyN(from, pattern(1), size)
		from.Close()
	}()
	if n, err := io.Copy(io.Discard, to); err != nil || n != size {
		t.Errorf("%s: %d bytes of %d came: %v", address, n, size, err)
	}
}

// TestEgress: connections that the home's hosts open themselves.
func TestEgress(t *testing.T) {
	for egress, seen := range map[string]string{"replies": natted4, "all": public} {
		t.Run(egress, func(t *testing.T) {
			r := newRelay(t, lab.Options{}, forwardAll+"\toption egress '"+egress+"'\n")
			serveTCP(t, r.Client, 90)
			serveTCP(t, r.LAN2, 90)
			serveTCP(t, r.Host2, 90)
			serveTCP(t, r.Host, 80)
			r.up()
			tunnel := capture(t, r.Router, "wrap1")
			seenTCP(t, r.Host, client4+":90", seen)
			seenTCP(t, r.Host2, client4+":90", natted4)
			seenTCP(t, r.Host, "192.168.2.20:90", home4)
			seenTCP(t, r.Host, "192.168.1.211:90", home4)
			seenTCP(t, r.LAN2, home4+":80", "192.168.2.20")
			for _, p := range tunnel() {
				if egress == "replies" || p.Src.String() != client4 && p.Dst.String() != client4 {
					t.Errorf("in the tunnel: %+v", p)
				}
			}
			if egress != "replies" {
				return
			}
			r.vps.do("down")
			refusedTCP(t, r.Client, public+":80")
			seenTCP(t, r.Host, client4+":90", natted4)
			if _, err := r.Router.Run("ip", "link", "set", "wrap1", "down"); err != nil {
				t.Fatal(err)
			}
			seenTCP(t, r.Host, client4+":90", natted4)
		})
	}
}

// TestRouterItself forwards to the router's own address, to a service that runs there. Without another IPv4 route, its
// answers and its errors about hosts that are off need a route too.
func TestRouterItself(t *testing.T) {
	const router4 = "192.168.1.1"
	for noDefault, egress := range map[bool]string{false: "all", true: "replies"} {
		t.Run(fmt.Sprintf("no_default=%v,egress=%s", noDefault, egress), func(t *testing.T) {
			own := strings.NewReplacer("192.168.1.211", router4).Replace(forwardWeb) + "\toption egress '" + egress +
				"'\n\nconfig forward 'ping'\n\toption proto 'icmp'\n\toption dest_ip '" + router4 + "'\n"
			r := newRelay(t, lab.Options{NoIPv4Default: noDefault}, own)
			serveTCP(t, r.Router, 80)
			r.up()
			tunnel := capture(t, r.Router, "wrap1")
			seenTCP(t, r.Client, public+":8080", client4)
			pings(t, r.Client, public)
			if len(tunnel()) == 0 {
				t.Error("nothing went through the tunnel")
			}
			seenTCP(t, r.Host2, router4+":80", "192.168.1.211")
			seenTCP(t, r.Host2, public+":8080", "192.168.1.211")
			for _, e := range []*end{r.vps, r.router} {
				if status, out, _ := e.try("doctor"); status != 0 {
					t.Errorf("doctor, %s: exit status %d\n%s", e.host.Name, status, out)
				}
			}
			if noDefault {
				refusedTCP(t, r.Router, client4+":90")
			}

			off := own + "\nconfig forward 'off'\n\toption proto 'tcp'\n\toption src_dport '81'\n\toption dest_ip " +
				"'192.168.1.250'\n"
			r.vps.write(vpsRelay + off)
			r.router.write(routerRelay + off)
			r.up()
			if _, err := r.Client.Dial("tcp4", public+":81", 10*time.Second); !errors.Is(err, syscall.EHOSTUNREACH) {
				t.Errorf("a host that is off: %v, want: %v", err, syscall.EHOSTUNREACH)
			}
			r.vps.do("down")
			r.router.do("down")
		})
	}
}

// TestPorts forwards single ports to two hosts, together with a forward of all and kept ports.
func TestPorts(t *testing.T) {
	r := newRelay(t, lab.Options{}, forwardAll+forwardWeb)
	for _, h := range []*lab.Host{r.Host, r.Host2, r.VPS} {
		serveTCP(t, h, 80)
		serveUDP(t, h, 80)
		serveTCP(t, h, 22)
	}
	serveTCP(t, r.Router, 80)
	r.up()
	server := capture(t, r.Host, "eth0")
	other := capture(t, r.Host2, "eth0")
	seenTCP(t, r.Client, public+":8080", client4)
	seenUDP(t, r.Client, public+":8080", client4, 500)
	lab.Settle()
	if count(server(), client4) != 0 || count(other(), client4) == 0 {
		t.Error("port 8080 went to the host of all, not to its own")
	}
	server = capture(t, r.Host, "eth0")
	seenTCP(t, r.Client, public+":80", client4)
	if countPort(server(), client4, 80) == 0 {
		t.Error("port 80 did not go to the host of all")
	}
	server = capture(t, r.Host, "eth0")
	seenTCP(t, r.Client, public+":22", client4)
	lab.Settle()
	if countPort(server(), client4, 22) != 0 {
		t.Error("the kept port 22 went to the home")
	}

	// The VPS's own programs are clients, too, but not with addresses that nobody could answer.
	seenTCP(t, r.VPS, public+":8080", public)
	seenUDP(t, r.VPS, public+":8080", public, 500)
	pings(t, r.VPS, public)
	reached := func(what string, want bool, ask func()) {
		t.Helper()
		server := capture(t, r.Host, "eth0")
		ask()
		lab.Settle()
		if got := count(server(), public) > 0; got != want {
			t.Errorf("%s: reaches the home: %v, want %v", what, got, want)
		}
	}
	reached("the VPS to port 80", true, func() { seenTCP(t, r.VPS, public+":80", public) })
	reached("the VPS to the kept port 22", false, func() { seenTCP(t, r.VPS, public+":22", public) })
	reached("the VPS from a loopback address", false, func() {
		conn, err := r.VPS.DialFrom(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, "tcp4", public+":80", patience)
		if err != nil {
			t.Error(err)
			return
		}
		conn.Close()
	})
	r.vps.write(vpsRelay + "\toption target_local '0'\n" + forwardAll + forwardWeb)
	r.vps.do("up")
	reached("the VPS with target_local 0", false, func() { seenTCP(t, r.VPS, public+":80", public) })
	seenTCP(t, r.Client, public+":8080", client4)

	// Without the forward of all, only the port. The source port is unique, so that no packet of an earlier connection
	// counts.
	r.vps.write(vpsRelay + forwardWeb)
	r.router.write(routerRelay + forwardWeb)
	r.up()
	seenTCP(t, r.Client, public+":8080", client4)
	server = capture(t, r.Host, "eth0")
	seenTCP(t, r.Client, public+":80", client4) // the VPS's own server
	if n := count(server(), client4); n != 0 {
		t.Errorf("%d packets of the client reached a host without a forward", n)
	}
}

func count(packets []lab.Packet, addr string) int { return countPort(packets, addr, 0) }

// countPort counts the packets from or to an address and port; 0: any. The last packets of an earlier connection may
// arrive late.
func countPort(packets []lab.Packet, addr string, port uint16) (n int) {
	for _, p := range packets {
		if (p.Src.String() == addr || p.Dst.String() == addr) && (port == 0 || p.SrcPort == port || p.DstPort == port) {
			n++
		}
	}
	return n
}

// TestForged: forged packets do not get through.
func TestForged(t *testing.T) {
	r := newRelay(t, lab.Options{}, forwardWeb+"\toption egress 'all'\n")
	r.up()
	client := netip.MustParseAddrPort(client4 + ":4000")
	web := netip.MustParseAddrPort("192.168.1.211:80")
	good := lab.UDP4(client, web, []byte("good"))
	lan := capture(t, r.Host2, "eth0")
	in := capture(t, r.Router, "wrap1")
	attacker := netip.MustParseAddr("2001:db8:c::10")
	send := func(src, dst netip.Addr, packet []byte) {
		t.Helper()
		if err := lab.Send4in6(r.Client, src, dst, packet); err != nil {
			t.Fatal(err)
		}
	}
	send(attacker, routerEndpoint, good)
	out := capture(t, r.VPS, "wrap1")
	send(attacker, vpsEndpoint, lab.UDP4(netip.MustParseAddrPort("192.168.1.211:80"), client, []byte("bad")))
	lab.Settle()
	if n := count(in(), client4); n != 0 {
		t.Errorf("%d packets of a stranger came out of the router's tunnel", n)
	}
	if n := count(lan(), client4); n != 0 {
		t.Errorf("%d packets of a stranger reached the home", n)
	}
	if n := count(out(), client4); n != 0 {
		t.Errorf("%d packets of a stranger came out of the VPS's tunnel", n)
	}

	// Out of the tunnel at the VPS: only the configured host's packets are forwarded.
	for source, want := range map[string]int{"192.168.1.211:80": 1, "192.168.1.210:80": 0, "203.0.113.99:80": 0,
		"192.168.1.1:80": 0} {
		arrived := capture(t, r.Client, "eth0")
		packet := lab.UDP4(netip.MustParseAddrPort(source), client, []byte("out"))
		if err := lab.SendRaw4(r.Router, "wrap1", packet); err != nil {
			t.Fatal(err)
		}
		lab.Settle()
		got := 0
		for _, p := range arrived() {
			if !p.Outgoing && p.Proto == 17 && strings.HasPrefix(string(p.Payload), "out") {
				got++
				if p.Src.String() != public {
					t.Errorf("from %s: the client saw %s, want %s", source, p.Src, public)
				}
			}
		}
		if got != want {
			t.Errorf("from %s: %d packets arrived at the client, want %d", source, got, want)
		}
	}

	// Out of the tunnel at the router: only to the forwarded host and port, never to the router itself.
	for destination, want := range map[string]int{"192.168.1.211:80": 1, "192.168.1.211:81": 0, "192.168.1.210:80": 0,
		"192.168.1.1:80": 0, "192.168.2.20:80": 0} {
		hosts := []func() []lab.Packet{capture(t, r.Host2, "eth0"), capture(t, r.Host, "eth0"),
			capture(t, r.LAN2, "eth0")}
		if err := lab.SendRaw4(r.VPS, "wrap1",
			lab.UDP4(client, netip.MustParseAddrPort(destination), []byte("in"))); err != nil {
			t.Fatal(err)
		}
		lab.Settle()
		got := 0
		for _, stop := range hosts {
			for _, p := range stop() {
				if !p.Outgoing && p.Proto == 17 && string(p.Payload) == "in" {
					got++
				}
			}
		}
		if got != want {
			t.Errorf("to %s: %d packets arrived in the home, want %d", destination, got, want)
		}
	}
}
