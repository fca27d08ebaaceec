//go:build !openwrt && !lab

package main

import (
	"net/netip"
	"testing"

	"github.com/ds4relay/ds4relay/internal/config"
)

// TestUnheardProxies: a proxy may listen on the address that a cloud translates, and nobody would ever reach it.
func TestUnheardProxies(t *testing.T) {
	public, card := netip.MustParseAddr("198.51.100.144"), netip.MustParseAddr("10.0.0.5")
	cloud := &config.Relay{Name: "home", Role: config.VPS, IPAddr: public, NICAddr: card}
	native := &config.Relay{Name: "home", Role: config.VPS, IPAddr: public}
	atHome := &config.Relay{Name: "home", Role: config.Router, IPAddr: public, NICAddr: card}
	const want = `proxy "site": no packet to this machine has the address 198.51.100.144 (option listen): a cloud ` +
		`translates it to 10.0.0.5; write that one, or 0.0.0.0`
	for _, c := range []struct {
		listen netip.Addr
		relays []*config.Relay
		want   string // "" for no problem
	}{
		{public, []*config.Relay{cloud}, want},
		{public, []*config.Relay{cloud, cloud}, want},
		{card, []*config.Relay{cloud}, ""},
		{netip.IPv4Unspecified(), []*config.Relay{cloud}, ""},
		{public, []*config.Relay{native}, ""},
		{public, []*config.Relay{atHome}, ""},
		{public, nil, ""},
	} {
		proxies := []*config.Proxy{{Section: "other", Listen: []config.Listen{{Addr: card, First: 80, Last: 80}}},
			{Section: "site", Listen: []config.Listen{{Addr: card, First: 443, Last: 443}, {Addr: c.listen, First: 444,
				Last: 450}}}}
		got := ""
		for _, problem := range unheardProxies(proxies, c.relays) {
			got += problem.Error()
		}
		if got != c.want {
			t.Errorf("%s, %d relays: %q, want %q", c.listen, len(c.relays), got, c.want)
		}
	}
}
