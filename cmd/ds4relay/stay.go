//go:build !openwrt

package main

import (
	"context"
	"errors"
	"flag"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/reconcile"
	"github.com/ds4relay/ds4relay/internal/state"
	"github.com/ds4relay/ds4relay/internal/traffic"
)

func stayFlag(f *flag.FlagSet) *bool {
	return f.Bool("stay", false, "stay, and put back at once what other programs take away from the relays that are up")
}

const (
	// quiet is how long nothing has to change before a look: `ip address flush` and DHCP clients' scripts take a
	// moment, and would take away again what is put back between their steps.
	quiet = 300 * time.Millisecond
	// latest limits how long changes may go on before a look.
	latest = 3 * time.Second
	// apart is the least time between two looks, except for what is urgent.
	apart = time.Second
)

// regular is the time between looks without a change, and between the runs of each minute.
var regular = time.Minute

// watcher puts back what other programs take away.
type watcher struct {
	*app
	kernel   *kernel.Kernel
	patience reconcile.Patience
	by       *message.Text     // who has changed something since the last look, if known
	said     map[string]string // the last error of each task
	looked   time.Time
	// since and due are when the first change was seen that nobody has looked at, and when that is to be done; zero
	// without one.
	since, due time.Time
	urgent     bool            // due does not wait for further changes
	waits      map[string]bool // what relays were waiting for at the last look
	rival      rival
}

// rival is who has removed what was put back last.
type rival struct {
	program, step string
	at            time.Time // of that repair
}

