//go:build !openwrt

package kernel

import (
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/state"
)

// cards finds the cards' addresses of those relays that have no option nicaddr, by relay.
func cards(relays []*config.Relay) (map[string]state.Card, error) {
	if !slices.ContainsFunc(relays, state.SeeksCard) {
		return nil, nil
	}
	addrs, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, unix.AF_INET) })
	if err != nil {
		return nil, message.New("list addresses: %v", err)
	}
	index := defaultDevice(unix.AF_INET)
	var known []state.CardAddr
	for _, a := range addrs {
		addr, _ := netip.AddrFromSlice(a.IP.To4())
		known = append(known, state.CardAddr{Addr: addr, ByDefault: a.LinkIndex == index})
	}
	return state.Cards(relays, known), nil
}

// defaultDevice returns the index of the device with the default route of an address family, or 0.
func defaultDevice(family int) int {
	routes, err := mainRoutes(family)
	if err != nil {
		return 0
	}
	index, least := 0, 0
	for _, route := range routes {
		device := route.LinkIndex
		if device == 0 && len(route.MultiPath) > 0 {
			device = route.MultiPath[0].LinkIndex
		}
		bits := 0
		if route.Dst != nil {
			bits, _ = route.Dst.Mask.Size()
		}
		if bits == 0 && route.Type == unix.RTN_UNICAST && device != 0 && (index == 0 || route.Priority < least) {
			index, least = device, route.Priority
		}
	}
	return index
}

// cardSet is the map in our table that has the card's addresses in use.
var cardSet = state.Set{Name: "card", Key: []state.Type{state.IPv4}, Value: []state.Type{state.IPv4}}

// orHeld returns a card's address, or while it cannot be found out the one that the relay uses now: a DHCP client may
// be about to set it anew.
func orHeld(c state.Card, r *config.Relay) netip.Addr {
	if c.Addr.IsValid() || c.None || !state.SeeksCard(r) {
		return c.Addr
	}
	used, err := elements(families["ip"], cardSet)
	if err != nil {
		return c.Addr // no cloud translates, or nothing is up
	}
	for _, e := range used {
		if e.Key.Addr == r.IPAddr {
			return e.Value.Addr
		}
	}
	return c.Addr
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
		known[i] = state.OnCard(r, orHeld(found[r.Name], r))
	}
	return known
}

// clash refuses a host at home that has an address which a VPS needs itself.
func clash(r *config.Relay) error {
	routes, err := dump(func() ([]netlink.Route, error) { return netlink.RouteList(nil, unix.AF_INET) })
	if err != nil {
		return message.New("list routes: %v", err)
	}
	addrs, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, unix.AF_INET) })
	if err != nil {
		return message.New("list addresses: %v", err)
	}
	var own, gateways []netip.Addr
	for _, a := range addrs {
		addr, _ := netip.AddrFromSlice(a.IP.To4())
		own = append(own, addr)
	}
	for _, route := range routes {
		for _, hop := range append([]*netlink.NexthopInfo{{Gw: route.Gw}}, route.MultiPath...) {
			if addr, ok := netip.AddrFromSlice(hop.Gw.To4()); ok {
				gateways = append(gateways, addr)
			}
		}
	}
	return state.Clash(r, own, gateways)
}
