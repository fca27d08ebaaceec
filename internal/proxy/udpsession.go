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

// session is a UDP client and its own socket to the target.
type session struct {
	flow       flow
	receiver   *receiver
	service    *Service
	served     *served
	config     *config.Proxy // the configuration when the session began
	hop        *hop
	fd         int
	way        *way
	port       uint16 // of the target
	from, to   netip.AddrPort
	name       unix.RawSockaddrInet6 // the client's address for the kernel, with the device if link-local
	nameSize   uint32
	control    []byte // see source
	header     []byte // PROXY header
	rank       rank
	idle       idle
	began      time.Duration
	answered   time.Duration // time of the target's last datagram, or when it was chosen
	targets    *[]netip.Addr // the list from which its target was chosen
	singleUp   bool          // see outlet.single; to the target
	singleDown bool          // to the client
	counted    bool          // for its client
	ended      bool

	upBytes, downBytes uint64

	first, last int16 // its datagrams in the batch
}

// open opens a session and connects it to the target.
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

// connect uses the target's first address that has a route.
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

// dialUDP opens a connected socket. If necessary it closes cooling ones to get a descriptor or port.
func (l *loop) dialUDP(from *hop, to netip.AddrPort) (int, *way, error) {
	server := from.service.server
	for {
		fd, way, err := socketTo(server, from, to)
		switch {
		case err == nil:
			tuneUDP(fd, to.Addr().Is6())
			// Before it was connected, the socket accepted datagrams from anybody: discard them.
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

// settle moves the session to another receiver, which then sends its answers.
func (s *session) settle(r *receiver) {
	s.leave()
	s.receiver = r
	r.sessions.Add(1)
}

// leave stops counting the session for its listener.
func (s *session) leave() {
	a := s.receiver.listener
	if a.sessions.Add(-1) == 0 && a.draining.Load() {
		go a.server.collect()
	}
}

// silence is how long a former target must be silent before the session moves to a new one.
const silence = 10 * time.Second

// follow moves the session to a new address if its name no longer has the old one. Without this, the session of a
// client that never pauses would stay at the old address for ever.
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

// up sends the client's datagrams to the target.
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

// down sends the target's datagrams to the client.
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

// failed handles an error on the way to the target, such as a closed port. The session stays, since the target may
// recover.
func (s *session) failed(err error) {
	if !errors.Is(err, unix.EMSGSIZE) {
		s.answered = s.receiver.loop.now - silence // do not wait for it
		s.service.refuse(unreachable)
		s.service.targets.Load().again()
	}
	s.service.stats.fail(fmt.Errorf("send to %s: %w", s.to, err))
}

// unsent handles an error on the way to the client.
func (s *session) unsent(err error) {
	s.service.stats.fail(fmt.Errorf("send to %s: %w", s.from, err))
}

// touch records new data and sets the session's rank.
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

// end ends the session, after sending its datagrams in the batch.
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
