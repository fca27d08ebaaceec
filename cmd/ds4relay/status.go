package main

import (
	"context"
	"errors"
	"flag"
	"os"
	"os/signal"
	"time"

	"github.com/ds4relay/ds4relay/internal/plain"
	"github.com/ds4relay/ds4relay/internal/reconcile"
)

// redraw is the interval of `status --watch`.
const redraw = 2 * time.Second

func (a *app) status(f *flag.FlagSet) func([]string) error {
	asJSON := f.Bool("json", false, "print JSON")
	watch := f.Bool("watch", false, "show it again every two seconds, until Ctrl-C")
	count := f.Int("n", 0, "with --watch, end after `N` times")
	return func(names []string) error {
		switch {
		case *watch && *asJSON:
			return usageError("status takes --watch or --json, not both")
		case *count < 0 || *count > 0 && !*watch:
			return usageError("status -n: allowed is a number from 1, with --watch")
		case *watch:
			return a.watchStatus(names, *count)
		}
		return a.showStatus(names, *asJSON, func() {})
	}
}

// watchStatus shows the status count times; 0 means until an interrupt.
func (a *app) watchStatus(names []string, count int) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	for n := 1; ; n++ {
		err := a.showStatus(names, false, func() { plain.Clear(a.stdout) })
		var code exitCode
		if n == count || err != nil && !errors.As(err, &code) {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(redraw):
		}
	}
}

// showStatus collects everything, calls before, and then prints.
func (a *app) showStatus(names []string, asJSON bool, before func()) error {
	c, warnings, err := a.read(a.path)
	if err != nil {
		a.warn(warnings)
		return err
	}
	m := &reconcile.End{Config: c, Kernel: a.kernel(), Joined: a.pairings.Paired}
	if needRoot() == nil { // only root may read other programs' files and sockets
		m.Neighbours = a.neighbours
	}
	s, err := m.Status(names...)
	if err != nil {
		return err
	}
	before()
	a.warn(warnings)
	s.Warn(warnings)
	ok, err := a.describe(c, s, names, asJSON)
	switch {
	case err != nil:
		return err
	case !ok:
		return exitCode(exitDiffers)
	case s.Silent():
		return exitCode(exitSilent)
	case len(s.Unseen) > 0:
		return exitCode(exitFailed)
	}
	return nil
}
