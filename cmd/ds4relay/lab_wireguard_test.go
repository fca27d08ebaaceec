//go:build lab

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/lab"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// wireGuardHead is the relay's section at one end, with transport wireguard. The keys are made anew.
func (e *end) wireGuardHead(role string, peer transport.Key, more string) string {
	return fmt.Sprintf("config relay 'home'\n\toption role '%s'\n\toption transport 'wireguard'\n"+
		"\toption ipaddr '198.51.100.144'\n\toption device 'wrap1'\n\toption private_key_file '%s'\n"+
		"\toption public_key '%s'\n%s", role, e.keyFile(), peer, more)
}

func (e *end) keyFile() string { return filepath.Join(e.dir, "keys", "home") }

// newKey makes the end's private key, and returns the public half.
func (e *end) newKey() transport.Key {
	e.t.Helper()
	secret, err := newSecret()
	if err == nil {
		err = writeSecret(e.keyFile(), secret)
	}
	if err != nil {
		e.t.Fatal(err)
	}
	return secret.Public()
}

// newWireGuard is like newRelay with transport wireguard, over IPv4 or IPv6.
func newWireGuard(t *testing.T, options lab.Options, peeraddr, forwards string) *relay {
	t.Helper()
	r := newRelay(t, options, "")
	vps, router := r.vps.newKey(), r.router.newKey()
	r.vps.write(r.vps.wireGuardHead("vps", router, "\tlist keep 'tcp:22'\n") + forwards)
	r.router.write(r.router.wireGuardHead("router", vps, "\toption peeraddr '"+peeraddr+"'\n") + forwards)
	return r
}

// shakesHands waits until each tunnel of WireGuard at an end has had a handshake.
func shakesHands(t *testing.T, e *end) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		status := e.do("status", "--json")
		if n := strings.Count(status, `"handshake_s"`); n > 0 && n == strings.Count(status, `"transport": "wireguard"`) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no handshake:\n%s", e.do("status", "--json"))
		}
	}
}

// TestWireGuard: what people have who cannot use IPv4 in IPv6.
func TestWireGuard(t *testing.T) {
	t.Parallel() // it mostly waits
	// A VPS without IPv6; the home has IPv4 behind its carrier's NAT only.
	t.Run("IPv4 only", func(t *testing.T) {
		t.Parallel()
		r := newWireGuard(t, lab.Options{Prefix: "wg4-"}, public, forwardAll)
		r.run(t, r.VPS, "ip -6 route del default; ip -6 addr flush dev eth0 scope global")
		serveTCP(t, r.Host, 80)
		serveUDP(t, r.Host, 5000)
		for _, e := range []*end{r.vps, r.router} {
			e.do("up")
			if out := e.do("up"); !strings.Contains(out, "Nothing to do") {
				t.Errorf("%s: again: %s", e.host.Name, out)
			}
		}
		r.reaches(t)
		// The home's path is DS-Lite's softwire.
		for e, mtu := range map[*end]int{r.vps: 1500 - 60, r.router: 1460 - 60} {
			if out := e.do("status", "--json"); !strings.Contains(out, fmt.Sprintf(`"mtu": %d`, mtu)) {
				t.Errorf("%s: the MTU is not %d: %s", e.host.Name, mtu, out)
			}
		}
		seenUDP(t, r.Client, public+":5000", client4, 1300)
		// The router's own errors about clients' packets come through, too.
		r.run(t, r.Host, "ip addr del 192.168.1.210/24 dev eth0")
		r.run(t, r.Router, "ip neigh flush dev br-lan")
		if _, _, err := askTCP(r.Client, public+":80"); !errors.Is(err, syscall.EHOSTUNREACH) {
			t.Errorf("a client of a host that is off: %v, want the router's error", err)
		}
	})
	// A firewall in front of the home lets nothing in that was not asked for, and nothing of protocol 4.
	t.Run("firewall", func(t *testing.T) {
		t.Parallel()
		r := newWireGuard(t, lab.Options{Prefix: "wg6-"}, lab.VPSIPv6.String(), forwardAll)
		r.run(t, r.ISP, "sysctl -qw net.netfilter.nf_conntrack_udp_timeout=3 "+
			"net.netfilter.nf_conntrack_udp_timeout_stream=3; nft add table ip6 f; nft add chain ip6 f c '{ type "+
			"filter hook forward priority 0; policy accept; meta l4proto 4 drop; iifname core ct state new drop; }'")
		serveTCP(t, r.Host, 80)
		r.router.write(strings.Replace(r.router.text, "\toption peeraddr", "\toption persistent_keepalive "+
			"'1'\n\toption peeraddr", 1))
		r.up()
		seenTCP(t, r.Client, public+":80", client4)
		time.Sleep(5 * time.Second) // longer than the firewall remembers
		seenTCP(t, r.Client, public+":80", client4)
		r.moves(t)
		r.hides(t)
		r.drops(t)
		r.router.write(strings.Replace(r.router.text, "persistent_keepalive '1'", "persistent_keepalive '0'", 1))
		r.router.do("up")
		seenTCP(t, r.Client, public+":80", client4)
		time.Sleep(5 * time.Second)
		refusedTCP(t, r.Client, public+":80") // the keepalive was it
	})
}

