//go:build linux

package lab

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"

	"github.com/ds4relay/ds4relay/internal/lab/vm"
)

// RouterEnvironment names, in a lab with a router of its own, the router's architecture.
const RouterEnvironment = "DS4RELAY_ROUTER"

// atHome are the hosts that a router of its own takes the place of, or is in front of.
func (n *Net) atHome(h *Host) bool {
	return h == n.Router || h == n.Host || h == n.Host2 || h == n.LAN2
}

// connectRouterVM puts the cards that lead to the router's virtual machine where they belong.
func (n *Net) connectRouterVM() error {
	for _, card := range []struct {
		number int
		to     port
	}{
		{vm.CardWAN, port{n.ISP, "router", []string{"2001:db8:fdd1::1/64"}}},
		{vm.CardLAN, port{n.Host, "eth0", []string{"192.168.1.210/24", "2001:db8:fdd2::210/64"}}},
	} {
		link, err := linkByMAC(vm.CardMAC(card.number))
		if err != nil {
			return err
		}
		if err := netlink.LinkSetDown(link); err != nil {
			return err
		}
		if err := netlink.LinkSetName(link, card.to.device); err != nil {
			return err
		}
		if err := netlink.LinkSetNsFd(link, int(card.to.host.ns)); err != nil {
			return err
		}
		if err := card.to.up(); err != nil {
			return err
		}
	}
	ctl, err := linkByMAC(vm.CardMAC(vm.CardCtl))
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(vm.CtlPeer)
	if err != nil {
		return err
	}
	if err := netlink.AddrReplace(ctl, addr); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(ctl); err != nil {
		return err
	}
	for _, r := range []struct {
		host             *Host
		destination, via string
		device           string
	}{
		{n.ISP, "2001:db8:fdd2::/56", "2001:db8:fdd1::2", "router"},
		{n.Host, "0.0.0.0/0", "192.168.1.1", "eth0"},
		{n.Host, "::/0", "2001:db8:fdd2::1", "eth0"},
	} {
		if err := r.host.route(r.destination, r.via, r.device); err != nil {
			return err
		}
	}
	return nil
}

func linkByMAC(mac string) (netlink.Link, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	want, err := net.ParseMAC(mac)
	if err != nil {
		return nil, err
	}
	for _, link := range links {
		if link.Attrs().HardwareAddr.String() == want.String() {
			return link, nil
		}
	}
	return nil, fmt.Errorf("no network card %s: run this with labctl exec -router ARCH", mac)
}
