//go:build !openwrt

package config

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/transport"
)

const pairedFile = "config relay 'home'\n\toption role 'vps'\n\toption ipaddr '198.51.100.144'\n" +
	"\toption ip6addr '2001:db8:6ef9::/64'\n"

func TestPairedRelayWaits(t *testing.T) {
	for options, waits := range map[string]bool{
		"\tlist allow 'tcp:1-65535'\n":                               true,
		"\toption allow 'tcp:443 egress'\n":                          true,
		"\tlist allow 'all'\n\toption peeraddr '2001:db8:1::/64'\n":  false,
		"\tlist allow 'all'\n\toption peeraddr 'home.example.net'\n": false,
		"\tlist allow 'all'\n\toption transport 'wireguard'\n":       true,
		"\tlist allow 'all'\n\toption transport 'wireguard'\n\toption public_key " +
			"'hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo='\n": false,
	} {
		c, _, err := Parse("F", []byte(pairedFile+options), Defaults{Role: VPS})
		if err != nil {
			t.Errorf("%s: %v", options, err)
			continue
		}
		if got := c.Relays[0].Awaited(); got != waits {
			t.Errorf("%s waits: %v, want %v", options, got, waits)
		}
	}
}

// What the file says comes before what the home says.
func TestFileBeforeHome(t *testing.T) {
	homes := map[string]*Home{"home": {Peer: netip.MustParseAddr("2001:db8:fd::1"), File: "/relays/home"}}
	for options, want := range map[string]string{
		"\tlist allow 'all'\n": "2001:db8:fd::1",
		"\tlist allow 'all'\n\toption peeraddr '2001:db8:1::/64'\n": "2001:db8:1:0:198:51:100:144",
		"\toption peeraddr '2001:db8:1::/64'\n":                     "2001:db8:1:0:198:51:100:144", // not paired any more
	} {
		c, _, err := Parse("F", []byte(pairedFile+options), Defaults{Role: VPS, Homes: homes})
		if err != nil || c.Relays[0].Peer.String() != want {
			t.Errorf("%s: %v %v, want %s", options, err, c, want)
		}
	}
}

func TestAllowIsChecked(t *testing.T) {
	for file, want := range map[string]string{
		pairedFile:                              "option peeraddr is missing",
		pairedFile + "\tlist allow '443'\n":     "allowed is all, egress, or what keep takes",
		pairedFile + "\tlist allow 'tcp'\n":     "allowed is all, egress",
		pairedFile + "\tlist allow 'tcp:0'\n":   "allowed is all, egress",
		pairedFile + "\tlist allow 'nothing'\n": "allowed is all, egress",
		pairedFile + "\tlist allow 'all'\n\toption transport 'wireguard'\n\toption peer 'plain'\n": "allowed is one " +
			"of the two",
	} {
		if _, _, err := Parse("F", []byte(file), Defaults{Role: VPS}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want: …%s…", file, err, want)
		}
	}
	router := strings.ReplaceAll(pairedFile, "'vps'", "'router'") +
		"\toption peeraddr '2001:db8:1::/64'\n\tlist allow 'all'\n"
	c, warnings, err := Parse("F", []byte(router), Defaults{})
	if err != nil || len(warnings) != 1 || c.Relays[0].Allow != nil {
		t.Errorf("list allow on a router: %v, %v", warnings, err)
	}
}

func TestAllows(t *testing.T) {
	a := &Allowance{Ports: []PortSet{{TCP, 80, 90}, {TCP, 91, 100}, {TCP, 443, 443}, {UDP, 1, 65535}, {1, 0, 0}}}
	for set, want := range map[PortSet]bool{{TCP, 80, 100}: true, {TCP, 80, 101}: false, {TCP, 443, 443}: true,
		{TCP, 100, 443}: false, {UDP, 1, 65535}: true, {TCP, 1, 65535}: false, {1, 0, 0}: true, {47, 0, 0}: false} {
		if got := a.allows(set); got != want {
			t.Errorf("allows(%s) = %v", set, got)
		}
	}
	if every := (&Allowance{All: true}); !every.allows(PortSet{47, 0, 0}) || !every.allows(PortSet{TCP, 1, 65535}) {
		t.Error("all does not allow everything")
	}
}

// A push that goes wrong is a warning in one line, and takes nothing else with it.
func TestDamagedPush(t *testing.T) {
	file := pairedFile + "\tlist allow 'tcp:1-65535'\n\nconfig forward 'own'\n\toption proto 'tcp'\n" +
		"\toption src_dport '80'\n\toption dest_ip '192.168.1.2'\n"
	for _, push := range []string{"", "\x00", PushHeader + "config forward 'x\n", PushHeader + "config relay 'x'\n",
		PushHeader + "config forward 'x'\n\toption proto 'tcp'\n\toption src_dport '80'\n\toption dest_ip '192.168.1.3'\n"} {
		homes := map[string]*Home{"home": {Peer: netip.MustParseAddr("2001:db8:fd::1"), File: "/relays/home",
			Push: []byte(push)}, "gone": {File: "/relays/gone", Push: []byte("x")}}
		c, warnings, err := Parse("F", []byte(file), Defaults{Role: VPS, Homes: homes})
		if err != nil || len(warnings) != 1 || !strings.HasPrefix(warnings[0].Error(), `/relays/home:1: relay "home": `) ||
			len(c.Relays[0].Forwards) != 1 {
			t.Errorf("%q: %v, %v", push, warnings, err)
		}
	}
}

