//go:build !openwrt

package kernel

import (
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
)

// Unheard says why nothing can arrive at a relay's end on this machine, or returns nil. local is its endpoint, device
// the one on which clients (VPS) or the VPS's packets (router) arrive.
func Unheard(r *config.Relay, local netip.Addr, device string) *message.Text {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return nil // others report that
	}
	if r.Role == config.VPS {
		return translated(r, link)
	}
	return unanswered(local, link)
}

// HasAddr reports whether a device of this machine has the IPv4 address, or if that is not known.
func HasAddr(addr netip.Addr) bool {
	addrs, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, unix.AF_INET) })
	return err != nil || slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.IP.Equal(addr.AsSlice()) })
}

// PortTaken reports whether another program, or another tunnel, has the UDP port of a VPS's relay.
func PortTaken(r *config.Relay) bool {
	if device, err := ReadWireGuard(r.Device); err == nil && device.ListenPort == r.WireGuard.Port && LinkUp(r.Device) {
		return false
	}
	for _, a := range []unix.Sockaddr{&unix.SockaddrInet6{Port: int(r.WireGuard.Port)},
		&unix.SockaddrInet4{Port: int(r.WireGuard.Port)}} {
		family := unix.AF_INET6
		if _, ok := a.(*unix.SockaddrInet4); ok {
			family = unix.AF_INET
		}
		socket, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			continue // without IPv6
		}
		err = unix.Bind(socket, a)
		_ = unix.Close(socket)
		if err == unix.EADDRINUSE {
			return true
		}
	}
	return false
}

// translated recognises a cloud that translates the public address: no device has it, and the card has private
// addresses only.
func translated(r *config.Relay, link netlink.Link) *message.Text {
	addrs, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, unix.AF_INET) })
	if err != nil {
		return nil
	}
	var private []string
	for _, a := range addrs {
		addr, _ := netip.AddrFromSlice(a.IP.To4())
		switch {
		case addr == r.IPAddr:
			return nil
		case a.LinkIndex != link.Attrs().Index:
		case !config.Reserved(netip.PrefixFrom(addr, 32)):
			return nil // the address may be routed to this machine
		default:
			private = append(private, addr.String())
		}
	}
	if len(private) == 0 {
		return nil
	}
	return message.New("no device has the address %s (option ipaddr), and %s has only %s: the provider translates the "+
		"address, and clients' packets carry the private one", r.IPAddr, link.Attrs().Name, strings.Join(private, ", "))
}

// proxyConfig is the file of ndppd(1), which answers neighbour solicitations without telling the kernel.
const proxyConfig = "/etc/ndppd.conf"

// unanswered recognises an endpoint in a network that is on the link: other routers look for it there by neighbour
// discovery, and nobody answers, because it is an address of the tunnel.
func unanswered(local netip.Addr, link netlink.Link) *message.Text {
	if _, err := os.Stat(proxyConfig); err == nil || !local.IsValid() {
		return nil
	}
	index := link.Attrs().Index
	addrs, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(link, unix.AF_INET6) })
	if err != nil {
		return nil
	}
	for _, a := range addrs {
		if a.IP.Equal(local.AsSlice()) {
			return nil
		}
	}
	proxies, err := netlink.NeighProxyList(index, unix.AF_INET6)
	if err != nil {
		return nil
	}
	for _, n := range proxies {
		if n.IP.Equal(local.AsSlice()) {
			return nil
		}
	}
	routes, err := dump(func() ([]netlink.Route, error) { return netlink.RouteList(link, unix.AF_INET6) })
	if err != nil {
		return nil
	}
	for _, route := range routes {
		if route.Dst == nil || route.Gw != nil || !route.Dst.Contains(local.AsSlice()) {
			continue
		}
		if bits, _ := route.Dst.Mask.Size(); bits > 0 && bits < 128 {
			return message.New("the network %s is on %s, where routers ask for the endpoint %s, and nobody answers",
				route.Dst.String(), link.Attrs().Name, local)
		}
	}
	return nil
}
