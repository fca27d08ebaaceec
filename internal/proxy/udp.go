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
// the same (SO_REUSEPORT, socket(7)).
type receiver struct {
	*listener
	loop *loop
	fd   int
}

// datagrams is what a loop has for UDP.
type datagrams struct {
	batch    *batch
	sessions map[flow]*session
	cooling  *timer // closes sockets that have cooled
}

// openUDP opens a socket for each loop, beside those that are inherited. Overlaps tells that the server has another one
// that takes some of the same datagrams.
func (s *Server) openUDP(key socketKey, overlaps bool, inherited []int) (*listener, error) {
	a := &listener{key: key, fd: -1, server: s}
	for i, fd := range inherited {
		a.receivers = append(a.receivers, &receiver{listener: a, loop: s.loops[i%len(s.loops)], fd: fd})
	}
	for i := len(inherited); i < len(s.loops); i++ {
		l := s.loops[i]
		// The first one fails where another program has the port; with SO_REUSEPORT it would get a part of its clients.
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

// udpBuffer is for what comes while the loop does something else; the kernel's own limit is a few large datagrams.
const udpBuffer = 1 << 20

// tuneUDP sets what a socket works without, too.
func tuneUDP(fd int, v6 bool) {
	// The kernel, and routers of IPv4, cut up what is larger than the way's MTU, instead of refusing it.
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

// stopUDP ends listening, as soon as there is no session left. Where the socket is not the last one, clients' datagrams
// are another process's from now on, and sessions have only answers.
func (s *Server) stopUDP(a *listener, last bool) {
	a.draining.Store(true)
	if !last {
		a.unwatchUDP()
	}
	for _, l := range s.loops {
		l.call(func() {}) // no loop is still opening a session
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

// unwatchUDP ends receiving; sending goes on.
func (a *listener) unwatchUDP() {
	for _, r := range a.receivers {
		r.loop.call(func() {
			_ = unix.EpollCtl(r.loop.epoll, unix.EPOLL_CTL_DEL, r.fd, nil)
			r.loop.forget(r.fd)
		})
	}
}

// collect closes the listeners whose last session has ended.
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

// overlapping tells whether the server has a socket that conflicts with another one.
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

// countLost adds the datagrams that the kernel had no room for in the sockets' buffers to those that were dropped.
func (a *listener) countLost() {
	now := uint64(0)
	for _, r := range a.receivers {
		now += lost(r.fd)
	}
	a.route.Load().service.stats.dropped.Add(now - a.lost)
	a.lost = now
}

// lost is how many datagrams a socket's buffer had no room for.
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

// flow is whose datagrams are a session: the client's address and port, and those that it sends to.
type flow struct {
	client, local [16]byte // an IPv4 address in IPv6's form
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

// session finds or opens the session of a datagram; it is nil where there can be none.
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
		// Its port has got another socket: a wildcard in place of an address, or the other way.
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

// source is the control message that makes an answer come from where the client sent to. A socket that listens on one
// address needs none.
func source(listening netip.Addr, local destination) []byte {
	addr := netip.AddrFrom16(local.addr).Unmap()
	if !listening.IsUnspecified() || addr.IsMulticast() {
		return nil
	}
	if addr.Is4() {
		// Without a device: the answer takes the route to the client.
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

// admit opens a session, unless the client is refused.
func (r *receiver) admit(f flow, from, to netip.AddrPort) *session {
	route := r.route.Load()
	service, c := route.service, route.config
	if r.draining.Load() {
		service.stats.dropped.Add(1)
		return nil
	}
	service.ranks[unanswered].Add(1) // before others make room for it, so that they are never thought to be fewer
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

const (
	// answerTime is what an answer, or what the client says to that, may take.
	answerTime = time.Second
	// rankShare: one of so many sessions may have a rank and keep it for that time. With less room new clients would
	// take each other's places before they have an answer, while idle ones that are proven have all the others.
	rankShare = 4
)

// order is the ranks in which a session is looked for that makes room: lower ones first, as far as they have had their
// time or are more than their share.
func (s *Service) order(now time.Duration) []rank {
	share := max(1, int64(s.config.Load().MaxSessions)/rankShare)
	var order []rank
	for r := unanswered; r < proven; r++ {
		if at, _, _ := s.idlest(r); s.ranks[r].Load() > share || at <= now-answerTime {
			order = append(order, r)
		}
	}
	return append(order, proven, answered, unanswered)
}

// idlest is the loop that has the idlest session of a rank that is not to end already, and since when it is idle.
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

// some tells whether there are sessions of a rank.
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

// evict ends a session, or has its loop end it. A new client does not push out one of a higher rank only because those
// of the lower one are ending; it is refused, unless it has been admitted already.
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

// evict ends the idlest session of a rank, which is counted out already. It returns false where none has that rank any
// more.
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
