//go:build linux

package lab

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Advertised is a prefix of a router advertisement, with its preferred lifetime in seconds; 0 makes addresses in it
// deprecated.
type Advertised struct {
	Prefix    netip.Prefix
	Preferred uint32
}

// Advertise sends a router advertisement by a device (RFC 4861 §4.2): the host is a default router, and machines there
// may make addresses of the prefixes, which are on the link.
func (h *Host) Advertise(device string, prefixes ...Advertised) error {
	const (
		routerAdvertisement = 134
		prefixInformation   = 3
		onLinkAutonomous    = 0xc0
		lifetime            = 7200 // seconds
	)
	message := []byte{routerAdvertisement, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint16(message[6:], 1800)
	for _, p := range prefixes {
		option := []byte{prefixInformation, 4, byte(p.Prefix.Bits()), onLinkAutonomous}
		option = binary.BigEndian.AppendUint32(option, lifetime)
		option = binary.BigEndian.AppendUint32(option, p.Preferred)
		option = append(option, 0, 0, 0, 0)
		message = append(message, append(option, p.Prefix.Addr().AsSlice()...)...)
	}
	link, err := h.Netlink.LinkByName(device)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", h.Name, device, err)
	}
	index := link.Attrs().Index
	return h.Do(func() error {
		socket, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
		if err != nil {
			return err
		}
		defer unix.Close(socket)
		for option, value := range map[int]int{unix.IPV6_MULTICAST_HOPS: 255, unix.IPV6_MULTICAST_IF: index} {
			if err := unix.SetsockoptInt(socket, unix.IPPROTO_IPV6, option, value); err != nil {
				return err
			}
		}
		to := &unix.SockaddrInet6{Addr: netip.IPv6LinkLocalAllNodes().As16(), ZoneId: uint32(index)}
		return unix.Sendto(socket, message, 0, to)
	})
}
