package proxy

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A handler receives the events of its descriptor.
type handler interface {
	event(mask uint32)
}

// entry is what a loop knows about a descriptor. The generation tells its events from those of an earlier file with the
// same number.
type entry struct {
	handler    handler
	generation int32
}

// loop waits for events of its descriptors and handles them, all in one goroutine.
type loop struct {
	epoll      int
	wake       int // eventfd
	entries    []entry
	generation int32
	start      time.Time
	now        time.Duration // since start, read once per round
	round      uint64
	young      []young // connections to targets, oldest first
	timers     timers
	growing    *timer
	ready      []*direction // used up their burst
	pipes      pipes
	buffer     []byte
	reserve    *reserve // shared by the server
	done       chan struct{}
	quit       bool

	mu     sync.Mutex
	posted []func()

	connections atomic.Int64 // TCP only
	datagrams   datagrams
}

// bulkWait is for how many milliseconds a loop that has data in transit waits for its next event without telling Go's
// scheduler. The scheduler would hand the loop's processor to another thread and wake it.
const bulkWait = 10

// maxEvents is how many events one call takes from the kernel.
const maxEvents = 256

// watched is the event mask of a connection, edge-triggered: it is set once and never changed.
const watched = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLPRI | unix.EPOLLRDHUP | unix.EPOLLET

func newLoop(r *reserve) (*loop, error) {
	l := &loop{epoll: -1, wake: -1, reserve: r, pipes: pipes{reserve: r}, start: time.Now(),
		buffer: make([]byte, copySize), done: make(chan struct{})}
	l.growing = newTimer(l.grow)
	var err error
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll_create: %w", err)
	}
	if l.wake, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		unix.Close(l.epoll)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	if err := l.add(l.wake, unix.EPOLLIN, wakener{l}); err != nil {
		unix.Close(l.epoll)
		unix.Close(l.wake)
		return nil, err
	}
	return l, nil
}

// add watches fd until it is closed.
func (l *loop) add(fd int, mask uint32, h handler) error {
	for fd >= len(l.entries) {
		l.entries = append(l.entries, entry{})
	}
	l.generation++
	event := unix.EpollEvent{Events: mask, Fd: int32(fd), Pad: l.generation}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	l.entries[fd] = entry{h, l.generation}
	return nil
}

// young is a new connection to a target without TCP keepalive. Most connections end before they need it, and setting it
// takes four system calls.
type young struct {
	fd         int
	generation int32
	grown      time.Duration // when to set keepalive
}

// youth is how long a connection stays young.
const youth = time.Second

// rear has keepalive set after a while.
func (l *loop) rear(fd int) {
	l.young = append(l.young, young{fd, l.entries[fd].generation, l.now + youth})
	if len(l.young) == 1 {
		l.timers.set(l.growing, l.now+youth)
	}
}

func (l *loop) grow() {
	for len(l.young) > 0 {
		y := l.young[0]
		if y.grown > l.now {
			l.timers.set(l.growing, y.grown)
			return
		}
		l.young = l.young[1:]
		if side, ok := l.entries[y.fd].handler.(*side); ok && l.entries[y.fd].generation == y.generation {
			keepAlive(y.fd, side.conn.config.Keepalive)
		}
	}
	l.young = nil
}

// forget must be called before a descriptor is closed.
func (l *loop) forget(fd int) { l.entries[fd] = entry{} }

// post runs f in the loop.
func (l *loop) post(f func()) {
	l.mu.Lock()
	l.posted = append(l.posted, f)
	l.mu.Unlock()
	// If the counter is full, the loop is awake already.
	_, _ = unix.Write(l.wake, binary.NativeEndian.AppendUint64(nil, 1))
}

// call runs f in the loop and waits for it. It must not be called from a loop.
func (l *loop) call(f func()) {
	finished := make(chan struct{})
	l.post(func() {
		f()
		close(finished)
	})
	select {
	case <-finished:
	case <-l.done:
	}
}

// wakener empties the eventfd.
type wakener struct{ l *loop }

func (w wakener) event(uint32) {
	var count [8]byte
	_, _ = unix.Read(w.l.wake, count[:])
	w.l.mu.Lock()
	posted := w.l.posted
	w.l.posted = nil
	w.l.mu.Unlock()
	for _, f := range posted {
		f()
	}
}

func (l *loop) run() {
	defer close(l.done)
	runtime.LockOSThread() // the loop stays on one thread; another one would have to be woken for each move
	list := make([]unix.EpollEvent, maxEvents)
	for !l.quit {
		n := l.wait(list)
		l.now = time.Since(l.start)
		l.round++
		for i := range list[:n] {
			if e := l.entries[list[i].Fd]; e.generation == list[i].Pad && e.handler != nil {
				e.handler.event(list[i].Events)
			}
		}
		l.timers.run(l.now)
		ready := l.ready
		l.ready = nil
		for _, d := range ready {
			d.queued = false
			d.pump()
		}
	}
}

// unqueue removes a direction from ready.
func (l *loop) unqueue(d *direction) {
	l.ready = slices.DeleteFunc(l.ready, func(other *direction) bool { return other == d })
}

// wait returns the number of events.
func (l *loop) wait(list []unix.EpollEvent) int {
	// Under load there are usually events waiting, so the call does not block and the Go scheduler need not know.
	if n, err := events(l.epoll, list, 0); err == nil && n > 0 || len(l.ready) > 0 {
		return n
	}
	timeout := -1
	if next, ok := l.timers.next(); ok {
		left := next - time.Since(l.start)
		timeout = max(0, int((left+time.Millisecond-1)/time.Millisecond))
	}
	if l.pipes.busy() {
		most := bulkWait
		if timeout >= 0 {
			most = min(most, timeout)
		}
		if n, err := events(l.epoll, list, most); err == nil && (n > 0 || most == timeout) {
			return n
		}
	}
	got, err := unix.EpollWait(l.epoll, list, timeout)
	if err != nil {
		return 0
	}
	return got
}

// endAll ends all sessions.
func (l *loop) endAll() {
	for fd := range l.entries {
		switch h := l.entries[fd].handler.(type) {
		case *side:
			h.conn.end("stopped", nil)
		case *attempt:
			h.dial.conn.end("stopped", nil)
		case *session:
			h.end("stopped")
		}
	}
}

// close frees what newLoop opened, and the pool's pipes.
func (l *loop) close() {
	l.pipes.close()
	unix.Close(l.epoll)
	unix.Close(l.wake)
}