// run runs a shell command on a host.
func (r *relay) run(t *testing.T, h *lab.Host, command string) {
	t.Helper()
	if out, err := h.Run("sh", "-ec", command); err != nil {
		t.Fatalf("%s: %s: %v\n%s", h.Name, command, err, out)
	}
}

// moves gives the home another address in the middle of a connection, which goes on.
func (r *relay) moves(t *testing.T) {
	t.Helper()
	_, conn, err := askTCP(r.Client, public+":80")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	echo := func(text string) {
		t.Helper()
		conn.SetDeadline(time.Now().Add(3 * patience))
		back := make([]byte, len(text))
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, back); err != nil || string(back) != text {
			t.Fatalf("the connection: %q, %v", back, err)
		}
	}
	echo("before")
	r.run(t, r.Router, "ip -6 addr add 2001:db8:fdd1::77/64 dev wan nodad; ip -6 addr del 2001:db8:fdd1::2/64 dev "+
		"wan; ip -6 route replace default via 2001:db8:fdd1::1 dev wan")
	r.run(t, r.ISP, "ip -6 route replace 2001:db8:fdd2::/56 via 2001:db8:fdd1::77 dev router")
	echo("after the home has moved")
	if out := r.vps.do("status", "--json"); !strings.Contains(out, "2001:db8:fdd1::77") {
		t.Errorf("the VPS does not know where the home is: %s", out)
	}
	for _, e := range []*end{r.vps, r.router} {
		if out := e.do("up"); !strings.Contains(out, "Nothing to do") {
			t.Errorf("%s, after the home has moved: %s", e.host.Name, out)
		}
	}
}

// hides looks for what a client sends, and for the addresses of inner packets, in what goes over the internet.
func (r *relay) hides(t *testing.T) {
	t.Helper()
	secret := []byte("a word that nobody else should see")
	inside, between := capture(t, r.Host, "eth0"), capture(t, r.ISP, "core")
	_, conn, err := askTCP(r.Client, public+":80")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(secret); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, len(secret))); err != nil {
		t.Fatal(err)
	}
	seen := false
	for _, p := range inside() {
		seen = seen || bytes.Contains(p.Payload, secret)
	}
	if !seen {
		t.Error("the home does not see what the client sends: this test would see nothing either")
	}
	outer := 0
	client, host := netip.MustParseAddr(client4).AsSlice(), lab.HostIPv4.AsSlice()
	for _, p := range between() {
		if p.Proto == unix.IPPROTO_UDP {
			outer++
		}
		if bytes.Contains(p.Payload, secret[:8]) || bytes.Contains(p.Payload, append(client, host...)) ||
			p.Proto == unix.IPPROTO_IPIP {
			t.Errorf("a packet between the ends is readable: %+v", p)
		}
	}
	if outer < 4 {
		t.Errorf("%d packets of the tunnel between the ends, want more", outer)
	}
}

