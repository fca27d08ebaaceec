//go:build !openwrt

package state

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
)

// A CardAddr is an IPv4 address of a VPS, and whether it is on the device with the default route.
type CardAddr struct {
	Addr      netip.Addr
	ByDefault bool
}

// SeeksCard reports whether a relay's address on the network card has to be found out.
func SeeksCard(r *config.Relay) bool {
	return r.Role == config.VPS && !r.NICAddr.IsValid() && !r.Standby
}

// Cards finds the cards' addresses of those relays that have no option nicaddr, by relay, among the machine's
// addresses.
func Cards(relays []*config.Relay, addrs []CardAddr) map[string]Card {
	found := map[string]Card{}
	for _, r := range relays {
		if SeeksCard(r) {
			found[r.Name] = cardOf(r, addrs)
		}
	}
	for _, r := range relays {
		c := found[r.Name]
		for _, other := range relays {
			rival := claimed(other, found)
			if c.Addr.IsValid() && rival == c.Addr && other.Role == config.VPS && other.IPAddr != r.IPAddr {
				c.Err = message.New("no device has the address %s (option ipaddr), and the private one that it could "+
					"be translated to, %s, may be that of relay %q; write into both which one is theirs: option "+
					"nicaddr", r.IPAddr, c.Addr, other.Name)
			}
		}
		found[r.Name] = c
	}
	for name, c := range found {
		if c.Err != nil {
			c.Addr = netip.Addr{}
		}
		found[name] = c
	}
	return found
}

// claimed is the address on the network card that a relay was given, or that was found for it.
func claimed(r *config.Relay, found map[string]Card) netip.Addr {
	if c := found[r.Name]; c.Addr.IsValid() {
		return c.Addr
	}
	return r.Card()
}

// cardOf looks for a private address on the device with the default route. If that device also has a public one, and
// option tunlink is given, ipaddr may be routed to this machine, and nothing is assumed.
func cardOf(r *config.Relay, addrs []CardAddr) Card {
	var private []string
	var last netip.Addr
	public := false
	for _, a := range addrs {
		switch {
		case a.Addr == r.IPAddr:
			return Card{None: true}
		case !a.ByDefault:
		case config.Translatable(a.Addr):
			private, last = append(private, a.Addr.String()), a.Addr
		case !config.Reserved(netip.PrefixFrom(a.Addr, 32)):
			public = true
		}
	}
	switch {
	case public && r.Tunlink != "":
		return Card{None: true}
	case len(private) == 0:
		return Card{}
	case len(private) > 1:
		return Card{Err: message.New("no device has the address %s (option ipaddr), and it could be translated to "+
			"several private ones (%s); write the one that it is into: option nicaddr", r.IPAddr,
			strings.Join(private, ", "))}
	}
	return Card{Addr: last}
}

// Clash refuses a host at home that has an address which a VPS needs itself: clouds' networks are private, as those of
// homes. own are the machine's addresses, gateways those that its routes have.
func Clash(r *config.Relay, own, gateways []netip.Addr) error {
	for _, f := range r.Forwards {
		if r.Role == config.VPS && (slices.Contains(own, f.DestIP) ||
			r.Translated() && slices.Contains(gateways, f.DestIP)) {
			return message.New("forward %q: %s (option dest_ip) is an address of this VPS or of its gateway: the host "+
				"at home, or the network here, needs another one", f.Section, f.DestIP)
		}
	}
	return nil
}
