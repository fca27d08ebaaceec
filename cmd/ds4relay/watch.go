package main

import (
	"flag"
	"fmt"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/platform"
	"github.com/ds4relay/ds4relay/internal/program"
	"github.com/ds4relay/ds4relay/internal/reconcile"
)

// initScript also updates OpenWrt's firewall.
const initScript = "/etc/init.d/ds4relay"

// reloadTime limits its action reload on a slow machine: up, which may wait for another ds4relay, and a restart of the
// firewall.
const reloadTime = 3 * time.Minute

// watch checks once whether the DNS name of another end has a new address, and moves the tunnel there. A timer calls
// it.
func (a *app) watch(f *flag.FlagSet) func([]string) error {
	missing := f.Bool("missing", false, "bring up enabled relays with a DNS name that are down")
	stay := stayFlag(f)
	a.stepFlags(f)
	return func([]string) error {
		if *stay {
			return a.stay()
		}
		return a.watchOnce(*missing)
	}
}

// watchOnce does what a timer, or `watch --stay`, does once a minute.
func (a *app) watchOnce(missing bool) error { return a.followNames(missing) }

func (a *app) followNames(missing bool) error {
	if err := needRoot(); err != nil {
		return err
	}
	c, _, err := config.Load(a.path, here().DefaultRole()) // do not repeat the warnings every minute
	if err != nil {
		return err
	}
	m := &reconcile.End{Config: c, Kernel: a.kernel(), Note: a.note}
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
	changed, err := m.Up(moved, nil, a.show, a.waiting)
	if changed {
		a.announce()
	}
	return err
}
