package config

import (
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/transport"
)

// keyed is a relay with the transport WireGuard.
const keyed = `config relay 'home'
	option role 'ROLE'
	option transport 'wireguard'
	option ipaddr '198.51.100.144'
	option public_key 'BwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='
	option peeraddr '198.51.100.144'

config forward 'web'
	option src_dport '443'
	option dest_ip '192.168.1.210'
`

// TestWireGuardMistakes: each mistake with the options of WireGuard, and what is said about it.
func TestWireGuardMistakes(t *testing.T) {
	const keyWords = "allowed is the other end's public key: 44 characters, as `ds4relay pubkey` prints it there"
	const fileWords = "allowed is the name of a file from its root, such as /etc/ds4relay/keys/home"
	const key = "'BwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='"
	const second = "\nconfig relay 'cabin'\n\toption role 'ROLE'\n\toption transport 'wireguard'\n" +
		"\toption ipaddr '198.51.100.145'\n\toption public_key " + key + "\n\toption peeraddr '198.51.100.144'\n" +
		"\nconfig forward 'web'\n\toption relay 'home'\n"
	for _, c := range []struct {
		role     Role
		old, new string
		want     string // the error, or the warning
	}{
		{Router, "'wireguard'", "'gre'", `F:3: relay "home": option transport "gre": allowed is ipip6 or wireguard`},
		{Router, "\toption public_key " + key + "\n", "", `F:1: relay "home": option public_key is missing; it takes ` +
			strings.TrimPrefix(keyWords, "allowed is ")},
		{Router, key, "'key'", `F:5: relay "home": option public_key "key": ` + keyWords},
		{Router, "AAAAAAAAA='", "AAAAAAAAB='", `F:5: relay "home": option public_key ` +
			`"BwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB=": ` + keyWords},
		{Router, "\toption peeraddr '198.51.100.144'\n", "", `F:1: relay "home": option peeraddr is missing; it ` +
			`takes ` +
			"the VPS's IPv4 or IPv6 address, or its DNS name"},
		{Router, "peeraddr '198.51.100.144'", "peeraddr '2001:db8:1::/64'", `F:6: relay "home": option peeraddr ` +
			`"2001:db8:1::/64": with transport wireguard allowed is an IPv4 address such as 198.51.100.144, an IPv6 ` +
			`address such as 2001:db8::1, or a DNS name`},
		{Router, "peeraddr '", "private_key_file 'home'\n\toption peeraddr '", `F:6: relay "home": option ` +
			`private_key_file "home": ` + fileWords},
		{Router, "peeraddr '", "private_key_file '/k; reboot'\n\toption peeraddr '", `F:6: relay "home": option ` +
			`private_key_file "/k; reboot": ` + fileWords},
		{Router, "peeraddr '", "preshared_key_file '/etc/ds4relay/keys/home'\n\toption peeraddr '", `F:6: relay ` +
			`"home": option preshared_key_file "/etc/ds4relay/keys/home": /etc/ds4relay/keys/home has the private ` +
			`key; allowed is a file of its own`},
		{Router, "peeraddr '", "endpoint_port '0'\n\toption peeraddr '", `F:6: relay "home": option endpoint_port ` +
			`"0": allowed is a port from 1 to 65535`},
		{Router, "peeraddr '", "persistent_keepalive '-1'\n\toption peeraddr '", `F:6: relay "home": option ` +
			`persistent_keepalive "-1": allowed is a number of seconds from 0 (none) to 65535`},
		{VPS, "peeraddr '", "listen_port '70000'\n\toption peeraddr '", `F:6: relay "home": option listen_port ` +
			`"70000": allowed is a port from 1 to 65535`},
		{VPS, "\nconfig forward 'web'\n", second, `relay "home" has the same port; give each relay its own`},
		{Router, "\nconfig forward 'web'\n", second, `relay "home" has the same VPS and port; give each ` +
			`relay its own port there`},
		{VPS, "'443'", "'51846'", `F:9: forward "web": option src_dport "udp:51846": is the port of relay "home"'s ` +
			`own WireGuard; allowed is another one, or another port for the relay (option listen_port on the VPS, ` +
			`endpoint_port at home)`},
		{Router, "peeraddr '", "listen_port '51850'\n\toption peeraddr '", `F:6: relay "home": option listen_port ` +
			`"51850": is ignored: with transport wireguard it is for the VPS`},
		{Router, "peeraddr '", "ip6addr '2001:db8::/64'\n\toption peeraddr '", `F:6: relay "home": option ip6addr ` +
			`"2001:db8::/64": is ignored: it is for transport ipip6`},
		{VPS, "peeraddr '198.51.100.144'", "peer 'plain'\n\toption masq '0'", `F:7: relay "home": option masq "0": with ` +
			`peer plain the home answers only to 10.46.46.1, which hosts see instead of the clients; allowed is 1, or no ` +
			`option masq`},
		{VPS, "option dest_ip", "option masq '1'\n\toption dest_ip", `F:10: forward "web": option masq "1": is ignored: it ` +
			`is for the router, or for a VPS with peer plain`},
		{VPS, "x", "x", `F:6: relay "home": option peeraddr "198.51.100.144": is ignored: with transport wireguard ` +
			`it is for the router`},
	} {
		text := strings.ReplaceAll(strings.Replace(keyed, c.old, c.new, 1), "ROLE", string(c.role))
		_, warnings, err := load(t, text)
		said := warnings.Error()
		if err != nil {
			said = err.Error()
		}
		if !strings.Contains(said, c.want) || strings.Count(said, "\n") > strings.Count(c.want, "\n")+1 {
			t.Errorf("%s, %s: got\n%s\nwant\n%s", c.role, c.new, said, c.want)
		}
	}
	if k, ok := transport.ParseKey(strings.Trim(key, "'")); !ok || !k.Valid() {
		t.Errorf("the key of the test: %v", k)
	}
}