// pushOf is a push of one forward with these options.
func pushOf(name, port, options string) []byte {
	return []byte(PushHeader + "config forward '" + name + "'\n\toption proto 'tcp'\n\toption src_dport '" + port +
		"'\n\toption dest_ip '192.168.1.3'\n" + options)
}

// What homes tell changes the checksum of the configuration, and not that of the file.
func TestSumOfWhatIsTold(t *testing.T) {
	file := pairedFile + "\tlist allow 'tcp:1-65535'\n"
	sum := func(file string, home *Home) uint64 {
		t.Helper()
		c, _, err := Parse("F", []byte(file), Defaults{Role: VPS, Homes: map[string]*Home{"home": home}})
		if err != nil {
			t.Fatal(err)
		}
		return c.Sum
	}
	peer := netip.MustParseAddr("2001:db8:fd::1")
	was := sum(file, &Home{Peer: peer, File: "h"})
	for what, home := range map[string]*Home{
		"another address": {Peer: peer.Next(), File: "h"},
		"a key":           {Peer: peer, PublicKey: transport.Key{1}, File: "h"},
		"a push":          {Peer: peer, File: "h", Push: pushOf("web", "443", "")},
	} {
		if is := sum(file, home); is == was || !SameFile(is, was) {
			t.Errorf("%s: the checksum %x, before %x", what, is, was)
		}
	}
	if is := sum(file+"\tlist keep 'tcp:22'\n", &Home{Peer: peer, File: "h"}); SameFile(is, was) {
		t.Errorf("another file: the checksum %x, before %x", is, was)
	}
}

// Of two homes that share an address, the one whose relay's name comes first has a port that both ask for; a home that
// asks now comes last.
func TestTurnsOfHomes(t *testing.T) {
	file := pairedFile + "\tlist allow 'tcp:1-65535'\n" + strings.Replace(pairedFile, "'home'", "'cabin'", 1) +
		"\tlist allow 'tcp:1-65535'\n"
	homes := map[string]*Home{
		"home":  {Peer: netip.MustParseAddr("2001:db8:fd::1"), File: "/relays/home", Push: pushOf("web", "443", "")},
		"cabin": {Peer: netip.MustParseAddr("2001:db8:fd::2"), File: "/relays/cabin", Push: pushOf("web", "443", "")},
	}
	c, warnings, err := Parse("F", []byte(file), Defaults{Role: VPS, Homes: homes})
	if err != nil || len(warnings) != 1 || len(c.Relay("cabin").Forwards) != 1 || len(c.Relay("home").Forwards) != 0 {
		t.Fatalf("%v, %v", warnings, err)
	}
	if c.Relay("cabin").Home.LeftOut != nil || c.Relay("home").Home.LeftOut == nil {
		t.Errorf("left out are %v and %v", c.Relay("cabin").Home.LeftOut, c.Relay("home").Home.LeftOut)
	}
	for name := range homes {
		_, _, err := Parse("F", []byte(file), Defaults{Role: VPS, Homes: homes, Asking: name})
		if err == nil || !strings.Contains(err.Error(), "/relays/"+name) {
			t.Errorf("%s asks: %v", name, err)
		}
	}
	homes["home"].Push = pushOf("web", "444", "")
	for name := range homes {
		c, warnings, err := Parse("F", []byte(file), Defaults{Role: VPS, Homes: homes, Asking: name})
		if err != nil || len(warnings) > 0 || len(c.Relay(name).Forwards) != 1 {
			t.Errorf("%s asks for a port of its own: %v, %v", name, warnings, err)
		}
	}
}

func TestOptionsOfPushedForwards(t *testing.T) {
	for _, test := range []struct {
		allow, options string
		want           Egress
		taken          bool
	}{
		{"tcp:443", "", Replies, true},
		{"tcp:443 egress", "", All, true}, // as the relay says
		{"tcp:443 egress", "\toption egress 'replies'\n", Replies, true},
		{"tcp:443", "\toption enabled '1'\n", Replies, true},
		{"tcp:443", "\toption enabled '0'\n", Replies, false},
	} {
		file := pairedFile + "\toption egress 'all'\n\toption allow '" + test.allow + "'\n"
		c, warnings, err := Parse("F", []byte(file), Defaults{Role: VPS, Homes: map[string]*Home{"home": {
			Peer: netip.MustParseAddr("2001:db8:fd::1"), File: "h", Push: pushOf("web", "443", test.options)}}})
		if err != nil || len(warnings) > 0 {
			t.Fatalf("%v: %v, %v", test, warnings, err)
		}
		forwards := c.Relays[0].Forwards
		if taken := len(forwards) == 1; taken != test.taken || taken && forwards[0].Egress != test.want {
			t.Errorf("%v: %v", test, forwards)
		}
	}
}
