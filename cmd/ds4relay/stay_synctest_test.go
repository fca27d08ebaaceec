//go:build !openwrt && go1.25

package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ds4relay/ds4relay/internal/kernel"
)

// TestLooksMeanwhile: a change is looked at while the run of a minute waits for answers. One run goes on at a time, and
// the end waits for it.
func TestLooksMeanwhile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "applied"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		w := &watcher{app: &app{}, kernel: &kernel.Kernel{Run: dir}, said: map[string]string{}}
		changes, minute := make(chan kernel.Change), make(chan time.Time)
		looks, runs, answer, ended := 0, 0, make(chan error), make(chan error, 1)
		ctx, stop := context.WithCancel(t.Context())
		go func() {
			ended <- w.serve(ctx, changes, minute, tasks{
				look:   func() { w.since, w.due, w.urgent = time.Time{}, time.Time{}, false; looks++ },
				follow: func() {},
				minute: func() error { runs++; return <-answer },
			})
		}()
		minute <- time.Time{}
		changes <- kernel.Change{Urgent: true}
		time.Sleep(time.Second) // of the test's clock
		minute <- time.Time{}
		synctest.Wait()
		if looks != 3 || runs != 1 {
			t.Errorf("%d looks and %d runs, want 3 and 1", looks, runs)
		}
		stop()
		synctest.Wait()
		if len(ended) > 0 {
			t.Error("it has ended before the run")
		}
		answer <- nil
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
