//go:build linux

package lab

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// port is one end of a link.
type port struct {
	host      *Host
	device    string
	addresses []string // with prefix lengths
}

// connect connects two hosts by a cable. number determines the MAC addresses, 02:00:00:00:NN:01 and :02.
func connect(number byte, mtu int, a, b port) error {
	mac := func(end byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, number, end} }
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr, attrs.MTU = a.device, mac(1), mtu
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerHardwareAddr, veth.PeerMTU = b.device, mac(2), uint32(mtu)
	veth.PeerNamespace = netlink.NsFd(b.host.ns)
	if err := a.host.Netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("%s: add veth %s to %s: %w", a.host.Name, a.device, b.host.Name, err)
	}
	for _, end := range []port{a, b} {
		if err := end.up(); err != nil {
			return err
		}
	}
	return nil
}

// up brings up the port's device and adds its addresses.
func (p port) up() error {
	link, err := p.host.Netlink.LinkByName(p.device)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", p.host.Name, p.device, err)
	}
	if err := p.host.Netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("%s: set %s up: %w", p.host.Name, p.device, err)
	}
	for _, address := range p.addresses {
		if err := p.host.addAddress(link, address); err != nil {
			return err
		}
	}
	return nil
}

func (h *Host) addAddress(link netlink.Link, address string) error {
	addr, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	if addr.IP.To4() == nil {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := h.Netlink.AddrAdd(link, addr); err != nil {
		return fmt.Errorf("%s: add %s to %s: %w", h.Name, address, link.Attrs().Name, err)
	}
	return nil
}

// bridge creates a bridge over existing devices.
func (h *Host) bridge(name string, mac net.HardwareAddr, ports ...string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = name, mac
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	if err := h.Netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("%s: add bridge %s: %w", h.Name, name, err)
	}
	for _, port := range ports {
		link, err := h.Netlink.LinkByName(port)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", h.Name, port, err)
		}
		if err := h.Netlink.LinkSetMaster(link, bridge); err != nil {
			return fmt.Errorf("%s: put %s into %s: %w", h.Name, port, name, err)
		}
	}
	return nil
}

// awaitCarrier waits until a bridge has noticed its ports' carrier, which the kernel reports with a delay
// (net/core/link_watch.c).
func (h *Host) awaitCarrier(bridge string) error {
	for range 100 {
		link, err := h.Netlink.LinkByName(bridge)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", h.Name, bridge, err)
		}
		if link.Attrs().RawFlags&unix.IFF_LOWER_UP != 0 {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("%s: bridge %s has no carrier after 10 seconds", h.Name, bridge)
}

// tunnel creates an ipip6 device without an encapsulation limit, as DS-Lite requires (RFC 6333 §5.3: no option header).
func (h *Host) tunnel(name string, local, remote netip.Addr, mtu int, address string) error {
	const ignoreEncapLimit = 0x1 // IP6_TNL_F_IGN_ENCAP_LIMIT, linux/ip6_tunnel.h
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, mtu
	err := h.Netlink.LinkAdd(&netlink.Ip6tnl{
		LinkAttrs: attrs, Local: local.AsSlice(), Remote: remote.AsSlice(),
		Ttl: 64, Flags: ignoreEncapLimit, Proto: unix.IPPROTO_IPIP,
	})
	if err != nil {
		return fmt.Errorf("%s: add tunnel %s: %w (is the module ip6_tunnel loaded?)", h.Name, name, err)
	}
	return port{h, name, []string{address}}.up()
}

// route adds a static route; via is empty if the destination is on the link or behind a tunnel.
func (h *Host) route(destination, via, device string) error {
	link, err := h.Netlink.LinkByName(device)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", h.Name, device, err)
	}
	_, dst, err := net.ParseCIDR(destination)
	if err != nil {
		return err
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst, Protocol: unix.RTPROT_STATIC}
	if via != "" {
		route.Gw = net.ParseIP(via)
	} else if dst.IP.To4() != nil {
		route.Scope = netlink.SCOPE_LINK
	}
	if err := h.Netlink.RouteAdd(route); err != nil {
		return fmt.Errorf("%s: add route %s via %q dev %s: %w", h.Name, destination, via, device, err)
	}
	return nil
}

// forward turns on routing.
func (h *Host) forward() error {
	if err := h.Sysctl("net.ipv6.conf.all.forwarding", "1"); err != nil {
		return err
	}
	return h.Sysctl("net.ipv4.ip_forward", "1")
}
