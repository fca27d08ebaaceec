// Package configtest makes configurations for tests.
package configtest

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// KeyDir is where the files have their keys, of which each relay has three: the private keys r0.0 and r0.1, and the
// preshared one r0.2.
const KeyDir = "/keys/"

// keys are public keys of other ends.
var keys = []string{"hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=", "f7nGBHP8bdmrmP8sbEpZDmBgiFTJM1wFJtxX0lnkLEs="}

// wireGuard writes the options of the transport wireguard for the relay number i.
func wireGuard(b *strings.Builder, r *rand.Rand, role string, i int) {
	fmt.Fprintf(b, "\toption transport 'wireguard'\n\toption public_key '%s'\n\toption private_key_file '%sr%d.%d'\n",
		keys[r.IntN(2)], KeyDir, i, r.IntN(2))
	if r.IntN(4) == 0 {
		fmt.Fprintf(b, "\toption preshared_key_file '%sr%d.2'\n", KeyDir, i)
	}
	port := 51846 + 2*i + r.IntN(2)
	if role == "vps" {
		fmt.Fprintf(b, "\toption listen_port '%d'\n", port)
		return
	}
	fmt.Fprintf(b, "\toption endpoint_port '%d'\n\toption peeraddr '%s'\n\toption persistent_keepalive '%d'\n", port,
		[]string{"198.51.100.144", "2001:db8:6ef9::1"}[r.IntN(2)], r.IntN(2)*25)
}

// Random makes a correct file for an end with that role (vps or router): up to three relays of both transports, one of
// which may have hosts in common with another.
func Random(r *rand.Rand, role string) string {
	var b strings.Builder
	relays := 1 + r.IntN(3)
	for i := range relays {
		fmt.Fprintf(&b, "config relay 'r%d'\n\toption role '%s'\n\toption device 'wrap%d'\n\toption tunlink "+
			"'%s'\n\toption ip4table '%d'\n", i, role, i+1,
			map[string]string{"vps": "eth0", "router": "wan"}[role], 42+i)
		fmt.Fprintf(&b, "\toption ipaddr '198.51.100.%d'\n", 144+i%2)
		if r.IntN(3) == 0 {
			wireGuard(&b, r, role, i)
			writeMore(&b, r, i)
			continue
		}
		fmt.Fprintf(&b, "\toption ip6addr '2001:db8:%s::/64'\n\toption peeraddr '2001:db8:%x::/64'\n",
			map[string]string{"vps": "6ef9", "router": "fdd2"}[role],
			map[string]int{"vps": 0xfdd2, "router": 0x6efa}[role]+4*i+r.IntN(2))
		if r.IntN(3) == 0 {
			fmt.Fprintf(&b, "\toption encaplimit '%d'\n", r.IntN(256))
		}
		writeMore(&b, r, i)
	}
	port := 1000
	for i := range 1 + r.IntN(6) {
		relay := r.IntN(relays)
		fmt.Fprintf(&b, "\nconfig forward 'f%d'\n\toption relay 'r%d'\n\toption dest_ip '192.168.1.%d'\n", i, relay,
			210+r.IntN(3))
		width := []int{0, 0, 0, 5, 200}[r.IntN(5)]
		fmt.Fprintf(&b, "\toption src_dport '%d-%d'\n", port, port+width)
		if shift := r.IntN(2) * 1000; shift > 0 {
			fmt.Fprintf(&b, "\toption dest_port '%d-%d'\n", port+shift, port+shift+width)
		}
		port += width + 1
		if r.IntN(3) == 0 {
			fmt.Fprintf(&b, "\tlist src_ip '203.0.113.0/24'\n\tlist src_ip '192.0.2.%d'\n", r.IntN(256))
		}
		if relay == 0 && r.IntN(3) == 0 {
			b.WriteString("\toption egress 'all'\n")
		}
	}
	if r.IntN(3) == 0 { // a relay may keep port 22 of it
		b.WriteString("\nconfig forward 'low'\n\toption relay 'r0'\n\toption src_dport '20-30'\n" +
			"\toption dest_ip '192.168.1.210'\n")
	}
	if r.IntN(3) == 0 {
		fmt.Fprintf(&b, "\nconfig forward 'rest'\n\toption relay 'r0'\n\toption proto 'all'\n\toption dest_ip "+
			"'192.168.1.%d'\n", 210+r.IntN(3))
	}
	return b.String()
}

// writeMore writes options that both transports have.
func writeMore(b *strings.Builder, r *rand.Rand, i int) {
	if r.IntN(3) == 0 {
		fmt.Fprintf(b, "\toption mtu '%d'\n", 1200+r.IntN(260))
	}
	if r.IntN(4) == 0 {
		b.WriteString("\tlist keep 'tcp:22'\n")
	}
	if i > 0 && r.IntN(4) == 0 {
		b.WriteString("\toption enabled '0'\n")
	}
}

// InCloud returns a VPS's file with a cloud that translates one of the public addresses of Random.
func InCloud(text string) string {
	const public = "\toption ipaddr '198.51.100.144'\n"
	return strings.ReplaceAll(text, public, public+"\toption nicaddr '10.0.0.5'\n")
}
