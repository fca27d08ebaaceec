package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/config"
)

// session is what a client and the target send each other, over a socket of its own to the target.
type session struct {
	flow       flow
	receiver   *receiver
	service    *Service
	served     *served
	config     *config.Proxy // when it came
	hop        *hop
	fd         int
	way        *way
	port       uint16 // of the target
	from, to   netip.AddrPort
	name       unix.RawSockaddrInet6 // the client's address as the kernel has it, with a link-local one's device
	nameSize   uint32
	control    []byte // see source
	header     []byte // PROXY
	rank       rank
	idle       idle
	began      time.Duration
	answered   time.Duration // when the target sent something last, or the session got its target
	targets    *[]netip.Addr // those that its target was chosen from
	singleUp   bool          // see outlet: to the target
	singleDown bool          // to the client
	counted    bool          // for its client
	ended      bool

	upBytes, downBytes uint64

	first, last int16 // its datagrams in the batch
}

// open connects a new session to the target.
func (r *receiver) open(f flow, route *route, h *hop, from, to netip.AddrPort) (*session, error) {
	service, l := route.service, r.loop
	s := &session{flow: f, receiver: r, service: service, served: service.in(l), config: route.config, hop: h, fd: -1,
		port: route.port, from: from, began: l.now, counted: route.config.MaxPerClient > 0, first: none}
	if s.config.ProxyProtocol != 0 {
		var err error
		if s.header, err = datagramHeader(from, to); err != nil {
			return nil, err
		}
	}
	if err := s.connect(); err != nil {
		return nil, err
	}
	l.datagrams.sessions[f] = s
	r.sessions.Add(1)
	s.idle.expire = s.end
	s.served.idle[s.rank].add(&s.idle)
	return s, nil
}

// connect takes the first address of the target that there is a route to.
func (s *session) connect() error {
	targets := s.service.targets.Load()
	list := targets.list.Load()
	var err error
	server := s.service.server
	for _, addr := range *list {
		to := netip.AddrPortFrom(addr, s.port)
		fd, way, failed := -1, (*way)(nil), server.hops.own(s.service, to)
		if failed == nil {
			fd, way, failed = s.receiver.loop.dialUDP(s.hop, to)
		}
		if failed != nil {
			err = fmt.Errorf("connect to %s: %w", to, failed)
			continue
		}
		if failed := s.receiver.loop.add(fd, unix.EPOLLIN, s); failed != nil {
			unix.Close(fd)
			server.hops.close(way)
			return failed
		}
		s.fd, s.way, s.to, s.targets, s.answered, s.singleUp = fd, way, to, list, s.receiver.loop.now, false
		return nil
	}
	if err == nil {
		err = targets.none()
	}
	return err
}

// dialUDP opens a socket that is connected; what is cooling makes room for it.
func (l *loop) dialUDP(from *hop, to netip.AddrPort) (int, *way, error) {
	server := from.service.server
	for {
		fd, way, err := socketTo(server, from, to)
		switch {
		case err == nil:
			tuneUDP(fd, to.Addr().Is6())
			// Before it was connected it took datagrams of anybody.
			for err == nil {
				_, err = receive(fd, l.buffer)
			}
			return fd, way, nil
		case err != unix.EMFILE && err != unix.ENFILE && err != unix.EAGAIN || !server.cooling.thaw():
			if err == unix.EAGAIN {
				err = fmt.Errorf("%w (all local ports are taken: net.ipv4.ip_local_port_range)", err)
			}
			return -1, nil, err
		}
	}
}

func socketTo(s *Server, from *hop, to netip.AddrPort) (int, *way, error) {
	fd, err := s.reserve.socket(family(to.Addr()), unix.SOCK_DGRAM)
	if err != nil {
		return -1, nil, err
	}
	way, err := s.hops.connect(fd, from, to)
	if err != nil {
		unix.Close(fd)
		return -1, nil, err
	}
	return fd, way, nil
}

// settle makes another socket the one that the session's answers are sent from.
func (s *session) settle(r *receiver) {
	s.leave()
	s.receiver = r
	r.sessions.Add(1)
}

// leave counts it out of its listener.
func (s *session) leave() {
	a := s.receiver.listener
	if a.sessions.Add(-1) == 0 && a.draining.Load() {
		go a.server.collect()
	}
}

