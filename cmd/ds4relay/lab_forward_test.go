//go:build lab

package main

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/lab"
)

// arrivals sends packets and returns those with one of the protocols that arrive at the host's eth0.
func arrivals(t *testing.T, h *lab.Host, protocols string, send func()) []lab.Packet {
	t.Helper()
	stop := capture(t, h, "eth0")
	send()
	lab.Settle()
	var in []lab.Packet
	for _, p := range stop() {
		if !p.Outgoing && p.IPv6 == nil && strings.ContainsRune(protocols, rune(p.Proto)) {
			in = append(in, p)
		}
	}
	return in
}

// sctpInit is an SCTP packet with an INIT chunk (RFC 9260 §3.3.2).
func sctpInit(from, to uint16) []byte {
	b := binary.BigEndian.AppendUint16(nil, from)
	b = binary.BigEndian.AppendUint16(b, to)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 20, 0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// TestForwardKinds tests every kind of forward at once, to two hosts.
func TestForwardKinds(t *testing.T) {
	const forwards = `
config forward 'list'
	list proto 'tcp'
	list proto 'udp'
	option src_dport '443'
	option dest_ip '192.168.1.210'

config forward 'shifted'
	option proto 'tcp udp'
	option src_dport '8000-8010'
	option dest_ip '192.168.1.210'
	option dest_port '9000-9010'

config forward 'wide'
	option src_dport '20000-30000'
	option dest_ip '192.168.1.211'

config forward 'wide_shifted'
	option proto 'udp'
	option src_dport '40000-40200'
	option dest_ip '192.168.1.211'
	option dest_port '50000-50200'

config forward 'ping'
	option proto 'icmp'
	option dest_ip '192.168.1.211'

config forward 'vpn'
	list proto 'gre'
	list proto '50'
	list proto '253'
	option dest_ip '192.168.1.211'

config forward 'sctp'
	option proto 'sctp'
	option src_dport '5000'
	option dest_ip '192.168.1.210'
	option dest_port '5001'

config forward 'off'
	option enabled '0'
	option src_dport '7000'
	option dest_ip '192.168.1.210'
`
	r := newRelay(t, lab.Options{}, forwards)
	for _, port := range []int{443, 9000, 9003, 9010, 7000} {
		serveTCP(t, r.Host, port)
		serveUDP(t, r.Host, port)
	}
	for _, port := range []int{20000, 25000, 30000, 50000, 50200} {
		serveTCP(t, r.Host2, port)
		serveUDP(t, r.Host2, port)
	}
	r.up()
	for _, port := range []int{443, 8000, 8003, 8010, 20000, 25000, 30000} {
		seenTCP(t, r.Client, fmt.Sprintf("%s:%d", public, port), client4)
		seenUDP(t, r.Client, fmt.Sprintf("%s:%d", public, port), client4, 100)
	}
	seenUDP(t, r.Client, public+":40000", client4, 100)
	seenUDP(t, r.Client, public+":40200", client4, 100)
	for _, port := range []int{7000, 19999, 30001, 8011, 9003, 444, 40000} {
		refusedTCP(t, r.Client, fmt.Sprintf("%s:%d", public, port))
	}
	if in := arrivals(t, r.Host2, "\x01", func() { pings(t, r.Client, public) }); len(in) != 1 {
		t.Errorf("%d pings arrived at the second host, want 1", len(in))
	}

	from, to := netip.MustParseAddr(client4), netip.MustParseAddr(public)
	for proto, payload := range map[byte][]byte{47: {0, 0, 0x08, 0x00, 1, 2, 3, 4}, 50: {0, 0, 0, 9, 0, 0, 0, 1, 5, 5},
		253: []byte("anything")} {
		in := arrivals(t, r.Host2, string(rune(proto)), func() {
			if err := lab.SendRaw4(r.Client, "eth0", lab.IPv4(from, to, proto, payload)); err != nil {
				t.Fatal(err)
			}
		})
		if len(in) != 1 || in[0].Src != from || in[0].Dst.String() != "192.168.1.211" {
			t.Errorf("protocol %d: %+v arrived", proto, in)
		}
		out := arrivals(t, r.Client, string(rune(proto)), func() {
			if err := lab.SendRaw4(r.Host2, "eth0", lab.IPv4(netip.MustParseAddr("192.168.1.211"), from, proto,
				payload)); err != nil {
				t.Fatal(err)
			}
		})
		if len(out) != 1 || out[0].Src != to {
			t.Errorf("protocol %d, the answer: %+v arrived", proto, out)
		}
	}
	in := arrivals(t, r.Host, string(rune(132)), func() {
		if err := lab.SendRaw4(r.Client, "eth0", lab.IPv4(from, to, 132, sctpInit(6000, 5000))); err != nil {
			t.Fatal(err)
		}
	})
	if len(in) != 1 || in[0].Src != from || in[0].Dst.String() != home4 {
		t.Errorf("SCTP: %+v arrived", in)
	}
}

// TestClients: forwards for some clients are closed to all others, even next to a forward of all.
func TestClients(t *testing.T) {
	const forwards = `
config forward 'ssh'
	option proto 'tcp udp'
	option src_dport '2222'
	option dest_ip '192.168.1.210'
	option dest_port '80'
	list src_ip '203.0.113.0/26'
	list src_ip '192.0.2.77'

config forward 'wide'
	option proto 'tcp'
	option src_dport '3000-3999'
	option dest_ip '192.168.1.210'
	option src_ip '203.0.113.10'

config forward 'ping'
	option proto 'icmp'
	option dest_ip '192.168.1.210'
	option src_ip '203.0.113.10'
`
	const other4 = "203.0.113.99"
	r := newRelay(t, lab.Options{}, forwards)
	if out, err := r.Client.Run("ip", "addr", "add", other4+"/24", "dev", "eth0"); err != nil {
		t.Fatal(err, out)
	}
	serveTCP(t, r.Host, 80)
	serveUDP(t, r.Host, 80)
	serveTCP(t, r.Host, 3500)
	serveTCP(t, r.Host2, 2222)
	serveTCP(t, r.Host2, 80)
	serveTCP(t, r.VPS, 3500) // the VPS's own service
	other := &net.TCPAddr{IP: net.ParseIP(other4)}
	check := func(t *testing.T) {
		t.Helper()
		seenTCP(t, r.Client, public+":2222", client4)
		seenUDP(t, r.Client, public+":2222", client4, 100)
		pings(t, r.Client, public)
		if in := arrivals(t, r.Host, "\x06", func() { seenTCP(t, r.Client, public+":3500", client4) }); len(in) == 0 {
			t.Error("port 3500 did not reach the host")
		}
		if in := arrivals(t, r.Host, "\x06", func() { seenTCP(t, r.VPS, public+":3500", public) }); len(in) != 0 {
			t.Error("the VPS itself, which is not let in, reached the host")
		}
		for _, h := range []*lab.Host{r.Host, r.Host2} {
			in := arrivals(t, h, "\x01\x06", func() {
				for _, port := range []string{"2222", "3500"} {
					if conn, err := r.Client.DialFrom(other, "tcp4", public+":"+port, time.Second); err == nil {
						conn.Close()
					} else if port == "3500" {
						t.Errorf("the VPS's own port 3500 is closed to others: %v", err)
					}
				}
				r.Client.Run("ping", "-4", "-n", "-c", "1", "-W", "1", "-I", other4, public)
			})
			if len(in) != 0 {
				t.Errorf("of a client that is not let in %d packets reached %s", len(in), h.Name)
			}
		}
	}
	r.up()
	check(t)
	const rest = "\nconfig forward 'rest'\n\toption proto 'all'\n\toption dest_ip '192.168.1.211'\n"
	r.vps.write(vpsRelay + forwards + rest)
	r.router.write(routerRelay + forwards + rest)
	r.up()
	check(t)
	if in := arrivals(t, r.Host2, "\x06", func() { seenTCP(t, r.Client, public+":80", client4) }); len(in) == 0 {
		t.Error("what is left did not reach the second host")
	}

	// The router admits no more than the VPS.
	for from, want := range map[string]int{client4: 1, other4: 0} {
		in := arrivals(t, r.Host, "\x11", func() {
			packet := lab.UDP4(netip.MustParseAddrPort(from+":7"), netip.MustParseAddrPort(home4+":80"), []byte("in"))
			if err := lab.SendRaw4(r.VPS, "wrap1", packet); err != nil {
				t.Fatal(err)
			}
		})
		if len(in) != want {
			t.Errorf("past the VPS %d packets from %s reached the host, want %d", len(in), from, want)
		}
	}

	// All of the address for some clients.
	all := "\nconfig forward 'all'\n\toption proto 'all'\n\toption dest_ip '192.168.1.210'\n\toption src_ip " +
		"'203.0.113.0/26'\n"
	r.vps.write(vpsRelay + all)
	r.router.write(routerRelay + all)
	r.up()
	if in := arrivals(t, r.Host, "\x06", func() { seenTCP(t, r.Client, public+":80", client4) }); len(in) == 0 {
		t.Error("all: port 80 did not reach the host")
	}
	if in := arrivals(t, r.Host, "\x06", func() {
		if conn, err := r.Client.DialFrom(other, "tcp4", public+":3500", patience); err != nil {
			t.Error(err)
		} else {
			conn.Close()
		}
	}); len(in) != 0 {
		t.Error("all: a client that is not let in reached the host")
	}
}

// secondRelays are the two relays of a router that has two VPSs.
const secondRelays = `config relay 'home'
	option role 'router'
	option ipaddr '198.51.100.144'
	option ip6addr '2001:db8:fdd2::/64'
	option peeraddr '2001:db8:6ef9::/64'
	option device 'wrap1'

config relay 'second'
	option role 'router'
	option ipaddr '198.51.100.200'
	option ip6addr '2001:db8:fdd2::/64'
	option peeraddr '2001:db8:6efa::/64'
	option device 'wrap2'
	option ip4table '43'

config forward 'first'
	option relay 'home'
	option proto 'all'
	option dest_ip '192.168.1.210'

config forward 'other'
	option relay 'second'
	option proto 'all'
	option dest_ip '192.168.1.210'
	option egress 'EGRESS'
`

const vps2Relay = `config relay 'second'
	option role 'vps'
	option ipaddr '198.51.100.200'
	option ip6addr '2001:db8:6efa::/64'
	option peeraddr '2001:db8:fdd2::/64'
	option device 'wrap2'

config forward 'other'
	option proto 'all'
	option dest_ip '192.168.1.210'
	option egress 'EGRESS'
`

// TestTwoVPS: one host behind two VPSs; answers return through the tunnel of the request.
func TestTwoVPS(t *testing.T) {
	for _, egress := range []string{"replies", "all"} {
		t.Run(egress, func(t *testing.T) {
			r := newRelay(t, lab.Options{Second: true}, forwardAll)
			vps2 := newEnd(t, r.VPS2, strings.Replace(vps2Relay, "EGRESS", egress, 1))
			r.router.write(strings.Replace(secondRelays, "EGRESS", egress, 1))
			serveTCP(t, r.Host, 80)
			serveUDP(t, r.Host, 5000)
			serveTCP(t, r.Client, 90)
			before := r.router.snapshot()
			vps2.do("up") // WireGuard tries again only after five seconds if nobody listens
			r.up()
			first, second := capture(t, r.Router, "wrap1"), capture(t, r.Router, "wrap2")
			from := &net.TCPAddr{IP: net.ParseIP(client4), Port: 12345}
			for _, to := range []string{public, "198.51.100.200"} {
				conn, err := r.Client.DialFrom(from, "tcp4", to+":80", patience)
				if err != nil {
					t.Errorf("%s: %v", to, err)
					continue
				}
				line := make([]byte, 64)
				conn.SetDeadline(time.Now().Add(patience))
				if n, err := conn.Read(line); err != nil || !strings.HasPrefix(string(line[:n]), client4+":") {
					t.Errorf("%s: the server saw %s, %v", to, line[:n], err)
				}
				defer conn.Close()
				seenUDP(t, r.Client, to+":5000", client4, 300)
				pings(t, r.Client, to)
			}
			if a, b := count(first(), client4), count(second(), client4); a < 8 || b < 8 {
				t.Errorf("%d and %d packets went through the two tunnels", a, b)
			}
			want := natted4
			if egress == "all" {
				want = "198.51.100.200"
			}
			seenTCP(t, r.Host, client4+":90", want)
			r.router.do("down")
			same(t, "the router after down", before, r.router.snapshot())
		})
	}
}

// inTurn is the file of a router with two relays to VPSs that have one public address by turns.
const inTurn = routerRelay + `
config relay 'other'
	option role 'router'
	option ipaddr '198.51.100.144'
	option ip6addr '2001:db8:fdd2::/64'
	option peeraddr '2001:db8:6efa::/64'
	option device 'wrap2'
	option ip4table '43'
	option priority '4610'

config forward 'server'
	list relay 'home'
	list relay 'other'
	option proto 'all'
	option dest_ip '192.168.1.210'
`

// addressMoves gives the public address to the second VPS, as keepalived does on one network, and routers behind it
// learn.
func addressMoves(t *testing.T, r *relay) {
	t.Helper()
	sh(t, r.VPS, "ip addr add 198.51.100.150/24 dev eth0; ip addr del 198.51.100.144/24 dev eth0; "+
		"ip addr show dev eth0 | grep -q 198.51.100.150 || ip addr add 198.51.100.150/24 dev eth0; "+
		"ip route replace default via 198.51.100.1 dev eth0")
	sh(t, r.VPS2, "ip addr add 198.51.100.144/32 dev eth0")
	sh(t, r.Core, "ip route add 198.51.100.144/32 via 198.51.100.200")
}

func sh(t *testing.T, h *lab.Host, command string) {
	t.Helper()
	if out, err := h.Run("sh", "-c", command); err != nil {
		t.Fatal(command, err, out)
	}
}

// TestOneAddress: two VPSs have one public address by turns. Both are up all the time, and a connection's answers
// follow the tunnel that its packets came by last.
func TestOneAddress(t *testing.T) {
	r := newRelay(t, lab.Options{Second: true}, "")
	standby := func(text string) string {
		return strings.Replace(text, "\toption tunlink 'eth0'", "\toption standby '1'", 1) + forwardAll
	}
	r.vps.write(standby(vpsRelay))
	other := strings.NewReplacer("2001:db8:6ef9::/64", "2001:db8:6efa::/64").Replace(standby(vpsRelay))
	vps2 := newEnd(t, r.VPS2, other)
	r.router.write(inTurn)
	serveTCP(t, r.Host, 80)
	serveUDP(t, r.Host, 5000)
	vps2.do("up")
	r.up()
	has := func(e *end, want bool) {
		t.Helper()
		if status := decoded(t, e.do("status", "--json")).Relays[0]; status.Active == nil || *status.Active != want {
			t.Errorf("%s: active %v, want %v", e.host.Name, status.Active, want)
		}
		if out := e.do("up"); !strings.HasPrefix(out, "Nothing to do") {
			t.Errorf("%s: up changes something: %s", e.host.Name, out)
		}
	}
	has(r.vps, true)
	has(vps2, false)
	for _, e := range []*end{r.vps, vps2, r.router} {
		if out := e.do("doctor"); strings.Contains(out, "nothing of it can be tried") {
			t.Errorf("%s: %s", e.host.Name, out)
		}
		if out := e.do("check"); !strings.Contains(out, "forwards: 1)") {
			t.Errorf("%s: %s", e.host.Name, out)
		}
	}
	here := func(device string, want bool) {
		t.Helper()
		out, err := r.Router.Run("nft", "list", "set", "ip", "ds4relay", "t_"+device+"_here")
		if err != nil || strings.Contains(out, home4) != want {
			t.Errorf("%s has announced itself: want %v: %v, %s", device, want, err, out)
		}
		_, status, _ := r.router.try("status", "--json")
		for _, s := range decoded(t, status).Relays {
			if want && (s.Active == nil || *s.Active != (s.Device == device)) {
				t.Errorf("%s has announced itself, status: relay %s: active %v", device, s.Name, s.Active)
			}
		}
	}
	stream := open(t, r.Client, public+":80")
	alive(t, "a stream", stream)
	vps2.do("watch") // its test packet is no announcement
	here("wrap2", false)
	r.vps.do("watch")
	here("wrap1", true)
	// What is not valid is not translated. The VPS does not answer it: it may be of a connection of the other one.
	const synFIN, rst = 3, 4
	for _, p := range arrivals(t, r.Client, "\x06", func() {
		packet := lab.TCP4(netip.MustParseAddrPort(client4+":7"), netip.MustParseAddrPort(public+":80"), synFIN)
		if err := lab.SendRaw4(r.Client, "eth0", packet); err != nil {
			t.Fatal(err)
		}
	}) {
		if p.TCPFlags&rst != 0 {
			t.Errorf("the VPS resets what belongs to the home: %+v", p)
		}
	}
	addressMoves(t, r)
	has(r.vps, false)
	has(vps2, true)
	sh(t, r.VPS, "ip link set wrap1 down") // nothing gets through by the first VPS
	second := capture(t, r.Router, "wrap2")
	here("wrap2", false)
	vps2.do("announce")
	here("wrap2", true)
	alive(t, "the stream, by the other VPS", stream)
	echoes(t, "the stream, by the other VPS", stream, 1<<20) // more than a window, which the first VPS does not see
	seenTCP(t, r.Client, public+":80", client4)
	seenUDP(t, r.Client, public+":5000", client4, 300)
	if n := count(second(), client4); n < 6 {
		t.Errorf("%d packets went through the other tunnel", n)
	}
	sh(t, r.VPS2, "ip addr del 198.51.100.144/32 dev eth0")
	sh(t, r.Core, "ip route del 198.51.100.144/32 via 198.51.100.200")
	sh(t, r.VPS, "ip addr add 198.51.100.144/32 dev eth0")
	r.vps.do("up")
	alive(t, "the stream, by the first VPS again", stream) // which has not announced itself
	here("wrap2", false)
	seenTCP(t, r.Client, public+":80", client4)
	r.vps.do("announce", "home")
	here("wrap1", true)
	alive(t, "the stream, by the first VPS", stream)
	if code, _, stderr := r.vps.try("announce", "hom"); code != exitUsage || !strings.Contains(stderr, "unknown relay") {
		t.Errorf("announce hom: exit status %d, %s", code, stderr)
	}
	if code, _, stderr := r.router.try("announce", "home"); code != 1 || !strings.Contains(stderr, "is for a VPS") {
		t.Errorf("announce at home: exit status %d, %s", code, stderr)
	}
}

// twoHomes is the file of a VPS with two homes that have the same addresses: one public address whose ports they share,
// and one for the cabin alone.
const twoHomes = `config relay 'home'
	option role 'vps'
	option ipaddr '198.51.100.144'
	option ip6addr '2001:db8:6ef9::/64'
	option peeraddr '2001:db8:fdd2::/64'
	option device 'wrap1'

config relay 'cabin'
	option role 'vps'
	option ipaddr '198.51.100.144'
	option ip6addr '2001:db8:6ef9::/64'
	option peeraddr '2001:db8:fdd6::/64'
	option device 'wrap2'
	option tunlink 'eth0'

config relay 'own'
	option role 'vps'
	option ipaddr '198.51.100.145'
	option ip6addr '2001:db8:6ef9::/64'
	option peeraddr '2001:db8:fdd6::/64'
	option device 'wrap3'
	option tunlink 'eth0'

config forward 'web'
	option relay 'home'
	option src_dport '80'
	option dest_ip '192.168.1.210'
	option egress 'EGRESS'

config forward 'cabinweb'
	option relay 'cabin'
	option src_dport '81'
	option dest_ip '192.168.1.210'
	option dest_port '80'
	option egress 'EGRESS'

config forward 'ping'
	option relay 'cabin'
	option proto 'icmp'
	option dest_ip '192.168.1.210'
	option egress 'EGRESS'

config forward 'all'
	option relay 'own'
	option proto 'all'
	option dest_ip '192.168.1.210'
`

const cabinRelays = `config relay 'cabin'
	option role 'router'
	option ipaddr '198.51.100.144'
	option ip6addr '2001:db8:fdd6::/64'
	option peeraddr '2001:db8:6ef9::/64'
	option device 'wrap2'

config relay 'own'
	option role 'router'
	option ipaddr '198.51.100.145'
	option ip6addr '2001:db8:fdd6::/64'
	option peeraddr '2001:db8:6ef9::/64'
	option device 'wrap3'
	option ip4table '43'

config forward 'cabinweb'
	option relay 'cabin'
	option src_dport '81'
	option dest_ip '192.168.1.210'
	option dest_port '80'
	option egress 'EGRESS'

config forward 'ping'
	option relay 'cabin'
	option proto 'icmp'
	option dest_ip '192.168.1.210'
	option egress 'EGRESS'

config forward 'all'
	option relay 'own'
	option proto 'all'
	option dest_ip '192.168.1.210'
`

const homeWeb = `
config forward 'web'
	option src_dport '80'
	option dest_ip '192.168.1.210'
	option egress 'EGRESS'
`

// serveNamed answers each connection and each datagram with the home's name and the client's address and port.
func serveNamed(t *testing.T, h *lab.Host, name string, port int) {
	t.Helper()
	listener, err := h.Listen("tcp4", fmt.Sprintf(":%d", port))
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
			go func() {
				defer conn.Close()
				fmt.Fprintf(conn, "%s %s", name, conn.RemoteAddr())
				conn.Read(make([]byte, 1)) // the client closes first: its port is not in TIME-WAIT here
			}()
		}
	}()
	packets, err := h.ListenPacket("udp4", fmt.Sprintf(":%d", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { packets.Close() })
	go func() {
		buffer := make([]byte, 2000)
		for {
			_, from, err := packets.ReadFrom(buffer)
			if err != nil {
				return
			}
			packets.WriteTo(fmt.Appendf(nil, "%s %s", name, from), from)
		}
	}()
}

