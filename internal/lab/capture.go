//go:build linux

package lab

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	captureBytes   = 256 // bytes kept of each packet
	capturePackets = 200_000
	captureBuffer  = 32 << 20 // bytes that the kernel queues for a slow reader
)

// Sniffer captures the packets of a device.
type Sniffer struct {
	dev    string
	socket int
	wake   int // eventfd

	done    sync.WaitGroup
	mu      sync.Mutex
	packets []Packet
}

// Capture captures the IPv4 and IPv6 packets that cross a device in either direction, until Stop. It sees incoming
// packets before netfilter and outgoing ones after it. It keeps the first 200,000.
func Capture(h *Host, dev string) (*Sniffer, error) {
	s := &Sniffer{dev: dev, socket: -1}
	link, err := h.Netlink.LinkByName(dev)
	if err != nil {
		return nil, fmt.Errorf("%s: capture %s: %w", h.Name, dev, err)
	}
	err = h.Do(func() error {
		// SOCK_DGRAM removes the link header, which tunnels do not have. With protocol 0 the socket receives nothing
		// until it is bound.
		s.socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: capture %s: %w", h.Name, dev, err)
	}
	s.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		unix.Close(s.socket)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	err = unix.SetsockoptInt(s.socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, captureBuffer)
	if err == nil {
		err = unix.Bind(s.socket, &unix.SockaddrLinklayer{
			Protocol: bigEndian(unix.ETH_P_ALL), Ifindex: link.Attrs().Index,
		})
	}
	if err != nil {
		unix.Close(s.socket)
		unix.Close(s.wake)
		return nil, fmt.Errorf("%s: capture %s: %w", h.Name, dev, err)
	}
	s.done.Add(1)
	go s.collect()
	return s, nil
}

// bigEndian is htons for the two protocols that need it.
func bigEndian(protocol uint16) uint16 { return protocol<<8 | protocol>>8 }

// Stop ends the capture and returns its packets in order of arrival. Another call returns the same.
func (s *Sniffer) Stop() []Packet {
	s.mu.Lock()
	open := s.socket >= 0
	s.mu.Unlock()
	if open {
		unix.Write(s.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		s.done.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		unix.Close(s.socket)
		unix.Close(s.wake)
		s.socket = -1
	}
	return s.packets
}

// Packets returns what has been captured so far.
func (s *Sniffer) Packets() []Packet {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Packet(nil), s.packets...)
}

func (s *Sniffer) collect() {
	defer s.done.Done()
	poll := []unix.PollFd{{Fd: int32(s.socket), Events: unix.POLLIN}, {Fd: int32(s.wake), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(poll, -1); err != nil && err != unix.EINTR {
			return
		}
		for s.receive() {
		}
		if poll[1].Revents != 0 || poll[0].Revents&unix.POLLNVAL != 0 {
			return
		}
	}
}

// receive reads one packet, and reports whether to try for another.
func (s *Sniffer) receive() bool {
	buf := make([]byte, captureBytes)
	wireLen, from, err := unix.Recvfrom(s.socket, buf, unix.MSG_TRUNC)
	if err != nil {
		return err == unix.EINTR || err == unix.ENETDOWN // reported once, when the device goes down
	}
	link, ok := from.(*unix.SockaddrLinklayer)
	if !ok || link.Protocol != bigEndian(unix.ETH_P_IP) && link.Protocol != bigEndian(unix.ETH_P_IPV6) {
		return true
	}
	packet := Packet{Dev: s.dev, Outgoing: link.Pkttype == unix.PACKET_OUTGOING, WireLen: wireLen}
	decode(&packet, buf[:min(wireLen, len(buf))])
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.packets) == capturePackets {
		return true
	}
	s.packets = append(s.packets, packet)
	return true
}
