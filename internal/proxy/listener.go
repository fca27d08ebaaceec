package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/config"
)

// backlog is cut to net.core.somaxconn by the kernel.
const backlog = 65535

// A socketKey names a listening socket.
type socketKey struct {
	proto uint8
	addr  netip.AddrPort
}

func (k socketKey) String() string { return fmt.Sprintf("%s %s", config.ProtoName(k.proto), k.addr) }

// listener is a listening TCP socket, which all loops accept from: the kernel wakes one of them for a client. For UDP
// it is a socket of each loop.
type listener struct {
	key    socketKey
	fd     int // TCP
	server *Server
	route  atomic.Pointer[route]
	closed atomic.Bool

	receivers []*receiver  // UDP
	sessions  atomic.Int64 // of UDP
	draining  atomic.Bool  // UDP: it is no longer in the configuration, and takes no new sessions
	lost      uint64       // see countLost
}

// route is whom the clients of a socket are for.
type route struct {
	service *Service
	config  *config.Proxy
	port    uint16 // of the target
}

func (s *Server) open(key socketKey) (*listener, error) {
	inherited := s.inherited[key]
	delete(s.inherited, key)
	if key.proto == config.UDP {
		return s.openUDP(key, s.overlapping(key), inherited)
	}
	if len(inherited) > 0 {
		return &listener{key: key, fd: inherited[0], server: s}, nil
	}
	fd, err := listenTCP(s.reserve, key)
	if err != nil {
		return nil, err
	}
	return &listener{key: key, fd: fd, server: s}, nil
}

func (a *listener) close() {
	a.closed.Store(true)
	for _, r := range a.receivers {
		unix.Close(r.fd)
	}
	if a.fd >= 0 {
		unix.Close(a.fd)
	}
}

func listenTCP(r *reserve, key socketKey) (int, error) {
	sa, err := sockaddr(key.addr)
	if err != nil {
		return -1, fmt.Errorf("listen on %s: %w", key, err)
	}
	fd, err := r.socket(family(key.addr.Addr()), unix.SOCK_STREAM)
	if err != nil {
		return -1, fmt.Errorf("listen on %s: %w", key, err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil && key.addr.Addr().Is6() {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err == nil {
		// An address that comes later (DHCP, ifup) can be listened on now. Without the right to, only those that are
		// there can.
		_ = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_FREEBIND, 1)
		err = unix.Bind(fd, sa)
	}
	if err == nil {
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("listen on %s: %w%s", key, err, hint(err))
	}
	return fd, nil
}

// hint says what to do about an error of bind.
func hint(err error) string {
	switch err {
	case unix.EADDRINUSE:
		return " (another program listens there; ss -lntup shows which)"
	case unix.EACCES:
		return " (a port below 1024 takes root or CAP_NET_BIND_SERVICE)"
	case unix.EADDRNOTAVAIL:
		return " (this machine does not have the address)"
	}
	return ""
}

// watch makes a loop accept.
func (a *listener) watch(l *loop) error {
	return l.add(a.fd, unix.EPOLLIN|unix.EPOLLEXCLUSIVE, &acceptor{listener: a, loop: l})
}

// unwatch ends that.
func (a *listener) unwatch(l *loop) {
	// It fails where the loop did not watch: while it waits for descriptors.
	_ = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, a.fd, nil)
	l.forget(a.fd)
}

// acceptor is a listener in one loop.
type acceptor struct {
	*listener
	loop  *loop
	burst int    // how many clients seem to wait
	round uint64 // of the loop, when it was told of some
}

const (
	// acceptBurst: the other loops may have the rest.
	acceptBurst = 32
	// acceptPause is how long no client is accepted when descriptors or memory have run out.
	acceptPause = 50 * time.Millisecond
)

// event takes one client: a call that finds none costs as much as one that does. Where there are more in the next
// round, it takes twice as many.
func (a *acceptor) event(uint32) {
	if a.loop.round-a.round == 1 {
		a.burst = min(max(1, 2*a.burst), acceptBurst)
	} else {
		a.burst = 1
	}
	a.round = a.loop.round
	for range a.burst {
		if !a.take() {
			return
		}
	}
}

// take accepts one client; it returns false where there is none, or none can be taken now.
func (a *acceptor) take() bool {
	fd, from, err := a.server.reserve.accept(a.fd)
	switch err {
	case nil:
		a.serve(fd, from)
		return true
	case unix.EAGAIN:
		return false
	}
	s := a.route.Load().service
	s.stats.fail(fmt.Errorf("accept on %s: %w", a.key, err))
	if ranOut(err) && (a.server.cooling.thaw() || a.server.reserve.refuse(a.fd, s)) {
		return true
	}
	a.pause()
	return false
}

// ranOut tells whether an error is that descriptors, memory or UDP ports (EAGAIN) have run out.
func ranOut(err error) bool {
	for _, errno := range []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.EAGAIN} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func (a *acceptor) pause() {
	a.unwatch(a.loop)
	a.loop.timers.set(newTimer(func() {
		if a.closed.Load() {
			return
		}
		if err := a.watch(a.loop); err != nil {
			a.pause()
		}
	}), a.loop.now+acceptPause)
}

// serve admits a client, or resets it.
func (a *acceptor) serve(fd int, from netip.AddrPort) {
	r := a.route.Load()
	way := a.server.hops.before(from, func() netip.AddrPort { return localAddr(fd) })
	why, ok := r.service.admit(r.config, from, way, noRoom)
	if !ok {
		r.service.refuse(why)
		closeReset(fd)
		r.service.logRefusal(r.config, from, why)
		return
	}
	h := r.service.hop(way)
	l := a.server.leastBusy(a.loop)
	l.connections.Add(1)
	if l == a.loop {
		newConn(l, h, r.config, fd, from, r.port)
		return
	}
	l.post(func() { newConn(l, h, r.config, fd, from, r.port) })
}
