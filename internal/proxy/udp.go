package proxy

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// receiver is a loop's socket of a UDP listener. Each loop has one, and the kernel always gives a client's datagrams to
// the same one (SO_REUSEPORT, socket(7)).
type receiver struct {
	*listener
	loop *loop
	fd   int
}

// datagrams is a loop's UDP state.
type datagrams struct {
	batch    *batch
	sessions map[flow]*session
	cooling  *timer // closes sockets in cooling
}

// openUDP opens a socket for each loop that has not inherited one. overlaps says that another socket of the server
// receives some of the same datagrams.
func (s *Server) openUDP(key socketKey, overlaps bool, inherited []int) (*listener, error) {
	a := &listener{key: key, fd: -1, server: s}
	for i, fd := range inherited {
		a.receivers = append(a.receivers, &receiver{listener: a, loop: s.loops[i%len(s.loops)], fd: fd})
	}
	for i := len(inherited); i < len(s.loops); i++ {
		l := s.loops[i]
		// Without SO_REUSEPORT the first one fails if another program has the port. With it, the two would share the
		// clients.
		fd, err := listenUDP(s.reserve, key, i > 0 || overlaps)
		if err != nil {
			a.close()
			return nil, err
		}
		a.receivers = append(a.receivers, &receiver{listener: a, loop: l, fd: fd})
	}
	return a, nil
}

func listenUDP(r *reserve, key socketKey, shared bool) (fd int, err error) {
	addr := key.addr.Addr()
	fd, err = r.socket(family(addr), unix.SOCK_DGRAM)
	if err != nil {
		return -1, fmt.Errorf("listen on %s: %w", key, err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
			fd, err = -1, fmt.Errorf("listen on %s: %w%s", key, err, hint(err))
		}
	}()
	sa, err := sockaddr(key.addr)
	if err != nil {
		return fd, err
	}
	share := func() error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }
	if shared {
		if err := share(); err != nil {
			return fd, err
		}
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_FREEBIND, 1) // as for TCP
	if addr.Is6() {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return fd, err
		}
	}
	if addr.IsUnspecified() {
		level, option := unix.IPPROTO_IP, unix.IP_PKTINFO
		if addr.Is6() {
			level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
		}
		if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
			return fd, err
		}
	}
	tuneUDP(fd, addr.Is6())
	if err := unix.Bind(fd, sa); err != nil {
		return fd, err
	}
	if shared {
		return fd, nil
	}
	return fd, share()
}

// udpBuffer holds datagrams while the loop is busy. The kernel's default holds only a few large ones.
const udpBuffer = 1 << 20

// tuneUDP sets options that a socket also works without.
func tuneUDP(fd int, v6 bool) {
	// The kernel and IPv4 routers fragment datagrams above the path MTU instead of rejecting them.
	if v6 {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT)
	} else {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
	}
	for _, option := range [][2]int{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, option[0], udpBuffer) != nil { // without CAP_NET_ADMIN
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option[1], udpBuffer)
		}
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1)
}

// watchUDP makes the loops receive.
func (a *listener) watchUDP() error {
	var errs []error
	for _, r := range a.receivers {
		r.loop.call(func() {
			l := r.loop
			if l.datagrams.batch == nil {
				l.datagrams = datagrams{batch: newBatch(), sessions: map[flow]*session{}}
			}
			errs = append(errs, l.add(r.fd, unix.EPOLLIN, r))
		})
	}
	return errors.Join(errs...)
}

// stopUDP stops listening once the last session has ended. If another process has the socket too, clients' datagrams go
// there from now on, and sessions here only carry answers.
func (s *Server) stopUDP(a *listener, last bool) {
	a.draining.Store(true)
	if !last {
		a.unwatchUDP()
	}
	for _, l := range s.loops {
		l.call(func() {}) // afterwards no loop is still opening a session
	}
	if a.sessions.Load() > 0 {
		s.draining[a.key] = a
		return
	}
	a.closeUDP()
}

func (a *listener) closeUDP() {
	a.countLost()
	a.unwatchUDP()
	a.close()
}

// unwatchUDP stops receiving. Sending still works.
func (a *listener) unwatchUDP() {
	for _, r := range a.receivers {
		r.loop.call(func() {
			_ = unix.EpollCtl(r.loop.epoll, unix.EPOLL_CTL_DEL, r.fd, nil)
			r.loop.forget(r.fd)
		})
	}
}

