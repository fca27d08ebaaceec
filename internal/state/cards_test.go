//go:build !openwrt

package state

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/config"
)

// TestCards: the private address that a cloud translates the public one to, or why it is not known.
func TestCards(t *testing.T) {
	addr := netip.MustParseAddr
	relay := func(name, ip string) *config.Relay {
		return &config.Relay{Name: name, Role: config.VPS, IPAddr: addr(ip)}
	}
	home, cabin := relay("home", "198.51.100.144"), relay("cabin", "198.51.100.145")
	linked, given, router := *home, *cabin, *cabin
	linked.Tunlink, given.NICAddr, router.Role = "eth0", addr("10.0.0.5"), config.Router
	card := func(texts ...string) (addrs []CardAddr) {
		for _, text := range texts {
			text, elsewhere := strings.CutSuffix(text, " elsewhere")
			addrs = append(addrs, CardAddr{addr(text), !elsewhere})
		}
		return addrs
	}
	for _, c := range []struct {
		what   string
		relays []*config.Relay
		addrs  []CardAddr
		want   string // the address, "none", "" or a part of the error
	}{
		{"a cloud", []*config.Relay{home}, card("10.0.0.5", "127.0.0.1 elsewhere"), "10.0.0.5"},
		{"a carrier's", []*config.Relay{home}, card("100.64.0.5"), "100.64.0.5"},
		{"not on the way out", []*config.Relay{home}, card("10.0.0.5 elsewhere"), ""},
		{"on the card", []*config.Relay{home}, card("198.51.100.144", "10.0.0.5"), "none"},
		{"on another device", []*config.Relay{home}, card("10.0.0.5", "198.51.100.144 elsewhere"), "none"},
		{"two private ones", []*config.Relay{home}, card("10.0.0.5", "10.0.0.6"),
			"several private ones (10.0.0.5, 10.0.0.6)"},
		{"a public one besides", []*config.Relay{home}, card("10.0.0.5", "203.0.113.9"), "10.0.0.5"},
		{"the same, with tunlink", []*config.Relay{&linked}, card("10.0.0.5", "203.0.113.9"), "none"},
		{"two relays, one card", []*config.Relay{home, cabin}, card("10.0.0.5"), "may be that of relay \"cabin\""},
		{"the other one's is given", []*config.Relay{home, &given}, card("10.0.0.5"), "may be that of relay \"cabin\""},
		{"a router beside it", []*config.Relay{home, &router}, card("10.0.0.5"), "10.0.0.5"},
		{"the same public address", []*config.Relay{home, relay("cabin", "198.51.100.144")}, card("10.0.0.5"), "10.0.0.5"},
	} {
		got := Cards(c.relays, c.addrs)["home"]
		text := ""
		switch {
		case got.Err != nil:
			text = got.Err.Error()
		case got.None:
			text = "none"
		case got.Addr.IsValid():
			text = got.Addr.String()
		}
		if !strings.Contains(text, c.want) || c.want == "" && text != "" || got.Err != nil && got.Addr.IsValid() {
			t.Errorf("%s: %q, want %q", c.what, text, c.want)
		}
	}
}

// TestClash: a home cannot have what the VPS needs.
func TestClash(t *testing.T) {
	addr := netip.MustParseAddr
	for _, c := range []struct {
		host, nic string
		role      config.Role
		refused   bool
	}{
		{"10.0.0.5", "10.0.0.5", config.VPS, true}, {"172.17.0.1", "", config.VPS, true},
		{"10.0.0.1", "10.0.0.5", config.VPS, true}, {"10.0.0.1", "", config.VPS, false},
		{"10.0.0.9", "10.0.0.5", config.VPS, false}, {"172.17.0.1", "", config.Router, false},
	} {
		r := &config.Relay{Role: c.role, IPAddr: addr("198.51.100.144"), Forwards: []*config.Forward{{DestIP: addr(c.host)}}}
		if c.nic != "" {
			r.NICAddr = addr(c.nic)
		}
		err := Clash(r, []netip.Addr{addr("10.0.0.5"), addr("172.17.0.1")}, []netip.Addr{addr("10.0.0.1")})
		if (err != nil) != c.refused {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
