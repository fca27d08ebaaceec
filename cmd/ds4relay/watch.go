package main

import (
	"errors"
	"flag"
	"fmt"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/pairing"
	"github.com/ds4relay/ds4relay/internal/platform"
	"github.com/ds4relay/ds4relay/internal/probe"
	"github.com/ds4relay/ds4relay/internal/program"
	"github.com/ds4relay/ds4relay/internal/reconcile"
)

// initScript also updates OpenWrt's firewall.
const initScript = "/etc/init.d/ds4relay"

// reloadTime limits its action reload on a slow machine: up, which may wait for another ds4relay, and a restart of the
// firewall.
const reloadTime = 3 * time.Minute

// watch is the run of each minute. A timer calls it.
func (a *app) watch(f *flag.FlagSet) func([]string) error {
	missing := f.Bool("missing", false, "bring up enabled relays with a DNS name that are down")
	stay := stayFlag(f)
	a.stepFlags(f)
	return func([]string) error {
		if *stay {
			return a.stay()
		}
		err := a.watchOnce(*missing, true)
		if a.quiet && needRoot() == nil {
			return a.unlessSaid(err)
		}
		return err
	}
}

// said is an error that the run before has printed too.
type said struct{ error }

func (s said) Unwrap() error { return s.error }

// unlessSaid keeps a service's runs from filling the log, as with a mistake in a file that has been edited.
func (a *app) unlessSaid(err error) error {
	m := &reconcile.End{Kernel: a.kernel()}
	watched := m.Kernel.Watched()
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != watched.Said {
		watched.Said = text
		return errors.Join(err, m.NoteWatched(watched))
	}
	if err != nil {
		return said{err}
	}
	return nil
}

// watchOnce follows the DNS names of other ends and the prefixes of this one, puts back what other programs have
// removed (mends), notes which relays clients have used, and listens whether the other ends are alive:
// another relay may take a silent one's place. It tells VPSs what they have not taken yet, and homes that this VPS has
// their address. One failure does not keep it from the rest.
func (a *app) watchOnce(missing, mends bool) error {
	if err := needRoot(); err != nil {
		return err
	}
	c, _, err := config.Load(a.path, a.defaults()) // do not repeat the warnings every minute
	if err != nil {
		return err
	}
	m := &reconcile.End{Config: c, Kernel: a.kernel(), Note: a.note} // which looks up each name once
	watched := m.Kernel.Watched()
	errs := []error{a.followNames(m, missing), a.followPaths(m)}
	if mends {
		errs = append(errs, a.mend(m, &watched))
	}
	m.NoteServed()
	silent := kernel.SilentRelays(c.Relays, &watched)
	watched.Relays, err = (&probe.Prober{Kernel: m.Kernel}).Listen(c.Relays, watched.Relays)
	errs = append(errs, err, m.NoteWatched(watched), a.followSilence(m, silent), announceAgain(m))
	return errors.Join(append(errs, a.pushAll(false, pairing.Limit))...)
}

// followSilence lets another relay take the place of one whose VPS has become silent, and gives it back.
func (a *app) followSilence(m *reconcile.End, before map[string]bool) error {
	names := m.Switched(before)
	if len(names) == 0 {
		return nil
	}
	return a.changeRelays(m, names)
}

// followNames checks whether the DNS name of another end has a new address, or this end another prefix, and moves the
// tunnel there.
func (a *app) followNames(m *reconcile.End, missing bool) error {
	moved, err := m.Moved(missing)
	if err != nil || len(moved) == 0 {
		return err
	}
	if here().Name() == platform.OpenWrtName {
		reload := program.Command{Name: initScript, Args: []string{"reload"}, Output: a.stderr, Limit: reloadTime}
		if _, _, err := reload.Run(); err != nil {
			return fmt.Errorf("%s reload: %w", initScript, err)
		}
		return nil
	}
	return a.changeRelays(m, moved)
}

// followPaths gives tunnels the MTU that passes. OpenWrt's firewall has no part in that.
func (a *app) followPaths(m *reconcile.End) error {
	narrow, err := measurePaths(m)
	if err != nil || len(narrow) == 0 {
		return err
	}
	return a.changeRelays(m, narrow)
}

// changeRelays applies what has changed for relays that are up.
func (a *app) changeRelays(m *reconcile.End, names []string) error {
	changed, err := m.Up(names, nil, a.show, a.waiting)
	if changed {
		a.announce()
		a.tell(m.Config)
	}
	return err
}

// mend puts back what other programs have removed.
func (a *app) mend(m *reconcile.End, watched *reconcile.Watch) error {
	changed, err := m.Mend(&watched.Repairs, kernel.Uptime(), a.show, a.waiting)
	if !changed {
		return err
	}
	a.announce()
	if here().Name() == platform.OpenWrtName {
		err = errors.Join(err, a.netifd(nil)) // a tunnel that was made anew
	}
	return err
}
