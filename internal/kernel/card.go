//go:build !openwrt

package kernel

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/state"
)

// card is the address of a VPS's network card that stands for a relay's public address, if a cloud translates it. It
// is not valid if it was not found: err may say why, and it is none if the public address reaches this machine itself.
type card struct {
	addr netip.Addr
	none bool
	err  error
}

// cards finds the cards' addresses of those relays that have no option nicaddr, by relay.
func cards(relays []*config.Relay) (map[string]card, error) {
	found := map[string]card{}
	if !slices.ContainsFunc(relays, seeksCard) {
		return found, nil
	}
	addrs, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, unix.AF_INET) })
	if err != nil {
		return nil, message.New("list addresses: %v", err)
	}
	for _, r := range relays {
		if seeksCard(r) {
			found[r.Name] = cardOf(r, addrs)
		}
	}
	for _, r := range relays {
		c := found[r.Name]
		for _, other := range relays {
			rival := claimed(other, found)
			if c.addr.IsValid() && rival == c.addr && other.Role == config.VPS && other.IPAddr != r.IPAddr {
				c.err = message.New("no device has the address %s (option ipaddr), and the private one that it could "+
					"be translated to, %s, may be that of relay %q; write into both which one is theirs: option "+
					"nicaddr", r.IPAddr, c.addr, other.Name)
			}
		}
		found[r.Name] = c
	}
	for name, c := range found {
		if c.err != nil {
			c.addr = netip.Addr{}
		}
		found[name] = c
	}
	return found, nil
}

// claimed is the address on the network card that a relay was given, or that was found for it.
func claimed(r *config.Relay, found map[string]card) netip.Addr {
	if c := found[r.Name]; c.addr.IsValid() {
		return c.addr
	}
	return r.Card()
}

// seeksCard reports whether a relay's address on the network card has to be found out.
func seeksCard(r *config.Relay) bool { return r.Role == config.VPS && !r.NICAddr.IsValid() }

// carrierNAT is the shared address space of carriers (RFC 6598), which some clouds use.
var carrierNAT = netip.MustParsePrefix("100.64.0.0/10")

// cardOf looks for a private address on the device with the default route. One that also has a public address may get
// packets to others, if option tunlink names a device.
func cardOf(r *config.Relay, addrs []netlink.Addr) card {
	index := defaultDevice()
	var private []string
	var last netip.Addr
	public := false
	for _, a := range addrs {
		addr, _ := netip.AddrFromSlice(a.IP.To4())
		switch {
		case addr == r.IPAddr:
			return card{none: true}
		case a.LinkIndex != index:
		case addr.IsPrivate(), carrierNAT.Contains(addr):
			private, last = append(private, addr.String()), addr
		case !config.Reserved(netip.PrefixFrom(addr, 32)):
			public = true
		}
	}
	switch {
	case public && r.Tunlink != "":
		return card{none: true}
	case len(private) == 0:
		return card{}
	case len(private) > 1:
		return card{err: message.New("no device has the address %s (option ipaddr), and it could be translated to "+
			"several private ones (%s); write the one that it is into: option nicaddr", r.IPAddr,
			strings.Join(private, ", "))}
	}
	return card{addr: last}
}

// defaultDevice returns the index of the device with the IPv4 default route, or 0.
func defaultDevice() int {
	routes, err := dump(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: unix.RT_TABLE_MAIN},
			netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return 0
	}
	index, least := 0, 0
	for _, route := range routes {
		device := route.LinkIndex
		if device == 0 && len(route.MultiPath) > 0 {
			device = route.MultiPath[0].LinkIndex
		}
		if bits, _ := maskBits(route.Dst); bits == 0 && device != 0 && (index == 0 || route.Priority < least) {
			index, least = device, route.Priority
		}
	}
	return index
}

// cardSet is the map in our table that has the card's addresses in use.
var cardSet = state.Set{Name: "card", Key: []state.Type{state.IPv4}, Value: []state.Type{state.IPv4}}

// orHeld returns the card's address, or while it cannot be found out the one that the relay uses now: a DHCP client may
// be about to set it anew.
func (c card) orHeld(r *config.Relay) netip.Addr {
	addr := c.addr
	if addr.IsValid() || c.none || !seeksCard(r) {
		return addr
	}
	used, err := elements(families["ip"], cardSet)
	if err != nil {
		return addr // no cloud translates, or nothing is up
	}
	for _, e := range used {
		if e.Key.Addr == r.IPAddr {
			addr = e.Value.Addr
		}
	}
	return addr
}

// OnCards returns the relays with the addresses of network cards that clouds translate theirs to, as far as these are
// found.
func OnCards(relays []*config.Relay) []*config.Relay {
	found, err := cards(relays)
	if err != nil {
		return relays
	}
	known := make([]*config.Relay, len(relays))
	for i, r := range relays {
		known[i] = state.OnCard(r, found[r.Name].orHeld(r))
	}
	return known
}

// clash refuses a host at home that has an address which this machine needs itself: a cloud's networks are private, as
// those of homes.
func clash(r *config.Relay) error {
	if !r.Translated() {
		return nil
	}
	routes, err := dump(func() ([]netlink.Route, error) { return netlink.RouteList(nil, unix.AF_INET) })
	if err != nil {
		return message.New("list routes: %v", err)
	}
	for _, f := range r.Forwards {
		if f.DestIP == r.NICAddr || slices.ContainsFunc(routes, func(route netlink.Route) bool {
			return route.Gw.Equal(f.DestIP.AsSlice())
		}) {
			return message.New("forward %q: %s (option dest_ip) is an address of this VPS or of its gateway: the host "+
				"at home, or the cloud's network, needs another one", f.Section, f.DestIP)
		}
	}
	return nil
}
