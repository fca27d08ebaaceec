package proxy

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

// The addresses of a name come from outside. One that belongs to this machine would expose services that only local
// programs may reach. A link-local one may be the cloud's metadata service, which trusts the machine (169.254.169.254).

var (
	nat64      = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052
	compatible = netip.MustParsePrefix("::/96")        // RFC 4291 section 2.5.5.1
	thisHost   = netip.MustParsePrefix("0.0.0.0/8")    // RFC 1122 section 3.2.1.3
)

// meant returns the IPv4 address that an IPv6 address embeds, or the address itself.
func meant(a netip.Addr) netip.Addr {
	a = a.Unmap()
	if nat64.Contains(a) || compatible.Contains(a) && !a.IsUnspecified() && !a.IsLoopback() {
		b := a.As16()
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return a
}

// unfit returns why an address is not used, or "" if it is. local allows addresses of this machine.
func unfit(answer netip.Addr, local bool, own func(netip.Addr) (bool, error)) (string, error) {
	a := meant(answer)
	switch {
	case a.IsUnspecified(), thisHost.Contains(a):
		return "no host's address", nil
	case a.IsMulticast():
		return "a multicast address", nil
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "the broadcast address", nil
	case a.IsLinkLocalUnicast():
		return "a link-local address", nil
	case local:
		return "", nil
	case a.IsLoopback():
		return "a loopback address" + allows, nil
	}
	is, err := own(a)
	if err != nil || !is {
		return "", err
	}
	return "an address of this machine" + allows, nil
}

const allows = " (option target_local '1' allows it)"

// ownAddress reports whether the kernel delivers packets for an address to this machine, by binding a socket to it. The
// service may neither list the kernel's addresses (netlink) nor read its settings (/proc/sys).
func ownAddress(r *reserve, a netip.Addr) (bool, error) {
	bound, err := binds(r, a)
	if err != nil || !bound {
		return false, err
	}
	// No machine has these addresses. If a socket can be bound even to them (net.ipv4.ip_nonlocal_bind), binding proves
	// nothing.
	never := netip.AddrFrom4([4]byte{240, 0, 0, 1})
	if a.Is6() {
		never = netip.MustParseAddr("100::ffff:ffff:ffff:ffff") // RFC 6666
	}
	if anything, err := binds(r, never); err != nil || !anything {
		return !anything, err
	}
	// Packets to a local address have that address as their source.
	fd, err := r.socket(family(a), unix.SOCK_DGRAM)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	sa, err := sockaddr(netip.AddrPortFrom(a, 9))
	if err == nil {
		err = unix.Connect(fd, sa)
	}
	return err == nil && localAddr(fd).Addr() == a, nil // no route: not a local address
}

func binds(r *reserve, a netip.Addr) (bool, error) {
	fd, err := r.socket(family(a), unix.SOCK_DGRAM)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	sa, err := sockaddr(netip.AddrPortFrom(a, 0))
	if err != nil {
		return false, err
	}
	switch err := unix.Bind(fd, sa); err {
	case nil:
		return true, nil
	case unix.EADDRNOTAVAIL:
		return false, nil
	default:
		return false, err
	}
}
