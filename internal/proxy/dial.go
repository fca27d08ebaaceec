package proxy

import (
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// attemptDelay is the time after which the next address is tried in parallel (RFC 8305 section 5).
const attemptDelay = 250 * time.Millisecond

// dial connects to one of a target's addresses as in RFC 8305.
type dial struct {
	conn     *conn
	addrs    []netip.Addr // not tried yet
	port     uint16
	attempts []*attempt
	next     *timer // starts the attempt for the next address
	limit    *timer
	err      error // of the latest failed attempt
	first    netip.Addr
}

// attempt is a connecting socket.
type attempt struct {
	dial *dial
	fd   int
	way  *way
	addr netip.AddrPort
}

func (k *conn) connect(targets *targets, port uint16) {
	addrs := targets.addresses()
	d := &dial{conn: k, addrs: addrs, port: port}
	k.dial = d
	d.next, d.limit = newTimer(d.try), newTimer(d.expired)
	if len(addrs) == 0 {
		d.err = targets.none()
		d.fail()
		return
	}
	d.first = addrs[0]
	k.loop.timers.set(d.limit, k.loop.now+k.config.ConnectTimeout)
	d.try()
}

// try starts an attempt with the next address that accepts one.
func (d *dial) try() {
	l := d.conn.loop
	l.timers.stop(d.next)
	for len(d.addrs) > 0 {
		addr := netip.AddrPortFrom(d.addrs[0], d.port)
		d.addrs = d.addrs[1:]
		if err := d.start(addr); err != nil {
			d.err = fmt.Errorf("connect to %s: %w", addr, err)
			continue
		}
		if len(d.addrs) > 0 {
			l.timers.set(d.next, l.now+attemptDelay)
		}
		return
	}
	if len(d.attempts) == 0 {
		d.fail()
	}
}

func (d *dial) start(addr netip.AddrPort) error {
	l, k := d.conn.loop, d.conn
	if err := k.service.server.hops.own(k.service, addr); err != nil {
		return err
	}
	fd, err := l.reserve.socket(family(addr.Addr()), unix.SOCK_STREAM)
	if err != nil {
		return err
	}
	noDelay(fd)
	way, err := k.service.server.hops.connect(fd, k.hop, addr)
	if err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return err
	}
	a := &attempt{dial: d, fd: fd, way: way, addr: addr}
	if err := l.add(fd, watched, a); err != nil {
		unix.Close(fd)
		k.service.server.hops.close(way)
		return err
	}
	d.attempts = append(d.attempts, a)
	return nil
}

// tune sets options that accepted connections inherit from their listening socket. Errors are ignored: a connection
// also works without these options.
func tune(fd int, keepalive time.Duration) {
	noDelay(fd)
	keepAlive(fd, keepalive)
}

func noDelay(fd int) { _ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) }

func keepAlive(fd int, keepalive time.Duration) {
	if keepalive <= 0 {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0)
		return
	}
	seconds := int(keepalive / time.Second)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, min(seconds, maxKeepalive))
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, min(max(seconds/4, 1), maxKeepalive))
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4)
}

// maxKeepalive is the kernel's limit in seconds (MAX_TCP_KEEPIDLE, include/net/tcp.h).
const maxKeepalive = 32767

func (a *attempt) event(mask uint32) {
	if mask&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) == 0 {
		return
	}
	if mask&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		if err := socketError(a.fd); err != nil {
			a.dial.lost(a, err)
			return
		}
	}
	a.dial.won(a, mask)
}

// lost handles a failed attempt: the next address is tried at once.
func (d *dial) lost(a *attempt, err error) {
	d.err = fmt.Errorf("connect to %s: %w", a.addr, err)
	for i := range d.attempts {
		if d.attempts[i] == a {
			d.attempts = append(d.attempts[:i], d.attempts[i+1:]...)
			break
		}
	}
	d.conn.loop.forget(a.fd)
	unix.Close(a.fd)
	d.conn.service.server.hops.close(a.way)
	d.try()
}

// won makes the socket the target's side and starts to move bytes.
func (d *dial) won(a *attempt, mask uint32) {
	k := d.conn
	for i := range d.attempts {
		if d.attempts[i] == a {
			d.attempts = append(d.attempts[:i], d.attempts[i+1:]...)
			break
		}
	}
	d.stop()
	k.dial = nil
	k.to = a.addr
	k.target.fd, k.target.way = a.fd, a.way
	k.loop.entries[a.fd].handler = &k.target
	if a.addr.Addr() != d.first {
		k.service.targets.Load().answered(a.addr.Addr())
	}
	if k.config.Keepalive > 0 {
		k.loop.rear(a.fd)
	}
	if k.config.IdleTimeout > 0 {
		k.idle.expire = func(why string) { k.end(why, nil) }
		k.idlers = k.service.in(k.loop).idle[proven]
		k.idlers.add(&k.idle)
	}
	if k.config.ProxyProtocol != 0 {
		header, err := streamHeader(k.config.ProxyProtocol, k.from, localAddr(k.client.fd))
		if err != nil {
			k.end("failed", err)
			return
		}
		k.up.rest = header
	}
	k.target.event(mask)
	k.up.pump()
}

// stop ends all attempts with a reset: one may have connected although it is no longer needed.
func (d *dial) stop() {
	l := d.conn.loop
	l.timers.stop(d.next)
	l.timers.stop(d.limit)
	for _, a := range d.attempts {
		l.forget(a.fd)
		closeReset(a.fd)
		d.conn.service.server.hops.close(a.way)
	}
	d.attempts = nil
}

func (d *dial) expired() {
	if d.err == nil {
		d.err = fmt.Errorf("connect to %s: no answer within %s", d.conn.config.Target, d.conn.config.ConnectTimeout)
	}
	d.fail()
}

// fail refuses the client.
func (d *dial) fail() {
	s := d.conn.service
	s.stats.fail(d.err)
	why := unreachable
	if ranOut(d.err) {
		why = exhausted
	} else {
		s.targets.Load().again()
	}
	s.refuse(why)
	d.conn.end(refusalNames[why], nil)
}