// stay watches the kernel as long as relays are to be up, and does each minute what `watch` does.
func (a *app) stay() error {
	if err := needRoot(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	changes, err := kernel.Watch(ctx)
	if err != nil {
		return err
	}
	w := &watcher{app: a, kernel: &kernel.Kernel{Run: a.run}, said: map[string]string{}}
	minute := time.NewTicker(regular)
	defer minute.Stop()
	w.report("rival", w.kernel.ForgetRival())
	w.look()
	if names := w.kernel.Applied().Relays; len(names) > 0 {
		w.note(message.New("watching over %s", strings.Join(names, ", ")))
	}
	counting := make(chan struct{})
	go func() {
		defer close(counting)
		if err := traffic.Run(ctx, a.trafficOptions()); err != nil {
			a.say(err.Error()) // the relays are more important
		}
	}()
	defer func() {
		stop()
		<-counting
	}()
	return w.serve(ctx, changes, minute.C, tasks{look: w.look, follow: w.follow,
		minute: func() error { return a.watchOnce(false, false) }})
}

// tasks are what a watcher does.
type tasks struct {
	look, follow func()
	minute       func() error // the run of each minute
}

// serve does the tasks in their time, as long as relays are to be up. The run of each minute waits for answers, most of
// all if something is missing: meanwhile that is put back.
func (w *watcher) serve(ctx context.Context, changes <-chan kernel.Change, minute <-chan time.Time, do tasks) error {
	var run chan error // the result of the run of this minute; nil if none goes on
	defer func() {
		if run != nil {
			<-run // which may be changing the kernel
		}
	}()
	for w.kernel.Awaited() {
		var due <-chan time.Time
		if !w.due.IsZero() {
			due = time.After(time.Until(w.due))
		}
		select {
		case <-ctx.Done():
			return nil
		case change := <-changes:
			w.changed(change, time.Now())
		case <-due:
			do.look()
			do.follow()
		case <-minute:
			do.look()
			if run == nil {
				done := make(chan error, 1)
				go func() { done <- do.minute() }()
				run = done
			}
		case err := <-run:
			run = nil
			w.report("watch", err)
			debug.FreeOSMemory()
		}
	}
	return w.kernel.ForgetRival()
}

// changed decides when to look at what has changed.
func (w *watcher) changed(change kernel.Change, now time.Time) {
	if change.By != nil {
		w.by = change.By
	}
	if w.patience.Lost() {
		return
	}
	if w.since.IsZero() {
		w.since = now
	}
	due := now.Add(quiet)
	if limit := w.since.Add(latest); due.After(limit) {
		due = limit
	}
	if least := w.looked.Add(apart); due.Before(least) {
		due = least
	}
	switch {
	case w.urgent:
	case change.Urgent:
		w.urgent, w.due = true, now
	default:
		w.due = due
	}
}

// look compares the kernel with the file, and puts back what is missing.
func (w *watcher) look() {
	w.since, w.due, w.urgent = time.Time{}, time.Time{}, false
	var steps []string
	waited := w.waits
	w.waits = map[string]bool{}
	changed, err := w.restore(func(step state.Step) { steps = append(steps, state.Line(step)) })
	now := time.Now()
	w.looked = now
	if err != nil {
		w.waits = waited // it has not come so far
	}
	by := w.by
	w.by = nil
	w.report("look", err)
	switch {
	case !changed:
	case err == nil && w.cameTrue(waited):
		w.announce()
		w.note(message.New("what a relay was waiting for is there: %s", strings.Join(steps, "; ")))
	default:
		w.announce()
		w.repaired(now, steps, by, err)
	}
	if w.patience.Regained(now) {
		w.note(message.New("nothing was taken away for %d minutes: from now on it is put back at once again",
			int(reconcile.QuietTime.Minutes())))
		w.report("rival", w.kernel.ForgetRival())
	}
}

// cameTrue reports whether something that a relay was waiting for at the look before is there.
func (w *watcher) cameTrue(waited map[string]bool) bool {
	for what := range waited {
		if !w.waits[what] {
			return true
		}
	}
	return false
}

// restore puts back what is missing. It looks no names up: the name servers may be what cannot be reached.
func (w *watcher) restore(show func(state.Step)) (changed bool, err error) {
	if len(w.kernel.Applied().Relays) == 0 {
		return false, nil
	}
	for range 2 { // between the two reads `ds4relay reload` may have applied a change
		var c *config.Config
		var mistakes config.Problems
		c, _, err = config.Load(w.path, w.defaults()) // without the warnings
		if errors.As(err, &mistakes) {
			return false, message.New("%v: %s", reconcile.ErrEdited, w.path)
		}
		if err != nil {
			return false, err
		}
		m := &reconcile.End{Config: c, Kernel: &kernel.Kernel{Run: w.run, Platform: here(), KeepPeers: true,
			KeepLocals: true}, Note: func(text *message.Text) {
			if state.Waits(text) {
				w.waits[text.Error()] = true
			}
		}}
		if changed, err = m.Restore(show, nil); !errors.Is(err, reconcile.ErrEdited) {
			break
		}
	}
	return changed, err
}

// follow gives tunnels the endpoint that the prefix of this moment makes, where the file has auto. Names are followed
// once a minute.
func (w *watcher) follow() {
	c, _, err := config.Load(w.path, w.defaults())
	if err != nil || !slices.ContainsFunc(c.Relays, func(r *config.Relay) bool { return r.Auto }) {
		return // look reports errors
	}
	w.report("prefix", w.followNames(&reconcile.End{Config: c, Note: w.note,
		Kernel: &kernel.Kernel{Run: w.run, Platform: here(), KeepPeers: true}}, false))
}

// repaired says what was put back, and gives up if there were too many repairs, or attempts at one: a program that
// takes away what has just been put back may also be faster than a repair.
func (w *watcher) repaired(now time.Time, steps []string, by *message.Text, err error) {
	if err == nil {
		w.rival = rival{"another program", steps[0], now}
		if by != nil {
			w.rival.program = by.Error()
		}
	}
	lost := w.patience.Repaired(now)
	if err == nil && (lost || !w.patience.Lost()) {
		w.note(message.New("%s has removed or changed what the relays need; put back: %s", w.rival.program,
			strings.Join(steps, "; ")))
	}
	if !lost {
		return
	}
	if now.Sub(w.rival.at) >= reconcile.RepairTime { // nothing that was put back is missing
		w.note(message.New("what is missing could not be put back; from now on it is tried once a minute"))
		return
	}
	w.note(message.New("%d repairs within a minute: from now on what is taken away is put back once a minute, until "+
		"nothing was taken away for %d minutes; stop %s from taking it away", reconcile.MaxRepairs,
		int(reconcile.QuietTime.Minutes()), w.rival.program))
	w.report("rival", w.kernel.NoteRival(w.rival.program, w.rival.step))
}

// report prints a task's error, but not again while it stays the same.
func (w *watcher) report(task string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if errors.Is(err, reconcile.ErrEdited) {
		text += "; nothing is put back before `ds4relay reload`"
	}
	if text != "" && text != w.said[task] {
		w.say(text)
	}
	w.said[task] = text
}