// collect closes listeners whose last session has ended.
func (s *Server) collect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, a := range s.draining {
		if a.sessions.Load() == 0 {
			delete(s.draining, key)
			a.closeUDP()
		}
	}
}

// overlapping reports whether a socket of the server receives some of the same datagrams.
func (s *Server) overlapping(key socketKey) bool {
	for _, list := range []map[socketKey]*listener{s.listeners, s.draining} {
		for other := range list {
			a, b := key.addr.Addr(), other.addr.Addr()
			if other.proto == key.proto && other.addr.Port() == key.addr.Port() && a.Is4() == b.Is4() &&
				(a.IsUnspecified() || b.IsUnspecified()) {
				return true
			}
		}
	}
	return false
}

// countLost adds the datagrams that did not fit into the sockets' buffers to dropped.
func (a *listener) countLost() {
	now := uint64(0)
	for _, r := range a.receivers {
		now += lost(r.fd)
	}
	a.route.Load().service.stats.dropped.Add(now - a.lost)
	a.lost = now
}

// lost returns how many datagrams did not fit into a socket's buffer.
func lost(fd int) uint64 {
	const drops = 8 // SK_MEMINFO_DROPS, include/uapi/linux/sock_diag.h
	var info [drops + 1]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0
	}
	return uint64(info[drops])
}

// flow identifies a session: the client's address and port, and the address and port that it sends to.
type flow struct {
	client, local [16]byte // IPv4 as IPv4-mapped
	scope         uint32   // the device of a link-local address
	ports         uint32
}

func (r *receiver) event(uint32) {
	b := r.loop.datagrams.batch
	n, err := b.receive(r.fd)
	if err != nil {
		if err != unix.EAGAIN {
			r.route.Load().service.stats.fail(fmt.Errorf("receive on %s: %w", r.key, err))
		}
		return
	}
	var touched [batchSize]*session
	count := 0
	for i := range n {
		s := r.session(b.inspect(i), &b.names[i], b.in[i].header.Namelen)
		if s == nil {
			continue
		}
		b.next[i] = none
		if s.first == none {
			s.first = int16(i)
			touched[count] = s
			count++
		} else {
			b.next[s.last] = int16(i)
		}
		s.last = int16(i)
	}
	for _, s := range touched[:count] {
		s.up()
	}
}

// session finds or opens the session of a datagram, or returns nil if it is refused.
func (r *receiver) session(local destination, name *unix.RawSockaddrInet6, size uint32) *session {
	f := flow{ports: uint32(r.key.addr.Port())}
	var from netip.AddrPort
	if name.Family == unix.AF_INET {
		in := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		f.client = mapped(in.Addr)
		from = netip.AddrPortFrom(netip.AddrFrom4(in.Addr), fromNetwork(in.Port))
	} else {
		f.client, f.scope = name.Addr, name.Scope_id
		from = netip.AddrPortFrom(netip.AddrFrom16(name.Addr), fromNetwork(name.Port))
	}
	f.ports |= uint32(from.Port()) << 16
	to := r.key.addr
	if wild := to.Addr().IsUnspecified(); wild {
		f.local = local.addr
		to = netip.AddrPortFrom(netip.AddrFrom16(local.addr).Unmap(), to.Port())
	} else {
		f.local = to.Addr().As16()
	}
	s := r.loop.datagrams.sessions[f]
	if s == nil {
		if s = r.admit(f, from, to); s == nil {
			return nil
		}
		s.name, s.nameSize = *name, size
		s.control = source(r.key.addr.Addr(), local)
	}
	if s.receiver != r {
		// The port has a different socket now: a wildcard instead of an address, or the reverse.
		s.settle(r)
		s.control = source(r.key.addr.Addr(), local)
	}
	if s.rank == answered {
		s.touch(proven)
	} else {
		s.touch(s.rank)
	}
	return s
}

