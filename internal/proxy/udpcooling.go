package proxy

import (
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// cooling keeps the sockets of ended UDP sessions open for a while. If a new session got the same port at once, it
// would receive late answers to the old one.
type cooling struct {
	mu      sync.Mutex
	sockets []cooled // oldest first
	hops    *hops
}

type cooled struct {
	fd    int
	way   *way
	until time.Time
}

const (
	coolTime = 5 * time.Second
	maxCool  = 1024
)

// cool hands a socket of this loop over to be closed later.
func (l *loop) cool(s *Server, fd int, w *way) {
	c := &s.cooling
	_ = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, fd, nil)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 0) // the minimum: nobody reads it
	c.mu.Lock()
	if len(c.sockets) == maxCool {
		c.close(1)
	}
	c.sockets = append(c.sockets, cooled{fd, w, time.Now().Add(coolTime)})
	c.mu.Unlock()
	if l.datagrams.cooling == nil {
		l.datagrams.cooling = newTimer(func() {
			if c.expire() > 0 {
				l.timers.set(l.datagrams.cooling, l.now+coolTime)
			}
		})
	}
	if l.datagrams.cooling.index < 0 {
		l.timers.set(l.datagrams.cooling, l.now+coolTime)
	}
}

// expire closes the sockets whose time has passed and returns how many are left.
func (c *cooling) expire() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	n := slices.IndexFunc(c.sockets, func(s cooled) bool { return s.until.After(now) })
	if n < 0 {
		n = len(c.sockets)
	}
	c.close(n)
	return len(c.sockets)
}

// thaw closes the oldest socket early, when descriptors or ports have run out.
func (c *cooling) thaw() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.sockets) == 0 {
		return false
	}
	c.close(1)
	return true
}

func (c *cooling) closeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.close(len(c.sockets))
}

// close closes the n oldest sockets.
func (c *cooling) close(n int) {
	for _, s := range c.sockets[:n] {
		unix.Close(s.fd)
		c.hops.close(s.way)
	}
	c.sockets = slices.Delete(c.sockets, 0, n)
}