// drops sends what the VPS has to drop, each with a control that passes.
func (r *relay) drops(t *testing.T) {
	t.Helper()
	const port, lastPort = 4242, 4243
	from := func(host string, to uint16) {
		t.Helper()
		packet := lab.UDP4(netip.MustParseAddrPort(host+":5000"),
			netip.AddrPortFrom(netip.MustParseAddr(client4), to), []byte("x"))
		if err := lab.SendRaw4(r.Router, "wrap1", packet); err != nil {
			t.Fatal(err)
		}
	}
	// arrived counts what comes out of the VPS's tunnel, until a packet does that was sent after it.
	arrived := func(send func()) int {
		t.Helper()
		s, err := lab.Capture(r.VPS, "wrap1")
		if err != nil {
			t.Fatal(err)
		}
		defer s.Stop()
		send()
		from(home4, lastPort)
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			n, last := 0, false
			for _, p := range s.Packets() {
				if !p.Outgoing && p.Proto == unix.IPPROTO_UDP && (p.DstPort == port || p.DstPort == lastPort) {
					n++
					last = last || p.DstPort == lastPort
				}
			}
			if last {
				return n - 1
			}
		}
		t.Fatal("the packet that should arrive has not")
		return 0
	}
	if n := arrived(func() { from(home4, port) }); n != 1 {
		t.Fatalf("%d packets of the host with a forward came out of the VPS's tunnel, want 1", n)
	}
	if n := arrived(func() { from("192.168.1.99", port) }); n != 0 {
		t.Errorf("%d packets of another host came out of the VPS's tunnel", n)
	}
	// The packet of a former connection once more.
	stop := capture(t, r.ISP, "core")
	if n := arrived(func() { from(home4, port) }); n != 1 {
		t.Fatal("no packet to repeat")
	}
	var last lab.Packet
	for _, p := range stop() {
		if p.Proto == unix.IPPROTO_UDP && p.Outgoing && len(p.Payload) > 32 && p.Payload[0] == 4 {
			last = p
		}
	}
	again := func(payload []byte) {
		t.Helper()
		err := lab.SendUDP6(r.ISP, netip.AddrPortFrom(last.Src, last.SrcPort),
			netip.AddrPortFrom(last.Dst, last.DstPort), payload)
		if err != nil {
			t.Fatal(err)
		}
	}
	reaches := func(payload []byte) bool {
		t.Helper()
		outer := capture(t, r.VPS, "eth0")
		if n := arrived(func() { again(payload) }); n != 0 {
			t.Errorf("%d packets that were made of another one came out of the VPS's tunnel", n)
		}
		for _, p := range outer() {
			if !p.Outgoing && bytes.Equal(p.Payload, payload) {
				return true
			}
		}
		return false
	}
	if !reaches(last.Payload) {
		t.Error("the repeated packet has not reached the VPS")
	}
	forged := bytes.Clone(last.Payload)
	forged[15]++ // another counter, so that it is no repetition: the key is missing for its authenticator
	if !reaches(forged) {
		t.Error("the forged packet has not reached the VPS")
	}
}

// TestWireGuardPlain: the home is a WireGuard client that wg-quick has set up with the exported file, and has nothing
// of ours.
func TestWireGuardPlain(t *testing.T) {
	t.Parallel()
	r := newRelay(t, lab.Options{Prefix: "wgplain-"}, "")
	vps := r.vps.newKey()
	secret, err := newSecret()
	if err != nil {
		t.Fatal(err)
	}
	r.vps.write(r.vps.wireGuardHead("vps", secret.Public(), "\toption peer 'plain'\n") + forwardAll + forwardWeb)
	if code, out, _ := r.vps.try("export", "--wireguard"); code != exitUsage {
		t.Errorf("two hosts, and no address: exit status %d: %s", code, out)
	}
	text := r.vps.do("export", "--wireguard", "--address", "192.168.1.1/32")
	if !strings.Contains(text, vps.String()) {
		t.Errorf("the VPS's key is not in\n%s", text)
	}
	path := filepath.Join(r.router.dir, "plain.conf")
	text = strings.Replace(text, "PrivateKey = ", "PrivateKey = "+transport.Key(secret).String(), 1)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	serveTCP(t, r.Host, 80)
	serveTCP(t, r.Host2, 80)
	first := r.vps.snapshot()
	r.vps.do("up")
	r.run(t, r.Router, "wg-quick up "+path)
	shakesHands(t, r.vps)
	const hidden = "10.46.46.1"
	seenTCP(t, r.Client, public+":80", hidden)
	seenTCP(t, r.Client, public+":8080", hidden)
	pings(t, r.Client, public)
	if code, out, _ := r.vps.try("doctor"); code != 0 {
		t.Errorf("doctor: %d\n%s", code, out)
	}
	r.run(t, r.Router, "wg-quick down "+path)
	r.vps.do("down")
	same(t, "the VPS after down", first, r.vps.snapshot())
}

