//go:build linux

package lab

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// noKeepAlive switches off TCP keepalive, so that packets flow only when a test sends something.
const noKeepAlive = -1

// Listen listens on the host with plain TCP (Go would use MPTCP). The address must be literal, since there is no DNS.
func (h *Host) Listen(network, address string) (listener net.Listener, err error) {
	config := net.ListenConfig{KeepAlive: noKeepAlive}
	config.SetMultipathTCP(false)
	err = h.Do(func() error {
		listener, err = config.Listen(context.Background(), network, address)
		return err
	})
	return listener, err
}

// ListenPacket opens a datagram socket on the host, or a raw one for a network such as "ip4:icmp".
func (h *Host) ListenPacket(network, address string) (conn net.PacketConn, err error) {
	err = h.Do(func() error {
		conn, err = net.ListenPacket(network, address)
		return err
	})
	return conn, err
}

// Dial connects from the host to a literal address within timeout.
func (h *Host) Dial(network, address string, timeout time.Duration) (conn net.Conn, err error) {
	return h.DialFrom(nil, network, address, timeout)
}

// DialFrom is Dial with a local address, for example a *net.TCPAddr; nil lets the kernel choose. Connections to
// different remote addresses may share a local one.
func (h *Host) DialFrom(local net.Addr, network, address string, timeout time.Duration) (conn net.Conn, err error) {
	dialer := net.Dialer{Timeout: timeout, LocalAddr: local, KeepAlive: noKeepAlive}
	if local != nil {
		dialer.Control = func(_, _ string, c syscall.RawConn) error {
			return errors.Join(c.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
			}), err)
		}
	}
	err = h.Do(func() error {
		conn, err = dialer.Dial(network, address)
		return err
	})
	return conn, err
}
