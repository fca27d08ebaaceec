//go:build !openwrt

package reconcile

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel"
)

// TestCarried: a forward may not take the packets of a tunnel that a relay runs in, unless it is for others only.
func TestCarried(t *testing.T) {
	public, other := netip.MustParseAddr("198.51.100.144"), netip.MustParseAddr("198.51.100.145")
	client, card := netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("10.0.0.5")
	wireguard := config.PortSet{Proto: config.UDP, First: 51820, Last: 51820}
	gre := config.PortSet{Proto: 47}
	all := config.Forward{Section: "server", All: true}
	limited := all
	limited.Clients = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
	for _, c := range []struct {
		name    string
		forward config.Forward
		keep    []config.PortSet
		carrier kernel.Carrier
		want    string // in the error
	}{
		{"all", all, nil, kernel.Carrier{Set: wireguard}, "list keep 'udp:51820'"},
		{"all, GRE", all, nil, kernel.Carrier{Set: gre}, "list keep 'gre'"},
		{"kept", all, []config.PortSet{wireguard}, kernel.Carrier{Set: wireguard}, ""},
		{"the port", config.Forward{Ports: []config.PortSet{{Proto: config.UDP, First: 50000, Last: 60000}}}, nil,
			kernel.Carrier{Set: wireguard}, "list keep 'udp:51820'"},
		{"another port", config.Forward{Ports: []config.PortSet{{Proto: config.UDP, First: 53, Last: 53}}}, nil,
			kernel.Carrier{Set: wireguard}, ""},
		{"at another address", all, nil, kernel.Carrier{Set: wireguard, Local: other}, ""},
		{"at this address", all, nil, kernel.Carrier{Set: wireguard, Local: public}, "198.51.100.144"},
		{"at the card's address", all, nil, kernel.Carrier{Set: wireguard, Local: card}, "198.51.100.144"},
		{"for the other end", limited, nil, kernel.Carrier{Set: wireguard, Client: client}, "list keep"},
		{"for others", limited, nil, kernel.Carrier{Set: wireguard, Client: other}, ""},
		{"for some, and the other end is unknown", limited, nil, kernel.Carrier{Set: wireguard}, ""},
	} {
		c.carrier.Device = "wg0"
		relay := &config.Relay{Name: "home", Role: config.VPS, IPAddr: public, NICAddr: card, Keep: c.keep,
			Forwards: []*config.Forward{&c.forward}}
		err := Carried([]*config.Relay{relay}, map[string][]kernel.Carrier{"home": {c.carrier, c.carrier}})
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || strings.Count(err.Error(), c.want) != 1 ||
			!strings.Contains(err.Error(), "wg0")):
			t.Errorf("%s: %v, want …%s…", c.name, err, c.want)
		}
	}
}
