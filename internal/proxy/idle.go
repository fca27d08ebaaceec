package proxy

import (
	"math"
	"sync/atomic"
	"time"
)

// idle is a session's place in the list of its loop and service.
type idle struct {
	prev, next *idle
	last       time.Duration // when bytes came last
	expire     func(reason string)
}

// A rank is what is known of a client: anybody can send datagrams with the addresses of others, as many as he likes,
// and the answers do not come to him.
type rank int

const (
	unanswered rank = iota // the target has sent it nothing
	answered               // the target has
	proven                 // and the client has sent something after that
	ranks
)

// idlers are sessions, the idlest first.
type idlers struct {
	loop    *loop
	timeout time.Duration
	root    idle // of a ring
	timer   *timer
	count   int
	size    atomic.Int64 // the same, for other loops to read
	// When bytes came last for the idlest, for other loops to read; math.MaxInt64 where there is none.
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

// touch tells that bytes came.
func (l *idlers) touch(i *idle) {
	i.last = l.loop.now
	if i.next != &l.root {
		i.prev.next, i.next.prev = i.next, i.prev
		i.prev, i.next = l.root.prev, &l.root
		i.prev.next, i.next.prev = i, i
	}
	l.tell()
}

// tell keeps oldest up to date.
func (l *idlers) tell() {
	oldest := int64(math.MaxInt64)
	if l.count > 0 {
		oldest = int64(l.root.next.last)
	}
	if l.oldest.Load() != oldest {
		l.oldest.Store(oldest)
	}
}

// reset takes another timeout.
func (l *idlers) reset(timeout time.Duration) {
	l.timeout = timeout
	l.loop.timers.stop(l.timer)
	l.run()
}

// run ends what was idle for too long. The time is of the round, so that what ends is what was idle when it began.
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