// named connects from a port and returns what the server says.
func named(h *lab.Host, network string, port int, to string) (string, net.Conn, error) {
	var local net.Addr = &net.TCPAddr{IP: net.ParseIP(client4), Port: port}
	if network == "udp4" {
		local = &net.UDPAddr{IP: net.ParseIP(client4), Port: port}
	}
	conn, err := h.DialFrom(local, network, to, patience)
	if err != nil {
		return "", nil, err
	}
	if network == "udp4" {
		fmt.Fprint(conn, "who?")
	}
	conn.SetDeadline(time.Now().Add(patience))
	line := make([]byte, 100)
	n, err := conn.Read(line)
	return string(line[:n]), conn, err
}

// greeted is like named, from any port.
func greeted(h *lab.Host, network, to string) (string, error) {
	conn, err := h.Dial(network, to, patience)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if network == "udp4" {
		fmt.Fprint(conn, "who?")
	}
	conn.SetDeadline(time.Now().Add(patience))
	line := make([]byte, 100)
	n, err := conn.Read(line)
	return string(line[:n]), err
}

// TestSameAddresses: two homes with the same addresses on one VPS. One client talks to both from the same ports, over
// one public address and over two.
func TestSameAddresses(t *testing.T) {
	for _, egress := range []string{"replies", "all"} {
		t.Run(egress, func(t *testing.T) {
			fill := func(s string) string { return strings.ReplaceAll(s, "EGRESS", egress) }
			r := newRelay(t, lab.Options{Second: true}, fill(homeWeb))
			if out, err := r.VPS.Run("ip", "addr", "add", "198.51.100.145/24", "dev", "eth0"); err != nil {
				t.Fatal(err, out)
			}
			// Strict: the reverse path of packets out of a tunnel must be that tunnel.
			for _, conf := range []string{"all", "default"} {
				if err := r.VPS.Sysctl("net.ipv4.conf."+conf+".rp_filter", "1"); err != nil {
					t.Fatal(err)
				}
			}
			before := r.vps.snapshot()
			cabin := newEnd(t, r.CabinRouter, fill(cabinRelays))
			r.vps.write(fill(twoHomes))
			serveNamed(t, r.Host, "home", 80)
			serveNamed(t, r.CabinHost, "cabin", 80)
			r.up()
			cabin.do("up")
			// The VPS's answers to the cabin go to the other home, so the cabin hears only the VPS's own probes.
			r.vps.listens(t, "equal homes", "heard", 0)
			heard := "unknown"
			if os.Getenv(transportEnv) == "wireguard" {
				heard = "heard" // the handshake of the tunnel itself
			}
			cabin.listens(t, "equal homes", heard, 0)
			for range 2 { // the VPS probes the cabin although it has heard of it
				r.vps.do("watch")
				cabin.listens(t, "equal homes, the VPS's probe", "heard", 0)
			}
			r.router.listens(t, "equal homes", "heard", 0)

			connections := 100
			targets := map[string]string{public + ":80": "home", public + ":81": "cabin", "198.51.100.145:80": "cabin"}
			samePort := map[string]int{}
			var open []net.Conn
			for i := range connections {
				network := []string{"tcp4", "udp4"}[i%2]
				for to, want := range targets {
					said, conn, err := named(r.Client, network, 20000+i, to)
					if conn != nil {
						open = append(open, conn)
					}
					name, seen, _ := strings.Cut(said, " ")
					addr, portErr := netip.ParseAddrPort(seen)
					if err != nil || portErr != nil || name != want || addr.Addr().String() != client4 {
						t.Fatalf("%s from port %d to %s: %q, %v, want %s", network, 20000+i, to, said, err, want)
					}
					if int(addr.Port()) == 20000+i {
						samePort[to]++
					}
				}
				if len(open) > 300 { // a few hundred at a time
					for _, conn := range open {
						conn.Close()
					}
					open = nil
				}
			}
			for _, conn := range open {
				conn.Close()
			}
			for to, want := range targets { // for the VPS's own programs, too
				for _, network := range []string{"tcp4", "udp4"} {
					said, err := greeted(r.VPS, network, to)
					if err != nil || !strings.HasPrefix(said, want+" 198.51.100.14") {
						t.Errorf("the VPS itself to %s, %s: %q, %v, want %s", to, network, said, err, want)
					}
				}
			}
			t.Logf("of %d connections each these kept their port: %v", connections, samePort)
			// The cabin's host could not tell apart connections from one port over two addresses, so one of them gets
			// another port.
			if egress == "replies" && samePort[public+":80"] != connections {
				t.Errorf("of %d connections to the home %d kept their port", connections, samePort[public+":80"])
			}
			if in := arrivals(t, r.CabinHost, "\x01", func() {
				if in := arrivals(t, r.Host, "\x01", func() {
					pings(t, r.Client, public)
					pings(t, r.Client, "198.51.100.145")
				}); len(in) != 0 {
					t.Errorf("%d pings to the cabin arrived at home", len(in))
				}
			}); len(in) != 2 {
				t.Errorf("%d of two pings arrived in the cabin", len(in))
			}
			if egress == "all" {
				serveNamed(t, r.Client, "client", 90)
				for _, h := range []*lab.Host{r.Host, r.CabinHost} {
					local := &net.TCPAddr{IP: net.ParseIP(home4), Port: 31000}
					conn, err := h.DialFrom(local, "tcp4", client4+":90", patience)
					if err != nil {
						t.Errorf("%s to the client: %v", h.Name, err)
						continue
					}
					line := make([]byte, 100)
					conn.SetDeadline(time.Now().Add(patience))
					n, err := conn.Read(line)
					if err != nil || !strings.HasPrefix(string(line[:n]), "client "+public+":") {
						t.Errorf("%s to the client: %q, %v", h.Name, line[:n], err)
					}
					conn.(*net.TCPConn).SetLinger(0)
					defer conn.Close()
				}
			}

			// One home goes down and up; the other is not affected.
			_, conn, err := named(r.Client, "tcp4", 19999, public+":81")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			r.vps.do("down", "home")
			r.vps.do("up")
			if out := r.vps.do("up"); !strings.Contains(out, "Nothing to do") {
				t.Errorf("a second up: %s", out)
			}
			// Now the answers to home go to the cabin. Home comes in by its own line, like a client.
			r.router.do("down")
			r.router.do("up")
			r.router.listens(t, "equal homes, as a client", "heard", 0)
			conn.SetDeadline(time.Now().Add(patience))
			if _, err := conn.Write([]byte("x")); err != nil {
				t.Error(err)
			}
			if _, err := conn.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "EOF") {
				t.Errorf("the connection to the cabin, after home had gone and come: %v, want the server's end", err)
			}
			if said, conn, err := named(r.Client, "tcp4", 19998, public+":80"); err != nil ||
				!strings.HasPrefix(said, "home ") {
				t.Errorf("home after it came again: %q, %v", said, err)
			} else {
				conn.Close()
			}
			r.vps.do("down")
			same(t, "the VPS after down", before, r.vps.snapshot())
		})
	}
}

