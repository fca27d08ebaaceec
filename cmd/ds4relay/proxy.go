//go:build !openwrt

package main

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/doctor"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/proxyd"
	"github.com/ds4relay/ds4relay/internal/reconcile"
)

// proxy runs the proxies of the configuration in the foreground, or asks the running service.
func (a *app) proxy(f *flag.FlagSet) func([]string) error {
	status := f.Bool("status", false, "show the proxies that run")
	asJSON := f.Bool("json", false, "print JSON, with --status")
	reload := f.Bool("reload", false, "let the running process read the configuration again")
	upgrade := f.Bool("upgrade", false, "let the running process hand over to the version that is installed now")
	takeOver := f.Bool("take-over", false, "take over from the running process, if there is one")
	return func([]string) error { return a.runProxy(*status, *asJSON, *reload, *upgrade, *takeOver) }
}

func (a *app) runProxy(status, asJSON, reload, upgrade, takeOver bool) error {
	asked := 0
	for _, option := range []bool{status, reload, upgrade, takeOver} {
		if option {
			asked++
		}
	}
	if asked > 1 || asJSON && !status {
		return usageError("proxy takes one of --status [--json], --reload, --upgrade and --take-over, or nothing")
	}
	switch {
	case status:
		return a.proxyStatus(asJSON)
	case reload:
		return taken(proxyd.Reload(a.run))
	case upgrade:
		return proxyd.Upgrade(a.run)
	}
	return proxyd.Run(proxyd.Options{
		Run: a.run, Version: version, TakeOver: takeOver, Say: a.say,
		Load: func() ([]*config.Proxy, error) {
			c, _, err := a.load(a.path)
			if err != nil {
				return nil, err
			}
			return c.Proxies, nil
		},
	})
}

// wrong reports whether an error is a mistake in the configuration.
func wrong(err error) bool {
	var problems config.Problems
	return errors.As(err, &problems) || errors.Is(err, errConfig)
}

// taken turns the proxies' refusal of a configuration into a mistake of the user.
func taken(err error) error {
	var mistake proxyd.ConfigurationError
	if errors.As(err, &mistake) {
		return usageError(mistake.Error())
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

// proxies compares the running proxies with the configuration.
func (a *app) proxies(c *config.Config) ([]proxyd.Entry, error) {
	report, err := proxyd.Ask(a.run)
	if err != nil && !errors.Is(err, proxyd.ErrNotRunning) {
		return nil, err
	}
	return proxyd.Entries(report, c.Proxies), nil
}

// reload makes the kernel and the running proxies match the configuration.
func (a *app) reload(f *flag.FlagSet) func([]string) error {
	up := a.up(f)
	return func(names []string) error { return a.alsoProxies(up(names)) }
}

// alsoProxies makes the proxies read the configuration again, unless err is about the configuration.
func (a *app) alsoProxies(err error) error {
	var bad usageError
	if err != nil && (wrong(err) || errors.Is(err, reconcile.ErrUnknownRelay) || errors.As(err, &bad)) {
		return err
	}
	if also := taken(proxyd.Reload(a.run)); !errors.Is(also, proxyd.ErrNotRunning) {
		err = errors.Join(err, also)
	}
	return err
}

// hostStatus is the status of relays and proxies.
type hostStatus struct {
	*reconcile.Status
	Proxies []proxyd.Entry `json:"proxies,omitempty"`
}

// describe prints the status of relays and proxies, and reports whether both are as the configuration says.
func (a *app) describe(c *config.Config, s *reconcile.Status, names []string, asJSON bool) (bool, error) {
	var entries []proxyd.Entry
	if len(names) == 0 { // of relays
		var err error
		if entries, err = a.proxies(c); err != nil {
			return false, err
		}
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

// recently is the greatest age of a proxy's error that the doctor reports.
const recently = 10 * time.Minute

// proxyFindings returns the doctor's findings about the proxies, unless it is asked about relays.
func (a *app) proxyFindings(relays []string) []doctor.Finding {
	c, _, err := config.Load(a.path, a.defaults())
	if err != nil || len(relays) > 0 {
		return nil // the doctor has reported that
	}
	entries, err := a.proxies(c)
	if len(entries) == 0 && err == nil {
		return nil
	}
	f := doctor.NewFinding(doctor.OK, message.New("proxies: %d", len(entries)), nil)
	find := func(wrong func(proxyd.Entry) bool) *proxyd.Entry {
		if i := slices.IndexFunc(entries, wrong); i >= 0 {
			return &entries[i]
		}
		return nil
	}
	idle := find(func(e proxyd.Entry) bool { return !e.Running })
	stale := find(func(e proxyd.Entry) bool { return e.Stale })
	erring := find(func(e proxyd.Entry) bool { return e.ErrorTime != nil && time.Since(*e.ErrorTime) < recently })
	switch {
	case err != nil:
		f = doctor.NewFinding(doctor.Failed, message.Of(err), message.New("run doctor as root"))
	case idle != nil:
		f = doctor.NewFinding(doctor.Failed, message.New("proxy %q does not run", idle.Name),
			message.New("`systemctl enable --now ds4relay-proxy`, "+
				"or `systemctl reload ds4relay-proxy`; `journalctl -u ds4relay-proxy` says why it does not"))
	case stale != nil:
		f = doctor.NewFinding(doctor.Failed,
			message.New("proxy %q runs as %s, the configuration has changed", stale.Name, stale.Proxy),
			message.New("`systemctl reload ds4relay-proxy`"))
	case erring != nil:
		f = doctor.NewFinding(doctor.Warning,
			message.New("proxy %q: %s (%s)", erring.Name, erring.LastError, erring.ErrorTime.Format(time.DateTime)),
			message.New("see whether the target listens there, and whether the firewall at home lets this machine in "+
				"(for IPv6, on the router)"))
	}
	f.Check = doctor.Check{ID: "proxies", Title: "The proxies run"}
	return []doctor.Finding{f}
}
