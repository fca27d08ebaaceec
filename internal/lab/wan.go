//go:build linux

package lab

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// FlushWAN does to the router's wan what netifd does when the interface restarts: it deletes all addresses and routes
// except the kernel's, also those of other programs, and adds netifd's own again.
func (n *Net) FlushWAN() error {
	nl := n.Router.Netlink
	wan, err := nl.LinkByName(WANDevice)
	if err != nil {
		return err
	}
	routes, err := nl.RouteListFiltered(netlink.FAMILY_V6,
		&netlink.Route{LinkIndex: wan.Attrs().Index}, netlink.RT_FILTER_OIF)
	if err != nil {
		return fmt.Errorf("routes of %s: %w", WANDevice, err)
	}
	for _, route := range routes {
		if route.Protocol == unix.RTPROT_KERNEL {
			continue
		}
		if err := nl.RouteDel(&route); err != nil {
			return fmt.Errorf("delete route %v: %w", route, err)
		}
	}
	addresses, err := nl.AddrList(wan, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("addresses of %s: %w", WANDevice, err)
	}
	for _, addr := range addresses {
		if addr.IP.IsLinkLocalUnicast() {
			continue
		}
		if err := nl.AddrDel(wan, &addr); err != nil {
			return fmt.Errorf("delete address %v: %w", addr, err)
		}
	}
	if err := n.Router.addAddress(wan, WANIPv6.String()+"/64"); err != nil {
		return err
	}
	return n.addWANRoute()
}
