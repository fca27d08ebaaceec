package main

import (
	"fmt"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/control"
	"github.com/ds4relay/ds4relay/internal/platform"
	"github.com/ds4relay/ds4relay/internal/program"
)

// initScript brings OpenWrt's firewall up to date too.
const initScript = "/etc/init.d/ds4relay"

// reloadTime bounds its action reload: up, which may wait for another ds4relay, and a firewall that starts anew, on a
// slow machine.
const reloadTime = 3 * time.Minute

// watch looks once whether the DNS name of an other end has another address, and moves the tunnel there: for a timer.
func (a *app) watch(args []string) error {
	f := a.flags("watch")
	missing := f.Bool("missing", false, "")
	f.BoolVar(&a.quiet, "q", a.quiet, "")
	if args, err := parse(f, args); err != nil {
		return err
	} else if len(args) > 0 {
		return usageError("watch takes no arguments but --missing and -q")
	}
	if err := needRoot(); err != nil {
		return err
	}
	c, _, err := config.Load(a.path, here().DefaultRole()) // its warnings are not for every minute
	if err != nil {
		return err
	}
	m := &control.Machine{Config: c, Kernel: a.kernel(), Note: a.note}
	moved, err := m.Moved(*missing)
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
