package ping

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/message"
)

// ErrNoAnswer is wrapped by the error about a host that stayed silent.
var ErrNoAnswer = message.New("no answer")

var lastSeq atomic.Uint32

// Once sends one echo request of so many bytes with its headers, unfragmented, and waits for the answer. The source
// address may be left to the kernel.
func Once(from, to netip.Addr, bytes int, timeout time.Duration) error {
	p, header := icmp4, 28
	if to.Is6() {
		p, header = icmp6, ipv6Header+8
	}
	w, err := open(context.Background(), to.String(), p)
	if err != nil {
		return err
	}
	defer unix.Close(w.socket)
	if from.IsValid() {
		if err := unix.Bind(w.socket, sockaddr(from)); err != nil {
			return message.New("use the address %s: %v", from, err)
		}
	}
	if to.Is6() { // as large as it is, whatever is known about the path
		err = errors.Join(unix.SetsockoptInt(w.socket, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER,
			unix.IPV6_PMTUDISC_PROBE),
			unix.SetsockoptInt(w.socket, unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 1))
		if err != nil {
			return err
		}
	}
	_, err = w.echo(context.Background(), int(lastSeq.Add(1)&0xffff),
		Options{Timeout: timeout, Size: max(bytes-header, 0)})
	return err
}
