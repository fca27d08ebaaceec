//go:build linux

package lab

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/ds4relay/ds4relay/internal/lab/vm"
)

// Addresses of the lab.
var (
	ClientIPv4  = netip.MustParseAddr("203.0.113.10")
	ClientIPv6  = netip.MustParseAddr("2001:db8:c::10")
	VPSIPv4     = netip.MustParseAddr("198.51.100.144")
	VPSIPv6     = netip.MustParseAddr("2001:db8:6ef9::1")
	VPSPrefix   = netip.MustParsePrefix("2001:db8:6ef9::/64")
	CarrierIPv4 = netip.MustParseAddr("192.0.2.1")
	CarrierIPv6 = netip.MustParseAddr("2001:db8:af::1")
	WANIPv6     = netip.MustParseAddr("2001:db8:fdd1::2")
	HomePrefix  = netip.MustParsePrefix("2001:db8:fdd2::/56") // delegated to the router
	LANPrefix   = netip.MustParsePrefix("2001:db8:fdd2::/64")
	HostIPv4    = netip.MustParseAddr("192.168.1.210")
	HostIPv6    = netip.MustParseAddr("2001:db8:fdd2::210")
	Host2IPv4   = netip.MustParseAddr("192.168.1.211")
	Host2IPv6   = netip.MustParseAddr("2001:db8:fdd2::211")
	LAN2IPv4    = netip.MustParseAddr("192.168.2.20")
)

// Device names of the lab that are not eth0.
const (
	WANDevice      = "wan"
	LANDevice      = "br-lan"
	LAN2Device     = "lan2"
	DSLiteDevice   = "ds-wan6_4" // the router's end of the softwire
	SoftwireDevice = "softwire"  // the carrier's end
)

// Options change the lab. The zero value is the usual home.
type Options struct {
	Prefix         string // start of the namespaces' names; default "ds4-"
	AccessMTU      int    // MTU of the link between isp and router; default 1500
	PathMTU        int    // MTU of the link between core and isp; default 1500
	NoIPv4Default  bool   // no DS-Lite: the router has no route to the IPv4 internet
	RPFilter       int    // net.ipv4.conf.{all,default}.rp_filter on the router
	RouterFirewall bool   // a home router's firewall, see OpenRouterFirewall
	Second         bool   // another VPS and another home
	OneNetwork     bool   // with Second: both VPSs are in one network, and none has VPSIPv4 yet, see addNetwork
	Cloud          bool   // the VPS's public address is translated to a private one, see addCloud
	VPSVM          bool   // the VPS is its own virtual machine, see connectVPSVM
	Host2VM        bool   // Host2 is its own virtual machine, which has to set up its network itself
	// The router is its own virtual machine, see connectRouterVM. There is no DS-Lite and only one host.
	RouterVM bool
}

// Net is the lab.
type Net struct {
	Client  *Host // a client on the internet
	Core    *Host // the internet: devices client, vps, isp, carrier
	Carrier *Host // AFTR of DS-Lite
	VPS     *Host // IPv4 forwarding is off
	ISP     *Host // IPv6 only: devices core, router
	Router  *Host // the home's router
	Host    *Host // the home server
	Host2   *Host // another host in the same network
	LAN2    *Host // a host in another network of the home

	VPS2        *Host // with Options.Second: another VPS, at VPS2IPv4
	CabinRouter *Host // the router of another home
	CabinHost   *Host // the other home's server

	options Options
	hosts   []*Host
}

// New creates the lab. On the machine's own kernel this takes tens of milliseconds and one process (nft).
func New(opts Options) (*Net, error) {
	if opts.Prefix == "" {
		opts.Prefix = "ds4-"
	}
	if opts.AccessMTU == 0 {
		opts.AccessMTU = 1500
	}
	if opts.PathMTU == 0 {
		opts.PathMTU = 1500
	}
	n := &Net{options: opts}
	if err := n.build(); err != nil {
		return nil, errors.Join(fmt.Errorf("lab: %w", err), n.Close())
	}
	return n, nil
}

// Close kills the programs that were started on the hosts and deletes the namespaces.
func (n *Net) Close() error {
	var errs []error
	for _, h := range n.hosts {
		errs = append(errs, h.close())
	}
	n.hosts = nil
	return errors.Join(errs...)
}

