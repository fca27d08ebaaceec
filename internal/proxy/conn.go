package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/config"
)

// conn is a client's TCP connection and the one to its target.
type conn struct {
	loop    *loop
	service *Service
	config  *config.Proxy // the configuration when the client connected
	hop     *hop
	client  side
	target  side
	up      direction // client → target
	down    direction
	from    netip.AddrPort
	to      netip.AddrPort
	began   time.Duration
	idle    idle
	idlers  *idlers // list that contains it; nil without an idle timeout
	dial    *dial   // nil once connected to the target
	closed  bool
	counted bool // for its client
}

// side is one of the two sockets of a conn.
type side struct {
	conn     *conn
	fd       int
	way      *way
	readable bool // there may be data to read
	writable bool // there may be room to write
	ending   bool // the peer has sent FIN; epoll does not report it again
	urgent   bool // the peer has sent urgent data; a read stops before it (tcp(7))
	gone     bool // the peer has reset the connection, or has timed out
	limited  bool // see limitUnsent
}

const (
	// unsentLimit limits the unsent data that a socket queues. For a slow reader it could reach the 4 MB of
	// net.ipv4.tcp_wmem. With a lower limit, many fast connections run out of data between their turns.
	unsentLimit = 1 << 20
	// fewConnections is how many connections of a loop have no such limit, which costs up to a tenth of the throughput.
	fewConnections = 64
)

func (s *side) limitUnsent() {
	if !s.limited && s.conn.loop.connections.Load() > fewConnections {
		s.limited = true
		_ = unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentLimit)
	}
}

// newConn connects an admitted client, which the loop has counted already, to the target.
func newConn(l *loop, h *hop, c *config.Proxy, fd int, from netip.AddrPort, port uint16) {
	k := &conn{loop: l, service: h.service, config: c, hop: h, from: from, began: l.now, counted: c.MaxPerClient > 0}
	k.client = side{conn: k, fd: fd, writable: true}
	k.target = side{conn: k, fd: -1}
	k.up = direction{from: &k.client, to: &k.target}
	k.down = direction{from: &k.target, to: &k.client}
	if err := l.add(fd, watched, &k.client); err != nil {
		k.end("failed", err)
		return
	}
	k.connect(h.service.targets.Load(), port)
}

func (s *side) event(mask uint32) {
	k := s.conn
	if mask&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.readable = true
	}
	if mask&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.ending = true
	}
	if mask&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.writable = true
	}
	if mask&unix.EPOLLPRI != 0 {
		s.urgent = true
	}
	if mask&unix.EPOLLERR != 0 {
		s.failed(socketError(s.fd))
		return
	}
	if k.dial != nil {
		return
	}
	// Incoming data first, then data that was waiting for room.
	in, out := &k.up, &k.down
	if s == &k.target {
		in, out = out, in
	}
	if mask&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP) != 0 {
		in.pump()
	}
	if mask&unix.EPOLLOUT != 0 && !k.closed {
		out.pump()
	}
}

// socketError returns and clears the error of a socket, so that the next call does not fail with it.
func socketError(fd int) error {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	switch {
	case err != nil:
		return err
	case n != 0:
		return unix.Errno(n)
	}
	return nil
}

// failed handles a reset or a timeout of the peer: the other side gets the data that arrived before, and then a reset.
func (s *side) failed(err error) {
	k := s.conn
	if err == nil || s.gone || k.closed {
		return
	}
	s.gone = true
	if k.dial != nil {
		k.end("client reset", err)
		return
	}
	d := &k.up
	if s == &k.target {
		d = &k.down
	}
	d.drain()
	why := "client reset"
	if s == &k.target {
		why = "target reset"
	}
	if d.to.gone || unsent(d.to.fd) == 0 && !d.holds() {
		k.end(why, err)
		return
	}
	// A reset discards unsent data, so wait a moment.
	k.linger(d, why, err, k.loop.now+lingerTime)
}

const (
	lingerTime  = time.Second
	lingerCheck = 20 * time.Millisecond
)

func (k *conn) linger(d *direction, why string, cause error, until time.Duration) {
	k.loop.timers.set(newTimer(func() {
		if k.closed {
			return
		}
		d.drain()
		if k.loop.now >= until || d.to.gone || unsent(d.to.fd) == 0 && !d.holds() {
			k.end(why, cause)
			return
		}
		k.linger(d, why, cause, until)
	}), k.loop.now+lingerCheck)
}

// unsent returns how many bytes the peer has not acknowledged.
func unsent(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	if err != nil {
		return 0
	}
	return n
}

// count adds the bytes that a direction has moved to the statistics.
func (k *conn) count(d *direction, moved uint64) {
	if d == &k.up {
		k.service.stats.up.Add(moved)
	} else {
		k.service.stats.down.Add(moved)
	}
	if k.idlers != nil {
		k.idlers.touch(&k.idle)
	}
}

// finished is called when a direction is done.
func (k *conn) finished() {
	if k.up.done && k.down.done {
		k.end("", nil)
	}
}

// end closes both sockets, with a reset unless both directions are done. The session is counted as ended before: a
// client that sees its end may connect again at once, and has its place back.
func (k *conn) end(why string, cause error) {
	if k.closed {
		return
	}
	k.closed = true
	l, s := k.loop, k.service
	orderly := k.up.done && k.down.done
	if k.dial != nil {
		k.dial.stop()
		k.dial = nil
	}
	for _, d := range []*direction{&k.up, &k.down} {
		d.release()
	}
	s.left(k.from.Addr(), k.counted)
	if cause != nil && !errors.Is(cause, unix.ECONNRESET) && !errors.Is(cause, unix.EPIPE) && !k.client.gone {
		s.stats.fail(fmt.Errorf("connection to %s: %w", k.to, cause))
	}
	for _, side := range []*side{&k.client, &k.target} {
		if side.fd < 0 {
			continue
		}
		l.forget(side.fd)
		if orderly || side.gone {
			unix.Close(side.fd)
		} else {
			closeReset(side.fd)
		}
		s.server.hops.close(side.way)
		side.fd = -1
	}
	if k.idlers != nil {
		k.idlers.remove(&k.idle)
		k.idlers = nil
	}
	l.connections.Add(-1)
	s.logSession(k.config, k.from, k.to, l.now-k.began, k.up.bytes, k.down.bytes, why)
}
