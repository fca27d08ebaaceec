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

// backlog is limited by the kernel to net.core.somaxconn.
const backlog = 65535

// A socketKey identifies a listening socket.
type socketKey struct {
	proto uint8
	addr  netip.AddrPort
}

func (k socketKey) String() string { return fmt.Sprintf("%s %s", config.ProtoName(k.proto), k.addr) }

// listener is a listening TCP socket from which all loops accept (the kernel wakes one of them for each client), or a
// set of UDP sockets, one for each loop.
type listener struct {
	key    socketKey
	fd     int // TCP
	server *Server
	route  atomic.Pointer[route]
	closed atomic.Bool

	receivers []*receiver  // UDP
	sessions  atomic.Int64 // UDP
	draining  atomic.Bool  // UDP: removed from the configuration, takes no new sessions
	lost      uint64       // see countLost
}

// route is where a listener's clients go.
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
		// Allows listening on an address that appears later (DHCP, ifup). If this is not permitted, only present
		// addresses work.
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

// hint returns advice for an error of bind.
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

// watch makes a loop accept clients.
func (a *listener) watch(l *loop) error {
	return l.add(a.fd, unix.EPOLLIN|unix.EPOLLEXCLUSIVE, &acceptor{listener: a, loop: l})
}

// unwatch is the reverse of watch.
func (a *listener) unwatch(l *loop) {
	// This fails if the loop is not watching, during a pause.
	_ = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, a.fd, nil)
	l.forget(a.fd)
}

// acceptor is a listener's part in one loop.
type acceptor struct {
	*listener
	loop  *loop
	burst int    // how many clients to take at once
	round uint64 // the loop's round of the last event
}

const (
	// acceptBurst leaves the rest to the other loops.
	acceptBurst = 32
	// acceptPause is how long a loop accepts nothing after it has run out of descriptors or memory.
	acceptPause = 50 * time.Millisecond
)

// event takes one client, because a call that finds no more costs as much as one that does. If the next round has an
// event too, it takes twice as many.
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

// take accepts one client. It returns false if there is none, or none can be accepted now.
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

// ranOut reports whether descriptors, memory or UDP ports (EAGAIN) have run out.
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

// serve admits a client or resets its connection.
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