func (n *Net) build() error {
	steps := []func() error{n.addHosts, n.connectHosts, n.addRoutes}
	if n.options.VPSVM {
		steps = append(steps, n.connectVPSVM)
	}
	if n.options.Host2VM {
		steps = append(steps, joinAgent)
	}
	if n.options.RouterVM {
		steps = append(steps, n.connectRouterVM)
	} else if !n.options.NoIPv4Default {
		steps = append(steps, n.addDSLite)
	}
	if n.options.Cloud {
		steps = append(steps, n.addCloud)
	}
	if n.options.Second {
		steps = append(steps, n.addSecond)
	}
	if n.options.RouterFirewall {
		steps = append(steps, n.loadRouterFirewall)
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (n *Net) addHosts() error {
	for _, entry := range []struct {
		name string
		host **Host
	}{
		{"client", &n.Client}, {"core", &n.Core}, {"carrier", &n.Carrier}, {"vps", &n.VPS}, {"isp", &n.ISP},
		{"router", &n.Router}, {"host", &n.Host}, {"host2", &n.Host2}, {"lan2", &n.LAN2},
	} {
		h, err := newHost(n.options.Prefix + entry.name)
		if err != nil {
			return err
		}
		*entry.host = h
		n.hosts = append(n.hosts, h)
	}
	// Before the devices are created, since they copy "default".
	for _, h := range []*Host{n.Core, n.Carrier, n.ISP, n.Router} {
		if err := h.forward(); err != nil {
			return err
		}
	}
	if err := n.VPS.Sysctl("net.ipv4.ip_forward", "0"); err != nil {
		return err
	}
	for _, conf := range []string{"all", "default"} {
		if n.options.RPFilter <= 0 {
			break
		}
		if err := n.Router.Sysctl("net.ipv4.conf."+conf+".rp_filter", fmt.Sprint(n.options.RPFilter)); err != nil {
			return err
		}
	}
	return nil
}

func (n *Net) connectHosts() error {
	core, vps := []string{"198.51.100.1/24", "2001:db8:6ef9::ff/64"}, "198.51.100.144/24"
	if n.options.OneNetwork {
		core, vps = nil, VPSOwnIPv4.String()+"/24"
	}
	for i, cable := range []struct {
		mtu  int
		a, b port
	}{
		{1500, port{n.Core, "client", []string{"203.0.113.1/24", "2001:db8:c::1/64"}},
			port{n.Client, "eth0", []string{"203.0.113.10/24", "2001:db8:c::10/64"}}},
		{1500, port{n.Core, "vps", core}, port{n.VPS, "eth0", []string{vps, "2001:db8:6ef9::1/64"}}},
		{1500, port{n.Core, "carrier", []string{"192.0.2.254/24", "2001:db8:af::ff/64"}},
			port{n.Carrier, "eth0", []string{"192.0.2.1/24", "2001:db8:af::1/64"}}},
		{n.options.PathMTU, port{n.Core, "isp", []string{"2001:db8:fdd0::1/64"}},
			port{n.ISP, "core", []string{"2001:db8:fdd0::2/64"}}},
		{n.options.AccessMTU, port{n.ISP, "router", []string{"2001:db8:fdd1::1/64"}},
			port{n.Router, WANDevice, []string{"2001:db8:fdd1::2/64"}}},
		{1500, port{n.Router, "lan-host", nil},
			port{n.Host, "eth0", []string{"192.168.1.210/24", "2001:db8:fdd2::210/64"}}},
		{1500, port{n.Router, "lan-host2", nil},
			port{n.Host2, "eth0", []string{"192.168.1.211/24", "2001:db8:fdd2::211/64"}}},
		{1500, port{n.Router, LAN2Device, []string{"192.168.2.1/24"}},
			port{n.LAN2, "eth0", []string{"192.168.2.20/24"}}},
	} {
		if n.options.RouterVM && (n.atHome(cable.a.host) || n.atHome(cable.b.host)) {
			continue
		}
		if n.options.VPSVM && cable.b.host == n.VPS {
			continue
		}
		if n.options.Host2VM && cable.b.host == n.Host2 {
			if err := placeCard(vm.CardWAN, cable.a); err != nil {
				return err
			}
			continue
		}
		if err := connect(byte(i+1), cable.mtu, cable.a, cable.b); err != nil {
			return err
		}
	}
	if n.options.RouterVM {
		return nil
	}
	if err := n.Router.bridge(LANDevice, []byte{2, 0, 0, 0, 0xff, 1}, "lan-host", "lan-host2"); err != nil {
		return err
	}
	if err := (port{n.Router, LANDevice, []string{"192.168.1.1/24", "2001:db8:fdd2::1/64"}}).up(); err != nil {
		return err
	}
	return n.Router.awaitCarrier(LANDevice)
}

func (n *Net) addRoutes() error {
	for _, r := range []struct {
		host             *Host
		destination, via string
		device           string
	}{
		{n.Client, "0.0.0.0/0", "203.0.113.1", "eth0"},
		{n.Client, "::/0", "2001:db8:c::1", "eth0"},
		{n.VPS, "0.0.0.0/0", "198.51.100.1", "eth0"},
		{n.VPS, "::/0", "2001:db8:6ef9::ff", "eth0"},
		{n.Carrier, "0.0.0.0/0", "192.0.2.254", "eth0"},
		{n.Carrier, "::/0", "2001:db8:af::ff", "eth0"},
		{n.Core, "2001:db8:fdd1::/64", "2001:db8:fdd0::2", "isp"},
		{n.Core, "2001:db8:fdd2::/56", "2001:db8:fdd0::2", "isp"},
		{n.ISP, "::/0", "2001:db8:fdd0::1", "core"},
		{n.ISP, "2001:db8:fdd2::/56", "2001:db8:fdd1::2", "router"},
		{n.Host, "0.0.0.0/0", "192.168.1.1", "eth0"},
		{n.Host, "::/0", "2001:db8:fdd2::1", "eth0"},
		{n.Host2, "0.0.0.0/0", "192.168.1.1", "eth0"},
		{n.Host2, "::/0", "2001:db8:fdd2::1", "eth0"},
		{n.LAN2, "0.0.0.0/0", "192.168.2.1", "eth0"},
	} {
		if n.options.RouterVM && (n.atHome(r.host) || r.host == n.ISP && r.device == "router") {
			continue
		}
		if n.options.VPSVM && r.host == n.VPS || n.options.Host2VM && r.host == n.Host2 {
			continue
		}
		if err := r.host.route(r.destination, r.via, r.device); err != nil {
			return err
		}
	}
	if n.options.RouterVM {
		return nil
	}
	return n.addWANRoute()
}

func (n *Net) addWANRoute() error {
	return n.Router.route("::/0", "2001:db8:fdd1::1", WANDevice)
}
