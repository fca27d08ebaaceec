//go:build lab

package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/lab"
)

// These attacks come out of a tunnel (anybody who can send packets with the other end's IPv6 address can do that), or
// from the VPS's neighbour on the link. Each family has a control packet that gets through.

func port(addr string, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(addr), port)
}

// outOfTunnel makes a packet come out of the router's tunnel.
func (r *relay) outOfTunnel(t *testing.T, packet []byte) {
	t.Helper()
	if err := lab.SendRaw4(r.VPS, "wrap1", packet); err != nil {
		t.Fatal(err)
	}
}

// received counts the packets with that payload that a host receives while send runs.
func received(t *testing.T, h *lab.Host, device, payload string, send func()) (n int) {
	t.Helper()
	stop := capture(t, h, device)
	send()
	lab.Settle()
	for _, p := range stop() {
		if !p.Outgoing && bytes.Contains(p.Payload, []byte(payload)) {
			n++
		}
	}
	return n
}

// conversation is a UDP connection between two hosts, over any path.
type conversation struct {
	name   string
	socket net.PacketConn
	own    netip.AddrPort // its address in packets at the router
	peer   netip.AddrPort
}

// converse opens one, and checks as a control that the peer's answer arrives.
func converse(t *testing.T, name string, h *lab.Host, own netip.AddrPort, peer netip.AddrPort) conversation {
	t.Helper()
	socket, err := h.ListenPacket("udp4", own.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	if _, err := socket.WriteTo([]byte("hello"), net.UDPAddrFromAddrPort(peer)); err != nil {
		t.Fatal(err)
	}
	socket.SetReadDeadline(time.Now().Add(patience))
	answer := make([]byte, 100)
	if n, _, err := socket.ReadFrom(answer); err != nil || !strings.HasSuffix(string(answer[:n]), "hello") {
		t.Fatalf("%s: no answer: %v", name, err)
	}
	return conversation{name, socket, own, peer}
}

// gets reports whether the socket has received something, once the packets of send have arrived.
func (c conversation) gets(send func()) bool {
	send()
	lab.Settle()
	return got(c.socket) > 0
}

// got reads the datagrams that have arrived at a socket, and counts them.
func got(socket net.PacketConn) (n int) {
	raw, err := socket.(syscall.Conn).SyscallConn()
	if err != nil {
		panic(err)
	}
	err = raw.Control(func(fd uintptr) {
		for {
			if _, _, err := syscall.Recvfrom(int(fd), make([]byte, 100), syscall.MSG_DONTWAIT); err != nil {
				return
			}
			n++
		}
	})
	if err != nil {
		panic(err)
	}
	return n
}

// TestInjected: packets out of a tunnel cannot get into connections that do not use it: of hosts without forwards,
// between networks of the home, of the router itself, and of forwarded hosts with others.
func TestInjected(t *testing.T) {
	for _, egress := range []string{"replies", "all"} {
		t.Run(egress, func(t *testing.T) {
			r := newRelay(t, lab.Options{}, forwardWeb+"\toption egress '"+egress+"'\n")
			for _, h := range []*lab.Host{r.Client, r.LAN2, r.Host, r.Host2} {
				serveUDP(t, h, 53)
			}
			r.up()
			client := port(client4, 53)
			conversations := []conversation{
				converse(t, "a host's that is not forwarded", r.Host, port(home4, 4001), client),
				converse(t, "between two networks", r.LAN2, port("192.168.2.20", 4002), port(home4, 53)),
				converse(t, "of a forwarded host with another network", r.Host2, port("192.168.1.211", 4003),
					port("192.168.2.20", 53)),
				converse(t, "of a forwarded host with its neighbour", r.Host2, port("192.168.1.211", 4004),
					port(home4, 53)),
				converse(t, "the router's", r.Router, port("192.168.2.1", 4005), port("192.168.2.20", 53)),
				converse(t, "the router's with the internet", r.Router, port("192.168.1.1", 4006), client),
			}
			for _, c := range conversations {
				if c.gets(func() { r.outOfTunnel(t, lab.UDP4(c.peer, c.own, []byte("forged"))) }) {
					t.Errorf("%s: got a forged datagram", c.name)
				}
			}

			// Neither do the neighbour's packets of such connections get out, nor errors about them.
			for _, target := range []struct {
				host           *lab.Host
				own, peer      netip.AddrPort
				name, from     string
				wantsForwarded bool
			}{
				{r.Host, port(home4, 4001), client, "a host that is not forwarded", client4, false},
				{r.Host2, port("192.168.1.211", 4003), port("192.168.2.20", 53),
					"a forwarded host, about another network", client4, false},
			} {
				about := lab.UDP4(target.own, target.peer, []byte("it was forged"))
				if n := received(t, target.host, "eth0", "it was forged", func() {
					r.outOfTunnel(t, lab.ICMPError4(netip.MustParseAddr(target.from), target.own.Addr(), 3, 4, 600,
						about))
				}); n != 0 {
					t.Errorf("%s: got an ICMP error", target.name)
				}
			}

			// The control: packets of a forward, and errors about its answers, arrive.
			web := port("192.168.1.211", 80)
			in := lab.UDP4(port(client4, 5000), web, []byte("in"))
			if n := received(t, r.Host2, "eth0", "in", func() { r.outOfTunnel(t, in) }); n != 1 {
				t.Errorf("%d packets of a forward arrived, want 1", n)
			}
			about := lab.UDP4(web, port(client4, 5000), []byte("too long"))
			if n := received(t, r.Host2, "eth0", "too long", func() {
				r.outOfTunnel(t, lab.ICMPError4(netip.MustParseAddr("203.0.113.1"), web.Addr(), 3, 4, 600, about))
			}); n != 1 {
				t.Errorf("%d errors about a forward's answers arrived, want 1", n)
			}
			if egress == "replies" {
				return
			}
			// A host with egress all gets the answers to its own connections, and errors.
			own := converse(t, "of a host with egress all", r.Host2, port("192.168.1.211", 4010), client)
			if !own.gets(func() { r.outOfTunnel(t, lab.UDP4(client, own.own, []byte("more"))) }) {
				t.Error("a host with egress all does not get answers")
			}
			about = lab.UDP4(own.own, client, []byte("too long again"))
			if n := received(t, r.Host2, "eth0", "too long again", func() {
				r.outOfTunnel(t, lab.ICMPError4(netip.MustParseAddr("203.0.113.1"), own.own.Addr(), 3, 4, 600, about))
			}); n != 1 {
				t.Errorf("%d errors about a connection of a host with egress all arrived, want 1", n)
			}
			// Up adopts open connections, which an earlier release did not mark.
			if out, err := r.Router.Run("nft", "table ip forget { chain last { type filter hook postrouting priority "+
				"200; ct mark set 0; }; }"); err != nil {
				t.Fatal(err, out)
			}
			if _, err := own.socket.WriteTo([]byte("unmarked"), net.UDPAddrFromAddrPort(client)); err != nil {
				t.Fatal(err)
			}
			lab.Settle()
			if out, err := r.Router.Run("nft", "flush", "ruleset"); err != nil {
				t.Fatal(err, out)
			}
			got(own.socket) // the earlier answer
			r.router.do("up")
			if !own.gets(func() { r.outOfTunnel(t, lab.UDP4(client, own.own, []byte("more"))) }) {
				t.Error("a connection without a mark was not adopted")
			}
		})
	}
}

// TestInjectedErrors: a host with a forward of all does not get errors about connections over other paths.
func TestInjectedErrors(t *testing.T) {
	r := newRelay(t, lab.Options{}, forwardAll)
	serveUDP(t, r.LAN2, 53)
	r.up()
	converse(t, "with another network", r.Host, port(home4, 4001), port("192.168.2.20", 53))
	for _, peer := range []netip.AddrPort{port("192.168.2.20", 53), port("203.0.113.77", 53)} {
		about := lab.UDP4(port(home4, 4001), peer, []byte("it was forged"))
		if n := received(t, r.Host, "eth0", "it was forged", func() {
			r.outOfTunnel(t, lab.ICMPError4(netip.MustParseAddr(client4), netip.MustParseAddr(home4), 3, 4, 600, about))
		}); n != 0 {
			t.Errorf("an error about a packet to %s arrived", peer)
		}
	}
	if n := received(t, r.Host, "eth0", "in", func() {
		r.outOfTunnel(t, lab.UDP4(port(client4, 5000), port(home4, 53), []byte("in")))
	}); n != 1 {
		t.Errorf("%d packets of a forward arrived, want 1", n)
	}
	// At the VPS: errors out of the tunnel must also be about connections of the hosts.
	serveUDP(t, r.Client, 53)
	converse(t, "the VPS's own", r.VPS, port(public, 4001), port(client4, 53))
	about := lab.UDP4(port(public, 4001), port(client4, 53), []byte("xxxxxxxxxxx"))
	if err := lab.SendRaw4(r.Router, "wrap1", lab.ICMPError4(netip.MustParseAddr(home4), netip.MustParseAddr(public), 3,
		4, 600, about)); err != nil {
		t.Fatal(err)
	}
	lab.Settle()
	if out, err := r.VPS.Run("ip", "route", "get", client4); err != nil || strings.Contains(out, "mtu 600") {
		t.Errorf("an error out of the tunnel changed the VPS's own path: %v\n%s", err, out)
	}
}

// strangers are source addresses that no packet from outside may have.
var strangers = []string{"127.0.0.1", "0.0.0.0", "0.1.2.3", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"}

// TestHomeAddresses: packets from outside with an address of the home, or one that nobody has, are dropped.
func TestHomeAddresses(t *testing.T) {
	r := newRelay(t, lab.Options{}, forwardWeb)
	r.up()
	web := port("192.168.1.211", 80)
	arrive := func(source string) int {
		return received(t, r.Host2, "eth0", "from "+source, func() {
			r.outOfTunnel(t, lab.UDP4(port(source, 5000), web, []byte("from "+source)))
		})
	}
	for _, source := range append([]string{home4, "192.168.1.211", "192.168.1.1", "192.168.1.77", "192.168.1.255",
		"192.168.2.20", "192.168.2.1", "192.168.2.99"},
		strangers...) {
		if n := arrive(source); n != 0 {
			t.Errorf("out of the tunnel: a packet from %s arrived", source)
		}
	}
	for _, source := range []string{client4, public, "198.51.100.77", "10.9.8.7"} {
		if n := arrive(source); n != 1 {
			t.Errorf("out of the tunnel: %d packets from %s arrived, want 1", n, source)
		}
	}

	// A network that is added later is known after the next up.
	if out, err := r.Router.Run("ip", "addr", "add", "10.9.8.1/24", "dev", "lan2"); err != nil {
		t.Fatal(err, out)
	}
	r.router.do("up")
	if n := arrive("10.9.8.7"); n != 0 {
		t.Error("out of the tunnel: a packet from a network that was added arrived")
	}

	// At the VPS, from its neighbour on the link.
	link, err := r.VPS.Netlink.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	pass := func(source string) (n int) {
		stop := capture(t, r.VPS, "wrap1")
		packet := lab.UDP4(port(source, 5000), port(public, 8080), []byte("from "+source))
		if err := lab.SendFrame4(r.Core, "vps", link.Attrs().HardwareAddr, packet); err != nil {
			t.Fatal(err)
		}
		lab.Settle()
		return len(stop())
	}
	for _, source := range append([]string{public, "192.168.1.211"}, strangers...) {
		if n := pass(source); n != 0 {
			t.Errorf("at the VPS: a packet from %s was forwarded", source)
		}
	}
	for _, source := range []string{client4, "198.51.100.77"} {
		if n := pass(source); n == 0 {
			t.Errorf("at the VPS: no packet from %s was forwarded", source)
		}
	}
}

// TestFence: after `up` a VPS forwards for the relays, and otherwise only what it forwarded before.
func TestFence(t *testing.T) {
	for _, before := range []string{"0", "1"} {
		t.Run("ip_forward="+before, func(t *testing.T) {
			r := newRelay(t, lab.Options{}, forwardWeb+"\toption egress 'all'\n")
			serveTCP(t, r.Host2, 80)
			serveTCP(t, r.Client, 90)
			for _, command := range []string{"ip link add other type dummy", "ip addr add 10.77.0.1/24 dev other",
				"ip link set other up", "ip neigh add 10.77.0.5 lladdr 02:00:00:00:77:05 dev other",
				"sysctl -qw net.ipv4.ip_forward=" + before} {
				if out, err := r.VPS.Run("sh", "-c", command); err != nil {
					t.Fatal(err, out)
				}
			}
			link, err := r.VPS.Netlink.LinkByName("eth0")
			if err != nil {
				t.Fatal(err)
			}
			passes := func(device, to string) bool {
				stop := capture(t, r.VPS, device)
				packet := lab.UDP4(port(client4, 5000), port(to, 80), []byte("through"))
				if err := lab.SendFrame4(r.Core, "vps", link.Attrs().HardwareAddr, packet); err != nil {
					t.Fatal(err)
				}
				lab.Settle()
				for _, p := range stop() {
					if string(p.Payload) == "through" {
						return true
					}
				}
				return false
			}
			first := r.vps.snapshot()
			for _, when := range []string{"before up", "after up", "after a second up", "after down"} {
				switch when {
				case "after up":
					r.up()
				case "after a second up":
					if out := r.vps.do("up"); !strings.HasPrefix(out, "Nothing to do") {
						t.Errorf("a second up: %s", out)
					}
				case "after down":
					// Also if the records are lost.
					if err := os.RemoveAll(r.vps.runDir()); err != nil {
						t.Fatal(err)
					}
					r.vps.do("down")
				}
				if got := passes("other", "10.77.0.5"); got != (before == "1") {
					t.Errorf("%s: to another network of the VPS: %v", when, got)
				}
			}
			same(t, "the kernel after down", first, r.vps.snapshot())

			r.up()
			if before == "0" && passes("wrap1", "192.168.1.211") {
				t.Error("a packet straight to a host's private address was forwarded")
			}
			seenTCP(t, r.Client, public+":8080", client4)
			seenTCP(t, r.Host2, client4+":90", public)
			if before == "1" {
				return
			}
			// If records and table are lost, down says what it does not know.
			if out, err := r.VPS.Run("nft", "flush", "ruleset"); err != nil {
				t.Fatal(err, out)
			}
			if err := os.RemoveAll(r.vps.runDir()); err != nil {
				t.Fatal(err)
			}
			if _, _, stderr := r.vps.try("down"); !strings.Contains(stderr, "eth0") ||
				!strings.Contains(stderr, "net.ipv4.conf.eth0.forwarding=0") {
				t.Errorf("down without records says: %q", stderr)
			}
		})
	}
}

// TestFlushed: if another program flushes the router's rules, nothing gets out of the tunnel, neither to hosts nor to
// the router itself, with or without another IPv4 route.
func TestFlushed(t *testing.T) {
	const router4 = "192.168.1.1"
	itself := strings.ReplaceAll(forwardWeb, "192.168.1.211", router4)
	itself = strings.ReplaceAll(strings.ReplaceAll(itself, "'web'", "'self'"), "8080", "8081")
	for _, noDefault := range []bool{false, true} {
		for _, egress := range []string{"replies", "all"} {
			t.Run(fmt.Sprintf("no_default=%v,egress=%s", noDefault, egress), func(t *testing.T) {
				option := "\toption egress '" + egress + "'\n"
				r := newRelay(t,
					lab.Options{NoIPv4Default: noDefault, RPFilter: map[bool]int{false: 0, true: 2}[noDefault]},
					forwardWeb+option+itself+option)
				r.up()
				service, err := r.Router.ListenPacket("udp4", ":80")
				if err != nil {
					t.Fatal(err)
				}
				defer service.Close()
				reaches := func() (hosts, itself int) {
					hosts = received(t, r.Host2, "eth0", "in", func() {
						r.outOfTunnel(t, lab.UDP4(port(client4, 5000), port("192.168.1.211", 80), []byte("in")))
						r.outOfTunnel(t, lab.UDP4(port(client4, 80), port(router4, 80), []byte("in")))
					})
					return hosts, got(service)
				}
				pinged := func() int {
					stop := capture(t, r.Router, "wrap1")
					echo := []byte{8, 0, 0xf7, 0xfe, 0, 1, 0, 0}
					r.outOfTunnel(t, lab.IPv4(netip.MustParseAddr(client4), netip.MustParseAddr(router4), 1, echo))
					lab.Settle()
					n := 0
					for _, p := range stop() {
						if p.Outgoing {
							n++
						}
					}
					return n
				}
				if hosts, itself := reaches(); hosts != 1 || itself != 1 {
					t.Errorf("with rules: %d packets to the host, %d to the router, want 1 and 1", hosts, itself)
				}
				if out, err := r.Router.Run("nft", "flush", "ruleset"); err != nil {
					t.Fatal(err, out)
				}
				if hosts, itself := reaches(); hosts != 0 || itself != 0 {
					t.Errorf("without rules: %d packets to the host, %d to the router, want none", hosts, itself)
				}
				if n := pinged(); n != 0 {
					t.Errorf("without rules: %d answers to a ping", n)
				}
				r.router.do("up")
				if hosts, itself := reaches(); hosts != 1 || itself != 1 {
					t.Errorf("with rules again: %d packets to the host, %d to the router, want 1 and 1", hosts, itself)
				}
			})
		}
	}
}

// TestHiddenProtocol: no stranger's 4in6 packet passes the VPS's guard, not even in fragments that hide the protocol.
// Another tunnel of the machine, for any address, shows what passes.
func TestHiddenProtocol(t *testing.T) {
	r := newRelay(t, lab.Options{}, forwardWeb)
	r.up()
	if out, err := r.VPS.Run("sh", "-c", "ip link add any type ip6tnl mode ipip6 && ip link set any up"); err != nil {
		t.Fatal(err, out)
	}
	attacker := netip.MustParseAddr("2001:db8:c::10")
	inner := lab.UDP4(port("192.168.1.211", 80), port(client4, 5000), []byte("hidden"))
	// Next header 4, 8+12*8 bytes: an option to skip (RFC 4727).
	options := append([]byte{4, 12, 0x1e, 100}, make([]byte, 100)...)
	// The kernel itself refuses a first fragment that ends before the upper-layer header (ipv6frag_thdr_truncated), but
	// does not notice that if more options follow.
	more := append([]byte{60}, options[1:]...)
	more = append(more, 4, 0, 0x1e, 4, 0, 0, 0, 0)
	id := uint32(0)
	fragments := func(to netip.Addr, payload []byte, next byte, first int) {
		id++
		for i, part := range [][]byte{payload[:first], payload[first:]} {
			header := []byte{next, 0, 0, 0}
			binary.BigEndian.PutUint16(header[2:], uint16(i*first)|uint16(1-i))
			header = binary.BigEndian.AppendUint32(header, id)
			if err := lab.SendRaw6(r.Client, attacker, to, "", 44, append(header, part...)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name string
		send func(to netip.Addr)
	}{
		{"plain", func(to netip.Addr) {
			if err := lab.Send4in6(r.Client, attacker, to, inner); err != nil {
				t.Fatal(err)
			}
		}},
		{"fragments", func(to netip.Addr) { fragments(to, inner, 4, 24) }},
		{"behind options", func(to netip.Addr) {
			if err := lab.SendRaw6(r.Client, attacker, to, "", 60, slices.Concat(options, inner)); err != nil {
				t.Fatal(err)
			}
		}},
		{"options in both fragments", func(to netip.Addr) { fragments(to, slices.Concat(more, inner), 60, 16) }},
	} {
		for to, want := range map[netip.Addr]int{vpsEndpoint: 0, lab.VPSIPv6: 1} {
			if n := received(t, r.VPS, "any", "hidden", func() { c.send(to) }); n != want {
				t.Errorf("%s, to %s: %d packets came out of a tunnel for any address, want %d", c.name, to, n, want)
			}
		}
	}
	// Other protocols pass, as for other addresses of the machine.
	if out, err := r.Client.Run("ping", "-6", "-n", "-c", "1", "-W", "3", "-s", "3000",
		vpsEndpoint.String()); err != nil {
		t.Errorf("ping with fragments: %v\n%s", err, out)
	}
}

// TestDeviceNames: relays whose device names differ only in a dot, a hyphen or an underscore do not share anything.
func TestDeviceNames(t *testing.T) {
	r := newRelay(t, lab.Options{}, "")
	var file strings.Builder
	for i, device := range []string{"a.b", "a_b", "a-b", "a_dot_b", "a.b_in"} {
		fmt.Fprintf(&file, "config relay 'r%d'\n\toption role 'router'\n\toption ipaddr '198.51.100.%d'\n\toption "+
			"ip6addr '2001:db8:fdd2::/64'\n\toption peeraddr '2001:db8:6ef9::/64'\n\toption tunlink 'wan'\n\toption "+
			"device '%s'\n\toption ip4table '%d'\n\nconfig forward\n\toption relay 'r%d'\n\toption src_dport "+
			"'80'\n\toption dest_ip '192.168.1.211'\n\tlist src_ip '203.0.113.0/24'\n\n", i, 10+i, device, 42+i, i)
	}
	r.router.write(file.String())
	r.router.do("up")
	if out := r.router.do("up"); !strings.HasPrefix(out, "Nothing to do") {
		t.Errorf("a second up: %s", out)
	}
	out, err := r.Router.Run("nft", "list", "table", "ip", "ds4relay")
	if err != nil {
		t.Fatal(err, out)
	}
	if n := strings.Count(out, "hook prerouting priority mangle"); n != 5 {
		t.Errorf("%d chains for five devices:\n%s", n, out)
	}
	r.router.do("down")
}

// TestKillSwitch: a host with egress all reaches the internet through the tunnel or not at all, whatever happens to the
// tunnel, the rules and the tables. Other hosts and the home's networks are not affected.
func TestKillSwitch(t *testing.T) {
	option := "\toption egress 'all'\n\toption killswitch '1'\n"
	r := newRelay(t, lab.Options{}, forwardWeb+option)
	vpsFile, routerFile := vpsRelay+forwardWeb+option, routerRelay+forwardWeb+option
	serveTCP(t, r.Client, 90)
	serveTCP(t, r.LAN2, 90)
	first := r.router.snapshot()
	seenTCP(t, r.Host2, client4+":90", natted4)
	r.up()
	seenTCP(t, r.Host2, client4+":90", public)
	held := func(when string) {
		t.Helper()
		leaves := received(t, r.Client, "eth0", "leak", func() {
			packet := lab.UDP4(port("192.168.1.211", 6000), port(client4, 6000), []byte("leak"))
			if err := lab.SendRaw4(r.Host2, "eth0", packet); err != nil {
				t.Fatal(err)
			}
		})
		if leaves != 0 {
			t.Errorf("%s: a packet of the host left by another way", when)
		}
		refusedTCP(t, r.Host2, client4+":90")
		seenTCP(t, r.Host2, "192.168.2.20:90", "192.168.1.211")
		seenTCP(t, r.Host, client4+":90", natted4)
	}
	for _, c := range []struct{ when, command string }{
		{"without the device", "ip link del wrap1"},
		{"with the device down", "ip link set wrap1 down"},
		{"without tables", "nft flush ruleset"},
		{"without policy rules", "ip link set wrap1 down; ip -4 rule flush; ip rule add priority 32766 lookup main; " +
			"ip rule add priority 32767 lookup default"},
		{"with half the internet routed elsewhere", "ip link set wrap1 down; ip route add 128.0.0.0/1 dev ds-wan6_4"},
		{"with a rule of others before ours", "ip link set wrap1 down; ip rule add priority 100 lookup main"},
	} {
		if out, err := r.Router.Run("sh", "-c", c.command); err != nil {
			t.Fatal(err, out)
		}
		held(c.when)
		r.Router.Run("sh", "-c", "ip route del 128.0.0.0/1; ip rule del priority 100; ip rule del priority 32766; ip "+
			"rule del priority 32767; ip rule add priority 32766 lookup main protocol kernel; ip rule add priority "+
			"32767 lookup default protocol kernel")
		r.router.do("-q", "up")
		seenTCP(t, r.Host2, client4+":90", public)
	}
	// While the relay waits for a prefix, and when it cannot be brought up for other reasons.
	r.router.write(strings.Replace(routerFile, "'2001:db8:fdd2::/64'", "'auto'", 1))
	r.router.try("-q", "up")
	r.router.write(routerFile)
	r.router.do("-q", "up")
	r.vps.write(vpsFile)
	r.vps.do("down")
	held("without the VPS's end")
	if _, _, stderr := r.router.try("down"); !strings.Contains(stderr, "kill switch is off for 192.168.1.211") {
		t.Errorf("down says: %q", stderr)
	}
	seenTCP(t, r.Host2, client4+":90", natted4)
	same(t, "the router after down", first, r.router.snapshot())
}

// TestEgressPrivate: a host with egress all reaches the internet through the VPS, but not its private networks, unless
// allowed.
func TestEgressPrivate(t *testing.T) {
	option := "\toption egress 'all'\n"
	r := newRelay(t, lab.Options{}, forwardWeb+option)
	for _, command := range []string{"ip link add other type dummy", "ip addr add 10.77.0.1/24 dev other",
		"ip addr add 169.254.169.1/24 dev other", "ip link set other up", "ip neigh add 10.77.0.5 lladdr " +
			"02:00:00:00:77:05 dev other", "ip neigh add 169.254.169.254 lladdr 02:00:00:00:77:06 dev other"} {
		if out, err := r.VPS.Run("sh", "-c", command); err != nil {
			t.Fatal(err, out)
		}
	}
	serveTCP(t, r.Client, 90)
	r.up()
	leaves := func(to string) bool {
		stop := capture(t, r.VPS, "other")
		if err := lab.SendRaw4(r.Router, "wrap1",
			lab.UDP4(port("192.168.1.211", 6000), port(to, 80), []byte("private"))); err != nil {
			t.Fatal(err)
		}
		lab.Settle()
		return len(stop()) > 0
	}
	for _, allowed := range []string{"0", "1"} {
		r.vps.write(vpsRelay + "\toption egress_private '" + allowed + "'\n" + forwardWeb + option)
		r.vps.do("up")
		for _, to := range []string{"10.77.0.5", "169.254.169.254"} {
			if got := leaves(to); got != (allowed == "1") {
				t.Errorf("egress_private %s: to %s: %v", allowed, to, got)
			}
		}
		seenTCP(t, r.Host2, client4+":90", public)
	}
	// By the public address a host reaches what clients reach, though that is at a private one. The router does not know
	// this port, and leaves it to the VPS.
	r.vps.write(vpsRelay + strings.ReplaceAll(forwardWeb, "8080", "8090") + option)
	r.vps.do("up")
	serveTCP(t, r.Host2, 80)
	seenTCP(t, r.Host2, public+":8090", public)
}