// source returns the control message that sets an answer's source to the address that the client sent to. A socket that
// listens on one address needs none.
func source(listening netip.Addr, local destination) []byte {
	addr := netip.AddrFrom16(local.addr).Unmap()
	if !listening.IsUnspecified() || addr.IsMulticast() {
		return nil
	}
	if addr.Is4() {
		// No device: the answer follows the route to the client.
		info := unix.Inet4Pktinfo{Spec_dst: addr.As4()}
		control := make([]byte, unix.CmsgSpace(unix.SizeofInet4Pktinfo))
		putControl(control, unix.SOL_IP, unix.IP_PKTINFO,
			unsafe.Slice((*byte)(unsafe.Pointer(&info)), unix.SizeofInet4Pktinfo))
		return control
	}
	info := unix.Inet6Pktinfo{Addr: local.addr}
	if addr.IsLinkLocalUnicast() {
		info.Ifindex = local.device
	}
	control := make([]byte, unix.CmsgSpace(unix.SizeofInet6Pktinfo))
	putControl(control, unix.SOL_IPV6, unix.IPV6_PKTINFO,
		unsafe.Slice((*byte)(unsafe.Pointer(&info)), unix.SizeofInet6Pktinfo))
	return control
}

// admit opens a session, or counts why the client is refused.
func (r *receiver) admit(f flow, from, to netip.AddrPort) *session {
	route := r.route.Load()
	service, c := route.service, route.config
	if r.draining.Load() {
		service.stats.dropped.Add(1)
		return nil
	}
	service.ranks[unanswered].Add(1) // first, so that other loops making room never see too few
	way := r.server.hops.before(from, func() netip.AddrPort { return to })
	why, ok := service.admit(c, from, way, func() bool { return service.evict(r.loop, false) })
	if ok {
		s, err := r.open(f, route, service.hop(way), from, to)
		if err == nil {
			return s
		}
		if why = unreachable; ranOut(err) {
			why = exhausted
		} else {
			service.targets.Load().again()
		}
		service.stats.fail(err)
		service.left(from.Addr(), c.MaxPerClient > 0)
	}
	service.ranks[unanswered].Add(-1)
	service.refuse(why)
	return nil
}

// rankShare: one in this many sessions may be of a lower rank and is protected for Options.AnswerTime. If fewer were,
// new clients would displace each other before they get an answer, while idle proven sessions keep all other places.
const rankShare = 4

// order returns the ranks in the order in which to look for a session to evict: first the lower ranks that exceed their
// share or whose idlest session has waited for longer than AnswerTime.
func (s *Service) order(now time.Duration) []rank {
	share := max(1, int64(s.config.Load().MaxSessions)/rankShare)
	var order []rank
	for r := unanswered; r < proven; r++ {
		if at, _, _ := s.idlest(r); s.ranks[r].Load() > share || at <= now-s.server.answerTime {
			order = append(order, r)
		}
	}
	return append(order, proven, answered, unanswered)
}

// idlest returns the loop with the idlest session of a rank that is not yet being evicted, and the time of that
// session's last data.
func (s *Service) idlest(r rank) (oldest time.Duration, of *loop, part *served) {
	oldest = math.MaxInt64
	s.mu.Lock()
	defer s.mu.Unlock()
	for l, p := range s.loops {
		if at := time.Duration(p.idle[r].oldest.Load()); at < oldest && p.evicting[r].Load() < p.idle[r].size.Load() {
			of, part, oldest = l, p, at
		}
	}
	return oldest, of, part
}

// some reports whether there are sessions of a rank.
func (s *Service) some(r rank) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.loops {
		if p.idle[r].size.Load() > 0 {
			return true
		}
	}
	return false
}

// evict ends a session, or asks its loop to. If all sessions of a rank are already being ended, it does not go on to a
// higher rank: the new client is refused, unless it was admitted already.
func (s *Service) evict(own *loop, admitted bool) bool {
	for _, r := range s.order(own.now) {
		_, of, part := s.idlest(r)
		switch {
		case part != nil:
		case admitted || !s.some(r):
			continue
		default:
			return false
		}
		s.stats.sessions.Add(-1)
		if of == own {
			part.evict(s, r)
			return true
		}
		part.evicting[r].Add(1)
		of.post(func() {
			part.evicting[r].Add(-1)
			if !part.evict(s, r) && s.stats.sessions.Add(1) > int64(s.config.Load().MaxSessions) {
				s.evict(of, true)
			}
		})
		return true
	}
	return false
}

// evict ends the idlest session of a rank, which is no longer counted. It returns false if none has that rank any more.
func (p *served) evict(s *Service, r rank) bool {
	list := p.idle[r]
	if list.count == 0 {
		return false
	}
	s.stats.evicted.Add(1)
	p.counted = true
	list.root.next.expire("evicted")
	return true
}
