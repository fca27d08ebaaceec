package transport

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/packet"
)

// TestPublic: a public key is the one that another implementation computes.
func TestPublic(t *testing.T) {
	for i := range 200 {
		var s Secret
		if i > 0 {
			_, _ = rand.Read(s[:])
		}
		other, err := ecdh.X25519().NewPrivateKey(s[:])
		if err != nil {
			t.Fatal(err)
		}
		if want := Key(other.PublicKey().Bytes()); s.Public() != want || s.Clamp().Public() != want {
			t.Fatalf("key %d: %s, want %s", i, s.Public(), want)
		}
	}
}

// TestSecret: no verb of fmt and no encoder shows a key.
func TestSecret(t *testing.T) {
	secret := Secret{0x41, 0x42, 0x43, 0x44}
	tunnel := WireGuard{Private: secret, Preshared: secret}
	encoded, err := json.Marshal(tunnel)
	if err != nil {
		t.Fatal(err)
	}
	text := string(encoded) + tunnel.Settings(WireGuard{}) + tunnel.Arguments()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		text += fmt.Sprintf(verb, tunnel) + fmt.Sprintf(verb, secret) + fmt.Sprintf(verb, &tunnel)
	}
	for _, part := range []string{"ABCD", "41424344", "65 66 67", "0x41", "QUJDR", Key(secret).String()} {
		if strings.Contains(text, part) {
			t.Errorf("%q is in %s", part, text)
		}
	}
}

// TestParseKey: what wg(8) takes as a key.
func TestParseKey(t *testing.T) {
	want := Key{1, 2, 3, 31: 9}
	for text, ok := range map[string]bool{
		want.String(): true, "": false, "short": false, want.String() + "=": false, " " + want.String()[1:]: false,
		strings.Repeat("A", 44): false, strings.Repeat("/", 43) + "=": false, strings.Repeat("A", 43) + "=": true,
	} {
		if key, got := ParseKey(text); got != ok || text == want.String() && key != want {
			t.Errorf("%q: %v, %v", text, key, got)
		}
	}
}

// TestSettings: the arguments of `wg set` for a new device and for each kind of change.
func TestSettings(t *testing.T) {
	a := WireGuard{Remote: netip.MustParseAddrPort("198.51.100.144:51846"), Mark: 0xfe000000, Peer: Key{1},
		Private: Secret{1}, AllowedIPs: "0.0.0.0/0", Keepalive: 25, PrivateFile: "/etc/ds4relay/keys/home"}
	key := Key{1}.String()
	change := func(f func(*WireGuard)) WireGuard {
		b := a
		f(&b)
		return b
	}
	for _, c := range []struct {
		name         string
		before, want WireGuard
		text         string
	}{
		{"new", WireGuard{}, a, "fwmark 0xfe000000 private-key /etc/ds4relay/keys/home peer " + key +
			" endpoint 198.51.100.144:51846 persistent-keepalive 25 allowed-ips 0.0.0.0/0"},
		{"same", a, a, "peer " + key},
		{"preshared", a, change(func(t *WireGuard) { t.Preshared, t.PresharedFile = Secret{2}, "/k" }),
			"peer " + key + " preshared-key /k"},
		{"no preshared", change(func(t *WireGuard) { t.Preshared = Secret{2} }), a,
			"peer " + key + " preshared-key /dev/null"},
		{"port and no keepalive", a, change(func(t *WireGuard) { t.ListenPort, t.Keepalive = 7, 0 }),
			"listen-port 7 peer " + key + " persistent-keepalive 0"},
		{"another peer", change(func(t *WireGuard) { t.Peer = Key{2} }), a, "peer " + Key{2}.String() +
			" remove peer " + key + " endpoint 198.51.100.144:51846 persistent-keepalive 25 allowed-ips 0.0.0.0/0"},
		{"back to a key that only the kernel had", a, change(func(t *WireGuard) {
			t.Private, t.PrivateFile = Secret{3}, ""
		}), "private-key FILE peer " + key + " remove peer " + key + " endpoint 198.51.100.144:51846 " +
			"persistent-keepalive 25 allowed-ips 0.0.0.0/0"},
		{"another address", a, change(func(t *WireGuard) { t.Remote = netip.MustParseAddrPort("[2001:db8::1]:7") }),
			"peer " + key + " persistent-keepalive 0 peer " + key + " endpoint [2001:db8::1]:7 persistent-keepalive " +
				"25"},
		{"the VPS's other private key", change(func(t *WireGuard) { t.Keepalive = 0 }), change(func(t *WireGuard) {
			t.Private, t.Keepalive = Secret{3}, 0
		}), "private-key /etc/ds4relay/keys/home peer " + key},
	} {
		if got := c.want.Settings(c.before); got != c.text {
			t.Errorf("%s: %q, want %q", c.name, got, c.text)
		}
	}
}

// TestWireOfWireGuard: each end recognises its own packets, also before it knows where the other one is, and errors
// about them.
func TestWireOfWireGuard(t *testing.T) {
	vps, home := netip.MustParseAddrPort("198.51.100.144:51846"), netip.MustParseAddrPort("192.0.2.1:40112")
	other := netip.MustParseAddrPort("192.0.2.1:40113")
	router := WireGuard{Remote: vps}
	knows, learns := WireGuard{ListenPort: 51846, Remote: home}, WireGuard{ListenPort: 51846}
	udp := func(from, to netip.AddrPort) packet.Packet {
		return packet.Packet{Proto: packet.UDP, Src: from.Addr(), SrcPort: from.Port(), Dst: to.Addr(),
			DstPort: to.Port()}
	}
	inner := udp(vps, home)
	inner.Outer = &packet.Outer{}
	tcp := udp(vps, home)
	tcp.Proto = packet.TCP
	refusal := func(about packet.Packet) packet.Packet {
		return packet.Packet{Proto: packet.ICMP, Type: packet.Unreachable, Code: packet.PortUnreachable, Quoted: &about}
	}
	for _, c := range []struct {
		name   string
		tunnel WireGuard
		packet packet.Packet
		want   string // Sends, Receives, Refused
	}{
		{"to the VPS", router, udp(home, vps), "s--"},
		{"from the VPS", router, udp(vps, home), "-r-"},
		{"from another port of the VPS", router, udp(netip.MustParseAddrPort("198.51.100.144:53"), home), "---"},
		{"to the home", knows, udp(vps, home), "s--"},
		{"from the home", knows, udp(home, vps), "-r-"},
		{"from another port of the home", knows, udp(other, vps), "---"},
		{"from a home that is not known yet", learns, udp(other, vps), "-r-"},
		{"to it", learns, udp(vps, other), "s--"},
		{"from another program of the VPS", learns, udp(netip.MustParseAddrPort("198.51.100.144:53"), home), "---"},
		{"a tunnel without either", WireGuard{}, udp(vps, home), "---"},
		{"an inner packet", router, inner, "---"},
		{"no UDP", router, tcp, "---"},
		{"nobody listens there", router, refusal(udp(home, vps)), "--e"},
		{"nobody listens elsewhere", router, refusal(udp(home, netip.MustParseAddrPort("198.51.100.144:53"))), "---"},
	} {
		got := ""
		p := &c.packet
		for i, yes := range []bool{c.tunnel.Sends(p), c.tunnel.Receives(p), c.tunnel.Refused(p)} {
			if yes {
				got += "sre"[i : i+1]
			} else {
				got += "-"
			}
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
