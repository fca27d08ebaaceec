package proxy

import (
	"math"
	"sync/atomic"
	"time"
)

// idle is a session's entry in the idlers of its loop and service.
type idle struct {
	prev, next *idle
	last       time.Duration // time of the last data
	expire     func(reason string)
}

// A rank says how far a client has proven its address. Anybody can send datagrams with forged source addresses, but
// does not receive the answers to them.
type rank int

const (
	unanswered rank = iota // the target has not answered
	answered               // the target has answered
	proven                 // the client has sent something after an answer
	ranks
)

// idlers is a list of sessions, longest idle first.
type idlers struct {
	loop    *loop
	timeout time.Duration
	root    idle // of the ring
	timer   *timer
	count   int
	size    atomic.Int64 // as count, readable by other loops
	// Time of the last data of the session that is idle longest, readable by other loops; math.MaxInt64 if there is
	// none.
	oldest atomic.Int64
}

func newIdlers(l *loop, timeout time.Duration) *idlers {
	list := &idlers{loop: l, timeout: timeout}
	list.root.prev, list.root.next = &list.root, &list.root
	list.timer = newTimer(list.run)
	list.oldest.Store(math.MaxInt64)
	return list
}

func (l *idlers) add(i *idle) {
	i.last = l.loop.now
	i.prev, i.next = l.root.prev, &l.root
	i.prev.next, i.next.prev = i, i
	l.size.Add(1)
	if l.count++; l.count == 1 {
		l.oldest.Store(int64(i.last))
		if l.timeout > 0 {
			l.loop.timers.set(l.timer, i.last+l.timeout)
		}
	}
}

func (l *idlers) remove(i *idle) {
	i.prev.next, i.next.prev = i.next, i.prev
	i.prev, i.next = nil, nil
	l.size.Add(-1)
	if l.count--; l.count == 0 {
		l.loop.timers.stop(l.timer)
	}
	l.tell()
}

// touch records new data.
func (l *idlers) touch(i *idle) {
	i.last = l.loop.now
	if i.next != &l.root {
		i.prev.next, i.next.prev = i.next, i.prev
		i.prev, i.next = l.root.prev, &l.root
		i.prev.next, i.next.prev = i, i
	}
	l.tell()
}

// tell updates oldest.
func (l *idlers) tell() {
	oldest := int64(math.MaxInt64)
	if l.count > 0 {
		oldest = int64(l.root.next.last)
	}
	if l.oldest.Load() != oldest {
		l.oldest.Store(oldest)
	}
}

// reset changes the timeout.
func (l *idlers) reset(timeout time.Duration) {
	l.timeout = timeout
	l.loop.timers.stop(l.timer)
	l.run()
}

// run ends sessions that are idle for too long, by the loop's time at the start of its round.
func (l *idlers) run() {
	if l.timeout <= 0 {
		return
	}
	for l.count > 0 {
		first := l.root.next
		if first.last+l.timeout > l.loop.now {
			l.loop.timers.set(l.timer, first.last+l.timeout)
			return
		}
		first.expire("idle")
	}
}