// TestHairpin: clients at home use the public address.
func TestHairpin(t *testing.T) {
	for _, options := range []lab.Options{{}, {NoIPv4Default: true}, {RPFilter: 1}} {
		for _, egress := range []string{"replies", "all"} {
			t.Run(fmt.Sprintf("no_default=%v,rp_filter=%d,egress=%s", options.NoIPv4Default, options.RPFilter, egress),
				func(t *testing.T) {
					forwards := forwardWeb + "\toption egress '" + egress + "'\n" + `
config forward 'wide'
	option src_dport '20000-30000'
	option dest_ip '192.168.1.210'

config forward 'rest'
	option proto 'all'
	option dest_ip '192.168.1.210'
`
					r := newRelay(t, options, forwards)
					r.router.write(routerRelay + "\tlist keep 'tcp:22'\n" + forwards)
					serveNamed(t, r.Host2, "web", 80)
					serveNamed(t, r.Host, "rest", 90)
					serveNamed(t, r.Host, "wide", 25000)
					serveNamed(t, r.VPS, "vps", 22)
					r.up()
					ask := func(h *lab.Host, to, want string) {
						t.Helper()
						conn, err := h.Dial("tcp4", to, patience)
						if err != nil {
							t.Errorf("%s to %s: %v", h.Name, to, err)
							return
						}
						defer conn.Close()
						conn.SetDeadline(time.Now().Add(patience))
						line := make([]byte, 100)
						n, err := conn.Read(line)
						if name, _, _ := strings.Cut(string(line[:n]), " "); err != nil || name != want {
							t.Errorf("%s to %s: %q, %v, want %s", h.Name, to, line[:n], err, want)
						}
					}
					for _, h := range []*lab.Host{r.Host, r.Host2} {
						tunnel := capture(t, r.Router, "wrap1")
						ask(h, public+":8080", "web")
						ask(h, public+":25000", "wide")
						ask(h, public+":90", "rest")
						pings(t, h, public)
						if n := len(tunnel()); n != 0 {
							t.Errorf("%d packets between neighbours took the way through the VPS", n)
						}
					}
					if !options.NoIPv4Default {
						ask(r.Host2, public+":22", "vps")
						ask(r.LAN2, public+":8080", "web") // through the VPS
					}
					ask(r.Client, public+":8080", "web")
				})
		}
	}
}