// silence is how long a target that the name has moved away from may say nothing until the session follows.
const silence = 10 * time.Second

// follow keeps a session from staying with an address that is not the target's any more: a client that sends without
// end would never be idle.
func (s *session) follow() {
	targets := s.service.targets.Load()
	list := targets.list.Load()
	if list == s.targets || len(*list) == 0 {
		return
	}
	if slices.Contains(*list, s.to.Addr()) {
		s.targets = list
		return
	}
	if s.receiver.loop.now-s.answered < silence {
		return
	}
	old, way := s.fd, s.way
	if err := s.connect(); err != nil {
		s.service.stats.fail(err)
		return
	}
	s.receiver.loop.forget(old)
	s.receiver.loop.cool(s.service.server, old, way)
}

// up sends what came from the client.
func (s *session) up() {
	if s.first == none {
		return
	}
	s.follow()
	b := s.receiver.loop.datagrams.batch
	o := outlet{fd: s.fd, header: s.header, single: s.singleUp}
	bytes, dropped := b.transmit(&o, s.first, s.failed)
	s.first, s.singleUp = none, o.single
	s.upBytes += bytes
	s.service.stats.up.Add(bytes)
	if dropped > 0 {
		s.service.stats.dropped.Add(dropped)
	}
}

func (s *session) event(mask uint32) {
	if mask&unix.EPOLLERR != 0 {
		if err := socketError(s.fd); err != nil {
			s.failed(err)
		}
	}
	if mask&unix.EPOLLIN != 0 {
		s.down()
	}
}

// down sends the client what came from the target.
func (s *session) down() {
	r := s.receiver
	b := r.loop.datagrams.batch
	n, err := b.receive(s.fd)
	if err != nil {
		if err != unix.EAGAIN {
			s.failed(err)
		}
		return
	}
	for i := range n {
		b.inspect(i)
		b.next[i] = int16(i + 1)
	}
	b.next[n-1] = none
	o := outlet{fd: r.fd, name: &s.name, nameSize: s.nameSize, control: s.control, single: s.singleDown}
	bytes, dropped := b.transmit(&o, 0, s.unsent)
	s.singleDown = o.single
	s.downBytes += bytes
	s.service.stats.down.Add(bytes)
	if dropped > 0 {
		s.service.stats.dropped.Add(dropped)
	}
	s.answered = r.loop.now
	s.touch(max(s.rank, answered))
}

// failed tells of an error of the way to the target, such as that nobody listens there. The session stays: it may come
// back.
func (s *session) failed(err error) {
	if !errors.Is(err, unix.EMSGSIZE) {
		s.answered = s.receiver.loop.now - silence // it need not be waited for
		s.service.refuse(unreachable)
		s.service.targets.Load().again()
	}
	s.service.stats.fail(fmt.Errorf("send to %s: %w", s.to, err))
}

// unsent tells of an error of the way to the client.
func (s *session) unsent(err error) {
	s.service.stats.fail(fmt.Errorf("send to %s: %w", s.from, err))
}

// touch tells that a datagram came, which makes of the session's rank another one, or the same.
func (s *session) touch(rank rank) {
	if rank == s.rank {
		s.served.idle[rank].touch(&s.idle)
		return
	}
	s.served.idle[s.rank].remove(&s.idle)
	s.service.ranks[s.rank].Add(-1)
	s.service.ranks[rank].Add(1)
	s.rank = rank
	s.served.idle[rank].add(&s.idle)
}

// end forgets the session; what it still has in the batch is sent.
func (s *session) end(why string) {
	if s.ended {
		return
	}
	s.up()
	s.ended = true
	l := s.receiver.loop
	if n := lost(s.fd); n > 0 {
		s.service.stats.dropped.Add(n)
	}
	l.forget(s.fd)
	l.cool(s.service.server, s.fd, s.way)
	delete(l.datagrams.sessions, s.flow)
	s.served.idle[s.rank].remove(&s.idle)
	s.service.ranks[s.rank].Add(-1)
	s.leave()
	if s.served.counted {
		s.served.counted = false
		s.service.leftClient(s.from.Addr(), s.counted)
	} else {
		s.service.left(s.from.Addr(), s.counted)
	}
	s.service.logSession(s.config, s.from, s.to, l.now-s.began, s.upBytes, s.downBytes, why)
}