// shakesAgain sends something to the other end, which has lost its keys, until it is heard.
func shakesAgain(t *testing.T, e *end) {
	t.Helper()
	const notices = 15 * time.Second // KEEPALIVE_TIMEOUT and REKEY_TIMEOUT
	for deadline := time.Now().Add(notices + patience); ; time.Sleep(time.Second) {
		e.do("watch")
		code, out, _ := e.try("status", "--json")
		if code == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no handshake:\n%s", out)
		}
	}
}

// TestWireGuardItself: the home's end is the server itself, behind a router without ds4relay and a carrier's NAT, and
// all that leaves from its only address goes through the tunnel, or not at all. The tunnel's own packets have that
// address too, and must not go into their own tunnel.
func TestWireGuardItself(t *testing.T) {
	t.Parallel()
	r := newRelay(t, lab.Options{Prefix: "wgself-"}, "")
	home := newEnd(t, r.Host, "")
	vps, host := r.vps.newKey(), home.newKey()
	forward := forwardAll + "\toption egress 'all'\n"
	r.vps.write(r.vps.wireGuardHead("vps", host, "\tlist keep 'tcp:22'\n") + forward)
	home.write(home.wireGuardHead("router", vps, "\toption peeraddr '"+public+"'\n\toption killswitch '1'\n") + forward)
	first := home.snapshot()
	serveTCP(t, r.Host, 80)
	serveUDP(t, r.Host, 5000)
	serveTCP(t, r.Client, 90)
	seenTCP(t, r.Host, client4+":90", natted4)
	r.vps.do("up")
	home.do("up")
	for range 2 { // the second time the kernel knows the source of the tunnel's packets
		r.reaches(t)
		seenTCP(t, r.Host, client4+":90", public)
	}
	r.run(t, r.Host, "wg set wrap1 peer "+vps.String()+" remove") // a new session has to begin with that source
	home.do("up")
	r.reaches(t)
	seenTCP(t, r.Host, client4+":90", public)
	r.vps.do("down")
	refusedTCP(t, r.Host, client4+":90")
	home.do("down")
	seenTCP(t, r.Host, client4+":90", natted4)
	same(t, "the home after down", first, home.snapshot())
}

// TestBothTransports: a VPS has a home with IPv4 in IPv6, and another one whose two relays have WireGuard, a port each.
// The hosts at both homes have the same address.
func TestBothTransports(t *testing.T) {
	if os.Getenv(transportEnv) != "" {
		t.Skip("it has both transports")
	}
	t.Parallel() // it mostly waits
	fill := strings.NewReplacer("EGRESS", "replies").Replace
	r := newRelay(t, lab.Options{Second: true, Prefix: "both-"}, fill(homeWeb))
	r.run(t, r.VPS, "ip addr add 198.51.100.145/24 dev eth0")
	cabin := newEnd(t, r.CabinRouter, "")
	for e, text := range map[*end]string{r.vps: twoHomes, cabin: cabinRelays} {
		home, others, _ := strings.Cut(fill(text), "config relay 'cabin'")
		e.write(home + e.overWireGuard("config relay 'cabin'"+others))
	}
	before := r.vps.snapshot()
	serveNamed(t, r.Host, "home", 80)
	serveNamed(t, r.CabinHost, "cabin", 80)
	r.up()
	cabin.do("up")
	shakesHands(t, r.vps)
	for _, e := range []*end{r.vps, r.router, cabin} {
		if out := e.do("up"); !strings.HasPrefix(out, "Nothing to do") {
			t.Errorf("%s: a second up: %s", e.host.Name, out)
		}
	}
	for to, want := range map[string]string{public + ":80": "home", public + ":81": "cabin",
		"198.51.100.145:80": "cabin"} {
		said, conn, err := named(r.Client, "tcp4", 0, to)
		if err != nil || !strings.HasPrefix(said, want+" "+client4) {
			t.Errorf("%s: %q, %v, want %s, which sees %s", to, said, err, want, client4)
		}
		if conn != nil {
			conn.Close()
		}
	}
	for _, e := range []*end{cabin, r.router, r.vps} {
		e.do("down")
	}
	same(t, "the VPS after down", before, r.vps.snapshot())
}
