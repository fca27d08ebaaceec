//go:build linux

package lab

import (
	"net/netip"
)

// Addresses that Options.Second and Options.OneNetwork add.
var (
	VPSOwnIPv4 = netip.MustParseAddr("198.51.100.150") // the VPS's with OneNetwork, in place of VPSIPv4
	VPS2IPv4   = netip.MustParseAddr("198.51.100.200")
	VPS2Prefix = netip.MustParsePrefix("2001:db8:6efa::/64")
	CabinLAN   = netip.MustParsePrefix("2001:db8:fdd6::/64")
)

// addSecond adds another VPS (VPS2), and another home of the same provider (CabinRouter, CabinHost) with the same
// private addresses as the first one and without IPv4 internet.
func (n *Net) addSecond() error {
	for _, entry := range []struct {
		name string
		host **Host
	}{{"vps2", &n.VPS2}, {"cabin", &n.CabinRouter}, {"cabin-host", &n.CabinHost}} {
		h, err := newHost(n.options.Prefix + entry.name)
		if err != nil {
			return err
		}
		*entry.host = h
		n.hosts = append(n.hosts, h)
	}
	if err := n.CabinRouter.forward(); err != nil {
		return err
	}
	core, vps2 := []string{"198.51.100.193/26", "2001:db8:6efa::ff/64"}, "198.51.100.200/26"
	gateway := "198.51.100.193"
	if n.options.OneNetwork {
		core, vps2, gateway = nil, "198.51.100.200/24", "198.51.100.1"
	}
	for i, cable := range []struct{ a, b port }{
		{port{n.Core, "vps2", core}, port{n.VPS2, "eth0", []string{vps2, "2001:db8:6efa::1/64"}}},
		{port{n.ISP, "cabin", []string{"2001:db8:fdd5::1/64"}},
			port{n.CabinRouter, WANDevice, []string{"2001:db8:fdd5::2/64"}}},
		{port{n.CabinRouter, LANDevice, []string{"192.168.1.1/24", "2001:db8:fdd6::1/64"}},
			port{n.CabinHost, "eth0", []string{"192.168.1.210/24", "2001:db8:fdd6::210/64"}}},
	} {
		if err := connect(byte(0x40+i), 1500, cable.a, cable.b); err != nil {
			return err
		}
	}
	if n.options.OneNetwork {
		if err := n.addNetwork(); err != nil {
			return err
		}
	}
	for _, r := range []struct {
		host             *Host
		destination, via string
		device           string
	}{
		{n.VPS2, "0.0.0.0/0", gateway, "eth0"},
		{n.VPS2, "::/0", "2001:db8:6efa::ff", "eth0"},
		{n.Core, "2001:db8:fdd5::/64", "2001:db8:fdd0::2", "isp"},
		{n.Core, "2001:db8:fdd6::/56", "2001:db8:fdd0::2", "isp"},
		{n.ISP, "2001:db8:fdd6::/56", "2001:db8:fdd5::2", "cabin"},
		{n.CabinRouter, "::/0", "2001:db8:fdd5::1", WANDevice},
		{n.CabinHost, "0.0.0.0/0", "192.168.1.1", "eth0"},
		{n.CabinHost, "::/0", "2001:db8:fdd6::1", "eth0"},
	} {
		if err := r.host.route(r.destination, r.via, r.device); err != nil {
			return err
		}
	}
	return nil
}

// addNetwork puts both VPSs into one network with their gateway, as a provider's switch does: an address may move from
// one to the other. Their IPv6 prefixes stay apart.
func (n *Net) addNetwork() error {
	const name = "network"
	if err := n.Core.bridge(name, []byte{2, 0, 0, 0, 0xff, 2}, "vps", "vps2"); err != nil {
		return err
	}
	gateway := port{n.Core, name, []string{"198.51.100.1/24", "2001:db8:6ef9::ff/64", "2001:db8:6efa::ff/64"}}
	if err := gateway.up(); err != nil {
		return err
	}
	return n.Core.awaitCarrier(name)
}
