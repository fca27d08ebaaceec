//go:build linux

package lab

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	headers "github.com/ds4relay/ds4relay/internal/packet"
)

// UDP4 returns an IPv4 packet with a UDP datagram and correct checksums, DF not set.
func UDP4(src, dst netip.AddrPort, payload []byte) []byte {
	return IPv4(src.Addr(), dst.Addr(), unix.IPPROTO_UDP, udp(src, dst, payload))
}

// SendUDP6 sends a UDP datagram over IPv6 from any source address.
func SendUDP6(h *Host, src, dst netip.AddrPort, payload []byte) error {
	return SendRaw6(h, src.Addr(), dst.Addr(), "", unix.IPPROTO_UDP, udp(src, dst, payload))
}

// udp returns a datagram with a correct checksum; both kinds of addresses have the same pseudo-header, but for zeros.
func udp(src, dst netip.AddrPort, payload []byte) []byte {
	udp := binary.BigEndian.AppendUint16(nil, src.Port())
	udp = binary.BigEndian.AppendUint16(udp, dst.Port())
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(payload)))
	udp = append(udp, 0, 0)
	udp = append(udp, payload...)
	pseudo := append(src.Addr().AsSlice(), dst.Addr().AsSlice()...)
	pseudo = append(pseudo, 0, unix.IPPROTO_UDP, byte(len(udp)>>8), byte(len(udp)))
	sum := headers.Checksum(append(pseudo, udp...))
	if sum == 0 {
		sum = 0xffff // RFC 768: 0 means no checksum
	}
	binary.BigEndian.PutUint16(udp[6:], sum)
	return udp
}

// IPv4 returns an IPv4 packet without options.
func IPv4(src, dst netip.Addr, proto byte, payload []byte) []byte {
	packet := []byte{0x45, 0}
	packet = binary.BigEndian.AppendUint16(packet, uint16(20+len(payload)))
	packet = append(packet, 0x12, 0x34, 0, 0, 64, proto, 0, 0)
	packet = append(packet, src.AsSlice()...)
	packet = append(packet, dst.AsSlice()...)
	binary.BigEndian.PutUint16(packet[10:], headers.Checksum(packet))
	return append(packet, payload...)
}

// SendRaw6 sends an IPv6 packet from any source address, routed by its destination, or through dev unless it is empty.
// The payload follows the fixed header unchanged; proto is its next header.
func SendRaw6(h *Host, src, dst netip.Addr, dev string, proto byte, payload []byte) error {
	packet := []byte{0x60, 0, 0, 0}
	packet = binary.BigEndian.AppendUint16(packet, uint16(len(payload)))
	packet = append(packet, proto, 64)
	packet = append(packet, src.AsSlice()...)
	packet = append(packet, dst.AsSlice()...)
	packet = append(packet, payload...)
	return sendRaw(h, unix.AF_INET6, dev, packet, &unix.SockaddrInet6{Addr: dst.As16()})
}

// Send4in6 sends an IPv4 packet, for example from UDP4, inside an IPv6 packet from any source address.
func Send4in6(h *Host, src, dst netip.Addr, inner []byte) error {
	return SendRaw6(h, src, dst, "", unix.IPPROTO_IPIP, inner)
}

// SendRaw4 sends an IPv4 packet with any source address out of dev. Into a tunnel it bypasses the host's netfilter; on
// an Ethernet device the host sends it like a packet of its own.
func SendRaw4(h *Host, dev string, packet []byte) error {
	if len(packet) < 20 {
		return fmt.Errorf("%s: send to %s: %d bytes are no IPv4 packet", h.Name, dev, len(packet))
	}
	link, err := h.Netlink.LinkByName(dev)
	if err != nil {
		return fmt.Errorf("%s: send to %s: %w", h.Name, dev, err)
	}
	if link.Attrs().EncapType == "ether" {
		return sendRaw(h, unix.AF_INET, dev, packet, &unix.SockaddrInet4{Addr: [4]byte(packet[16:])})
	}
	return sendToLink(h, link, packet)
}

