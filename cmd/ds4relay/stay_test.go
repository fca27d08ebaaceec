//go:build !openwrt

package main

import (
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/reconcile"
)

// TestLooksLater: a look waits until it is quiet, but not for ever; what is urgent does not wait; a rival is left
// alone.
func TestLooksLater(t *testing.T) {
	start := time.Unix(1000, 0)
	for _, c := range []struct {
		what    string
		looked  time.Duration // of the last look, before start
		changes []time.Duration
		urgent  time.Duration // 0: none
		due     time.Duration
	}{
		{"one change", time.Hour, []time.Duration{0}, 0, quiet},
		{"the last of some", time.Hour, []time.Duration{0, 100 * time.Millisecond}, 0, 100*time.Millisecond + quiet},
		{"too many", time.Hour, []time.Duration{0, time.Second, 2 * time.Second, latest - quiet/2}, 0, latest},
		{"behind a look", 0, []time.Duration{0}, 0, apart},
		{"an urgent one", 0, []time.Duration{0}, time.Millisecond, time.Millisecond},
	} {
		w := &watcher{looked: start.Add(-c.looked)}
		for _, at := range c.changes {
			w.changed(kernel.Change{}, start.Add(at))
		}
		if c.urgent > 0 {
			w.changed(kernel.Change{Urgent: true}, start.Add(c.urgent))
			w.changed(kernel.Change{}, start.Add(c.urgent))
		}
		if due := w.due.Sub(start); due != c.due {
			t.Errorf("%s: it looks after %v, want %v", c.what, due, c.due)
		}
	}
	w := &watcher{}
	for range reconcile.MaxRepairs {
		w.patience.Repaired(start)
	}
	if w.changed(kernel.Change{Urgent: true}, start); !w.due.IsZero() {
		t.Error("it reacts to a rival")
	}
}
