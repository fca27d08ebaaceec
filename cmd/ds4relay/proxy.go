//go:build !openwrt

package main

import (
	"errors"
	"fmt"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/control"
	"github.com/ds4relay/ds4relay/internal/proxyd"
)

// proxy runs the proxies of the configuration in the foreground, or asks the process that does.
func (a *app) proxy(args []string) error {
	f := a.flags("proxy")
	status := f.Bool("status", false, "")
	asJSON := f.Bool("json", false, "")
	reload := f.Bool("reload", false, "")
	upgrade := f.Bool("upgrade", false, "")
	takeOver := f.Bool("take-over", false, "")
	args, err := parse(f, args)
	if err != nil {
		return err
	}
	asked := 0
	for _, option := range []bool{*status, *reload, *upgrade, *takeOver} {
		if option {
			asked++
		}
	}
	if len(args) > 0 || asked > 1 || *asJSON && !*status {
		return usageError("proxy takes one of --status [--json], --reload, --upgrade and --take-over, or nothing")
	}
	switch {
	case *status:
		return a.proxyStatus(*asJSON)
	case *reload:
		return taken(proxyd.Reload(a.run))
	case *upgrade:
		return proxyd.Upgrade(a.run)
	}
	return proxyd.Run(proxyd.Options{
		Run: a.run, Version: version, TakeOver: *takeOver, Say: a.note,
		Load: func() ([]*config.Proxy, error) {
			c, _, err := a.load(a.path)
			if err != nil {
				return nil, err
			}
			return c.Proxies, nil
		},
		Wrong: wrong,
	})
}

// wrong tells an error of the configuration from others.
func wrong(err error) bool {
	var problems config.Problems
	return errors.As(err, &problems) || errors.Is(err, errConfig)
}

// taken makes a configuration that the proxies have not taken a mistake of the user.
func taken(err error) error {
	if errors.Is(err, proxyd.ErrConfiguration) {
		return usageError(err.Error())
	}
	return err
}

func (a *app) proxyStatus(asJSON bool) error {
	c, _, err := a.load(a.path)
	if err != nil {
		return err
	}
	entries, err := a.proxies(c)
	if err != nil {
		return err
	}
	switch {
	case asJSON:
		err = a.printJSON(entries)
	case len(entries) == 0:
		fmt.Fprintln(a.stdout, "The configuration has no proxy.")
	default:
		proxyd.Print(a.stdout, entries)
	}
	if err == nil && !proxyd.OK(entries) {
		err = exitCode(exitDiffers)
	}
	return err
}

// proxies compares the proxies that run with the configuration.
func (a *app) proxies(c *config.Config) ([]proxyd.Entry, error) {
	report, err := proxyd.Ask(a.run)
	if err != nil && !errors.Is(err, proxyd.ErrNotRunning) {
		return nil, err
	}
	return proxyd.Entries(report, c.Proxies), nil
}

// reload makes the kernel match the configuration, and the proxies that run.
func (a *app) reload(args []string) error {
	err := a.up(args)
	var bad usageError
	if err != nil && (wrong(err) || errors.Is(err, control.ErrUnknownRelay) || errors.As(err, &bad)) {
		return err
	}
	if also := taken(proxyd.Reload(a.run)); !errors.Is(also, proxyd.ErrNotRunning) {
		err = errors.Join(err, also)
	}
	return err
}

// hostStatus is what status prints beyond the relays.
type hostStatus struct {
	*control.Status
	Proxies []proxyd.Entry `json:"proxies,omitempty"`
}

// describe prints the status of relays and proxies, and tells whether both are as the configuration says.
func (a *app) describe(c *config.Config, s *control.Status, asJSON bool) (bool, error) {
	entries, err := a.proxies(c)
	if err != nil {
		return false, err
	}
	if asJSON {
		return s.OK() && proxyd.OK(entries), a.printJSON(hostStatus{s, entries})
	}
	if len(entries) > 0 {
		proxyd.Print(a.stdout, entries)
		fmt.Fprintln(a.stdout)
	}
	if len(s.Relays) > 0 || len(entries) == 0 {
		s.Print(a.stdout)
	}
	return s.OK() && proxyd.OK(entries), nil
}
