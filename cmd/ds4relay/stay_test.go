//go:build !openwrt

package main

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/message"
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

// TestRivalNamed: who takes away what was put back is named, also if he is faster than some of the repairs. Repairs
// that all fail are no sign of anybody.
func TestRivalNamed(t *testing.T) {
	for _, c := range []struct {
		what  string
		fails []bool
		rival string
	}{
		{"all succeed", []bool{false, false, false, false, false}, "nft (process 7)"},
		{"the last ones fail", []bool{false, false, true, true, true}, "nft (process 7)"},
		{"all fail", []bool{true, true, true, true, true}, ""},
	} {
		var out bytes.Buffer
		w := &watcher{app: &app{stderr: &out}, kernel: &kernel.Kernel{Run: t.TempDir()}, said: map[string]string{}}
		for i, fails := range c.fails {
			var err error
			if fails {
				err = errors.New("no such table")
			}
			w.repaired(time.Unix(int64(1000+i), 0), []string{"nft -f -"}, message.New("nft (process 7)"), err)
		}
		if program, _ := w.kernel.Rival(); program != c.rival || w.patience.Lost() != true {
			t.Errorf("%s: the rival is %q, want %q; it said: %s", c.what, program, c.rival, out.String())
		}
	}
}
