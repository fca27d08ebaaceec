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
)

// Unheard says why nothing can arrive at a VPS's end of a relay, or returns nil. The relay has its address on the
// network card, if a cloud translates. device is the one on which clients arrive.
func Unheard(r *config.Relay, device string) *message.Text {
	link, err := netlink.LinkByName(device)
	if err != nil || r.Role != config.VPS || r.Standby {
		return nil // others report a device that is not there; with standby the address may be elsewhere
	}
	switch {
	case !r.NICAddr.IsValid():
		return translated(r, link)
	case !HasAddr(r.NICAddr):
		return message.New("no device has the address %s, which packets to %s carry here", r.NICAddr, r.IPAddr)
	default:
		return nil
	}
}

// Active reports whether this machine has a relay's address now, of a VPS that takes turns with another one (option
// standby); nil for others.
func Active(r *config.Relay) *bool {
	if r.Role != config.VPS || !r.Standby {
		return nil
	}
	has := HasAddr(r.Card())
	return &has
}

// standbyDevice is where clients arrive while this machine has the address of a relay that takes turns: not the device
// that has it now, since nothing may change when it comes and goes.
func standbyDevice(r *config.Relay) string {
	if !r.Standby {
		return ""
	}
	link, err := netlink.LinkByIndex(defaultDevice(unix.AF_INET))
	if err != nil {
		return ""
	}
	return link.Attrs().Name
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