// Flood sends n IPv4 packets out of an Ethernet device, like SendRaw4, as fast as the host can.
func Flood(h *Host, dev string, n int, packet func(i int) []byte) error {
	err := h.Do(func() error {
		socket, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(socket)
		if err := unix.BindToDevice(socket, dev); err != nil {
			return err
		}
		for i := range n {
			p := packet(i)
			if err := unix.Sendto(socket, p, 0, &unix.SockaddrInet4{Addr: [4]byte(p[16:])}); err != nil &&
				err != unix.ENOBUFS {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: flood %s: %w", h.Name, dev, err)
	}
	return nil
}

// TCP4 returns an IPv4 packet with a TCP segment without data; flags as in Packet.TCPFlags.
func TCP4(src, dst netip.AddrPort, flags byte) []byte {
	tcp := binary.BigEndian.AppendUint16(nil, src.Port())
	tcp = binary.BigEndian.AppendUint16(tcp, dst.Port())
	tcp = append(tcp, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0)
	pseudo := append(src.Addr().AsSlice(), dst.Addr().AsSlice()...)
	pseudo = append(pseudo, 0, unix.IPPROTO_TCP, 0, byte(len(tcp)))
	binary.BigEndian.PutUint16(tcp[16:], headers.Checksum(append(pseudo, tcp...)))
	return IPv4(src.Addr(), dst.Addr(), unix.IPPROTO_TCP, tcp)
}

func sendRaw(h *Host, family int, dev string, packet []byte, to unix.Sockaddr) error {
	err := h.Do(func() error {
		socket, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(socket)
		if dev != "" {
			if err := unix.BindToDevice(socket, dev); err != nil {
				return err
			}
		}
		return unix.Sendto(socket, packet, 0, to)
	})
	if err != nil {
		return fmt.Errorf("%s: send raw packet: %w", h.Name, err)
	}
	return nil
}

func sendToLink(h *Host, link netlink.Link, packet []byte) error {
	err := h.Do(func() error {
		// SOCK_DGRAM needs a link address, which for an ip6tnl has 16 bytes and does not fit SockaddrLinklayer.
		socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(socket)
		return unix.Sendto(socket, packet, 0, &unix.SockaddrLinklayer{
			Protocol: bigEndian(unix.ETH_P_IP), Ifindex: link.Attrs().Index,
		})
	})
	if err != nil {
		return fmt.Errorf("%s: send to %s: %w", h.Name, link.Attrs().Name, err)
	}
	return nil
}

// SendFrame4 sends an IPv4 packet with any addresses out of an Ethernet device to a neighbour's link address, bypassing
// the host's routing and netfilter.
func SendFrame4(h *Host, dev string, to net.HardwareAddr, packet []byte) error {
	link, err := h.Netlink.LinkByName(dev)
	if err != nil {
		return fmt.Errorf("%s: send to %s: %w", h.Name, dev, err)
	}
	return h.Do(func() error {
		socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(socket)
		address := &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_IP), Ifindex: link.Attrs().Index}
		address.Halen = uint8(len(to))
		copy(address.Addr[:], to)
		return unix.Sendto(socket, packet, 0, address)
	})
}

// ICMPError4 returns an IPv4 packet with an ICMP error about another packet. rest is the four bytes before the quoted
// packet (RFC 792), such as the next hop's MTU (RFC 1191 §4).
func ICMPError4(src, dst netip.Addr, kind, code byte, rest uint32, about []byte) []byte {
	icmp := binary.BigEndian.AppendUint32([]byte{kind, code, 0, 0}, rest)
	icmp = append(icmp, about...)
	binary.BigEndian.PutUint16(icmp[2:], headers.Checksum(icmp))
	return IPv4(src, dst, unix.IPPROTO_ICMP, icmp)
}
