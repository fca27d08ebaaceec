package proxy

import "time"

// idle is a session's place in the list of its loop and service.
type idle struct {
	prev, next *idle
	last       time.Duration // when bytes came last
	expire     func(reason string)
}

// idlers are sessions, the idlest first.
type idlers struct {
	loop    *loop
	timeout time.Duration
	root    idle // of a ring
	timer   *timer
	count   int
}

func newIdlers(l *loop, timeout time.Duration) *idlers {
	list := &idlers{loop: l, timeout: timeout}
	list.root.prev, list.root.next = &list.root, &list.root
	list.timer = newTimer(list.run)
	return list
}

func (l *idlers) add(i *idle) {
	i.last = l.loop.now
	i.prev, i.next = l.root.prev, &l.root
	i.prev.next, i.next.prev = i, i
	if l.count++; l.count == 1 && l.timeout > 0 {
		l.loop.timers.set(l.timer, i.last+l.timeout)
	}
}

func (l *idlers) remove(i *idle) {
	i.prev.next, i.next.prev = i.next, i.prev
	i.prev, i.next = nil, nil
	if l.count--; l.count == 0 {
		l.loop.timers.stop(l.timer)
	}
}

// touch tells that bytes came.
func (l *idlers) touch(i *idle) {
	if i.last = l.loop.now; i.next == &l.root {
		return
	}
	i.prev.next, i.next.prev = i.next, i.prev
	i.prev, i.next = l.root.prev, &l.root
	i.prev.next, i.next.prev = i, i
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
