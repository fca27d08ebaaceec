package proxy

import (
	"container/heap"
	"time"
)

// A timer calls its function once.
type timer struct {
	when  time.Duration
	call  func()
	index int // in the heap; -1: not set
}

// timers are a loop's timers, earliest first.
type timers struct{ heap timerHeap }

func (t *timers) set(tm *timer, when time.Duration) {
	t.stop(tm)
	tm.when = when
	heap.Push(&t.heap, tm)
}

// stop also accepts a timer that is not set. It must come from newTimer.
func (t *timers) stop(tm *timer) {
	if tm.index >= 0 {
		heap.Remove(&t.heap, tm.index)
	}
}

func newTimer(call func()) *timer { return &timer{call: call, index: -1} }

func (t *timers) next() (time.Duration, bool) {
	if len(t.heap) == 0 {
		return 0, false
	}
	return t.heap[0].when, true
}

func (t *timers) run(now time.Duration) {
	for len(t.heap) > 0 && t.heap[0].when <= now {
		heap.Pop(&t.heap).(*timer).call()
	}
}

type timerHeap []*timer

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].when < h[j].when }
func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *timerHeap) Push(x any) {
	tm := x.(*timer)
	tm.index = len(*h)
	*h = append(*h, tm)
}

func (h *timerHeap) Pop() any {
	last := len(*h) - 1
	tm := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	tm.index = -1
	return tm
}
