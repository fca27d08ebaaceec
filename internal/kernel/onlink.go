package kernel

import (
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/platform"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// autoLocal finds a router's endpoint where that is auto: in the prefix delegated to its interface, else in the network
// of the uplink. While there is neither, an existing tunnel keeps its endpoint, because a new prefix arrives as an
// ifdown and an ifup. awaited is what there is not.
func (k *Kernel) autoLocal(r *config.Relay, networks platform.Networks) (local netip.Addr, awaited *message.Text,
	err error) {
	link, err := k.linkOf(r)
	if err != nil || link != nil && k.KeepLocals && link.Local().IsValid() {
		if link != nil {
			local = link.Local()
		}
		return local, nil, err
	}
	device := r.Tunlink
	if networks != nil {
		device = ""
		if uplink := networks.Uplink(r); uplink != nil && uplink.Up {
			device = uplink.Device
			for _, prefix := range uplink.Prefixes {
				if prefix.Bits() <= 64 && prefix.Addr().IsGlobalUnicast() && !prefix.Addr().IsPrivate() {
					return transport.Derive(prefix, r.IPAddr), nil, nil
				}
			}
		}
	}
	switch {
	case device == "":
		device = uplinkTo(r.Peer)
	case networks == nil && link == nil:
		if _, _, err := devices(r, nil, k.platform()); err != nil {
			return local, nil, err
		}
	}
	addrs, err := addrs6()
	if err != nil {
		return local, nil, err
	}
	// An endpoint of a delegated prefix is on the tunnel; it does not move because that prefix is late.
	delegated := networks != nil && link != nil && slices.ContainsFunc(addrs, func(a addr6) bool {
		return a.addr == link.Local() && (a.device == link.Name || a.device == "lo")
	})
	var held netip.Addr
	if link != nil {
		held = link.Local()
	}
	if addr := lasting(addrs, device, held); addr.IsValid() && !delegated {
		derived := transport.Derive(netip.PrefixFrom(addr, 64), r.IPAddr)
		on, err := segmentOf(derived)
		if on == device && err == nil {
			return derived, nil, nil
		}
		return addr, nil, err
	}
	switch {
	case networks != nil:
		awaited = networks.Awaited(r)
	case device == "":
		awaited = message.New("an IPv6 default route (`ip -6 route`)")
	default:
		awaited = message.New("a lasting public IPv6 address on %s (`ip -6 address show dev %s`: global, not "+
			"temporary or deprecated)", device, device)
	}
	if link != nil {
		local = link.Local()
	}
	return local, awaited, nil
}

// uplinkTo returns the device of the route to an address, or to the internet if that is not known; "" without one.
func uplinkTo(peer netip.Addr) string {
	if !peer.Is6() {
		peer = somewhere6
	}
	if route, err := routeTo(peer, netip.Addr{}); err == nil {
		return route.device
	}
	// OpenWrt's default routes are for packets from the provider's addresses only.
	routes, _ := mainRoutes(unix.AF_INET6)
	device, metric := "", 0
	for _, r := range routes {
		if r.Dst != nil && !r.Dst.IP.IsUnspecified() || r.Type != unix.RTN_UNICAST || device != "" && r.Priority >= metric {
			continue
		}
		if link, err := netlink.LinkByIndex(r.LinkIndex); err == nil {
			device, metric = link.Attrs().Name, r.Priority
		}
	}
	return device
}

// mainRoutes returns the main table's routes of an address family (unix.AF_INET, unix.AF_INET6).
func mainRoutes(family int) ([]netlink.Route, error) {
	return dump(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN},
			netlink.RT_FILTER_TABLE)
	})
}

// addr6 is an IPv6 address of this machine.
type addr6 struct {
	addr      netip.Addr
	device    string
	flags     int
	preferred int // lifetime in seconds
}

func addrs6() ([]addr6, error) {
	list, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, unix.AF_INET6) })
	if err != nil {
		return nil, message.New("list addresses: %v", err)
	}
	names := map[int]string{}
	var addrs []addr6
	for _, a := range list {
		if names[a.LinkIndex] == "" {
			link, err := netlink.LinkByIndex(a.LinkIndex)
			if err != nil {
				continue // it has just gone
			}
			names[a.LinkIndex] = link.Attrs().Name
		}
		addr, _ := netip.AddrFromSlice(a.IP)
		addrs = append(addrs, addr6{addr, names[a.LinkIndex], a.Flags, a.PreferedLft})
	}
	return addrs, nil
}

// Differences of lifetimes, in seconds, that say nothing: of addresses that are renewed together, and of those that two
// routers renew, each at the latest after MaxRtrAdvInterval (RFC 4861 §6.2.1).
const (
	renewed    = 60
	advertised = 1800
)

// lasting returns the public address of a device that stays preferred for the longest time, or one in the /64 of the
// endpoint that is held now, if that does not last much shorter. A temporary one changes each day; a deprecated one is
// of a prefix that the home had before.
func lasting(addrs []addr6, device string, held netip.Addr) (best netip.Addr) {
	most := 0
	for _, a := range addrs {
		const not = unix.IFA_F_TEMPORARY | unix.IFA_F_DEPRECATED | unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED
		life := a.preferred
		if a.flags&unix.IFA_F_PERMANENT != 0 {
			life = 1 << 30
		}
		if held.IsValid() && netip.PrefixFrom(a.addr, 64).Masked().Contains(held) {
			life += advertised
		}
		if a.device == device && a.flags&not == 0 && a.addr.IsGlobalUnicast() && !a.addr.IsPrivate() &&
			(!best.IsValid() || life-renewed > most) {
			best, most = a.addr, life
		}
	}
	return best
}

// segmentOf returns the device of the network that an address is in, if neighbours there ask for it (RFC 4861 §7.2); ""
// otherwise.
func segmentOf(addr netip.Addr) (device string, err error) {
	routes, err := mainRoutes(unix.AF_INET6)
	if err != nil {
		return "", message.New("list routes: %v", err)
	}
	index, longest := 0, 0
	for _, r := range routes {
		if r.Dst == nil || !r.Dst.Contains(addr.AsSlice()) {
			continue
		}
		if bits, _ := r.Dst.Mask.Size(); bits > longest && bits < 128 {
			index, longest = 0, bits
			if r.Gw == nil && r.Via == nil && len(r.MultiPath) == 0 && r.Type == unix.RTN_UNICAST {
				index = r.LinkIndex
			}
		}
	}
	if index == 0 {
		return "", nil
	}
	link, err := netlink.LinkByIndex(index)
	if err != nil || link.Attrs().RawFlags&(unix.IFF_NOARP|unix.IFF_POINTOPOINT|unix.IFF_LOOPBACK) != 0 {
		return "", nil
	}
	return link.Attrs().Name, nil
}

// askedOn returns the device where neighbours ask for a router's endpoint: its uplink, if the endpoint is in a network
// there; "" otherwise. An endpoint that is there stays while the network or the uplink is gone. own is the tunnel.
func askedOn(local netip.Addr, uplink, own string) (device string, err error) {
	device, err = segmentOf(local)
	if err != nil || device != "" && device == uplink {
		return device, err
	}
	if device != "" && uplink != "" {
		return "", nil
	}
	addrs, err := addrs6()
	for _, a := range addrs {
		if a.addr == local && a.device != own && a.device != "lo" {
			return a.device, nil
		}
	}
	return "", err
}
