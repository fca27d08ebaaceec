//go:build linux

package lab

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"

	"github.com/ds4relay/ds4relay/internal/lab/vm"
)

// DebianEnvironment is the variable with the Debian suite of the VPS, if the VPS is its own virtual machine.
const DebianEnvironment = "DS4RELAY_DEBIAN"

// RouterEnvironment is the variable with the router's architecture, if the router is its own virtual machine.
const RouterEnvironment = "DS4RELAY_ROUTER"

// atHome reports whether a host is replaced by the router's virtual machine, or is behind it.
func (n *Net) atHome(h *Host) bool {
	return h == n.Router || h == n.Host || h == n.Host2 || h == n.LAN2
}

// connectRouterVM moves the network cards that lead to the router's virtual machine to the hosts that they connect.
func (n *Net) connectRouterVM() error {
	for _, card := range []struct {
		number int
		to     port
	}{
		{vm.CardWAN, port{n.ISP, "router", []string{"2001:db8:fdd1::1/64"}}},
		{vm.CardLAN, port{n.Host, "eth0", []string{"192.168.1.210/24", "2001:db8:fdd2::210/64"}}},
	} {
		if err := placeCard(card.number, card.to); err != nil {
			return err
		}
	}
	if err := joinAgent(); err != nil {
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

// connectVPSVM connects the internet to the VPS's virtual machine, which has VPSIPv4 and VPSIPv6.
func (n *Net) connectVPSVM() error {
	if err := placeCard(vm.CardWAN,
		port{n.Core, "vps", []string{"198.51.100.1/24", "2001:db8:6ef9::ff/64"}}); err != nil {
		return err
	}
	return joinAgent()
}

// placeCard moves a network card to the host that the second virtual machine is connected to.
func placeCard(number int, to port) error {
	link, err := linkByMAC(vm.CardMAC(number))
	if err != nil {
		return err
	}
	if err := netlink.LinkSetDown(link); err != nil {
		return err
	}
	if err := netlink.LinkSetName(link, to.device); err != nil {
		return err
	}
	if err := netlink.LinkSetNsFd(link, int(to.host.ns)); err != nil {
		return err
	}
	return to.up()
}

// joinAgent sets up the link to the agent.
func joinAgent() error {
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
	return netlink.LinkSetUp(ctl)
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
	return nil, fmt.Errorf("no network card %s: run this with labctl exec -router ARCH, or -debian SUITE", mac)
}
