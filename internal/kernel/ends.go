//go:build !openwrt

package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/state"
)

// Ends receives the ends of connections (linux/netfilter/nfnetlink.h: NFNLGRP_CONNTRACK_DESTROY). The kernel reports
// those that began while somebody listened.
type Ends struct {
	file   *os.File
	raw    syscall.RawConn
	buffer []byte
	lost   atomic.Uint64
}

const (
	groupDestroy = 3 // NFNLGRP_CONNTRACK_DESTROY
	// endsBuffer is how many bytes of reports may wait: some thousands.
	endsBuffer = 4 << 20
)

// ListenEnds begins to listen.
func ListenEnds() (*Ends, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("listen to connections: %w", err)
	}
	e := &Ends{file: os.NewFile(uintptr(fd), "netlink"), buffer: make([]byte, 64<<10)}
	if e.raw, err = e.file.SyscallConn(); err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (groupDestroy - 1)})
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, endsBuffer)
	}
	if err != nil {
		e.file.Close()
		return nil, fmt.Errorf("listen to connections: %w", err)
	}
	return e, nil
}

// Close stops listening.
func (e *Ends) Close() error { return e.file.Close() }

// Lost returns how many times the kernel has dropped reports because they were not read fast enough.
func (e *Ends) Lost() uint64 { return e.lost.Load() }

// Wait waits until there are reports to read.
func (e *Ends) Wait(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { e.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var one [1]byte
	err := e.raw.Read(func(fd uintptr) bool {
		_, _, err := unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if err == unix.ENOBUFS {
			e.lost.Add(1)
		}
		return err != unix.EAGAIN
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// Read calls f for each IPv4 connection whose end is reported, until there are no more reports. The identity is the
// same as in FlowsByIdentity.
func (e *Ends) Read(f func(flow state.Flow, identity []byte)) error {
	for {
		var n int
		var err error
		if failed := e.raw.Control(func(fd uintptr) {
			n, _, err = unix.Recvfrom(int(fd), e.buffer, unix.MSG_DONTWAIT)
		}); failed != nil {
			return failed
		}
		switch {
		case err == unix.EAGAIN:
			return nil
		case err == unix.ENOBUFS:
			e.lost.Add(1)
			continue
		case err == unix.EINTR:
			continue
		case err != nil:
			return fmt.Errorf("listen to connections: %w", err)
		}
		messages, err := syscall.ParseNetlinkMessage(e.buffer[:n])
		if err != nil {
			return fmt.Errorf("listen to connections: %w", err)
		}
		for _, m := range messages {
			const ended = unix.NFNL_SUBSYS_CTNETLINK<<8 | nl.IPCTNL_MSG_CT_DELETE
			if m.Header.Type != ended || len(m.Data) == 0 || m.Data[0] != unix.AF_INET {
				continue
			}
			if flow, identity, err := parseFlow(m.Data); err == nil {
				f(flow, identity)
			}
		}
	}
}

// FlowsByIdentity calls f for each IPv4 connection that the kernel tracks, with what distinguishes it from all others.
// If the table changes meanwhile, it begins again.
func FlowsByIdentity(f func(flow state.Flow, identity []byte)) error { return eachFlow(f, func() {}) }

const accounting = "net/netfilter/nf_conntrack_acct"

// Accounting reports whether the kernel counts what new connections carry. It does not if it tracks none.
func Accounting() (bool, error) {
	value, err := readSysctl(accounting)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return value == "1", err
}

// SetAccounting switches the counting on or off.
func SetAccounting(on bool) error {
	value := "0"
	if on {
		value = "1"
	}
	return os.WriteFile("/proc/sys/"+accounting, []byte(value), 0)
}
