//go:build !openwrt

package main

import (
	"errors"
	"flag"
	"io"
	"os"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/metrics"
	"github.com/ds4relay/ds4relay/internal/reconcile"
	"github.com/ds4relay/ds4relay/internal/traffic"
)

// metrics prints what status knows as figures, for Prometheus. On OpenWrt its collector reads the status from ubus.
func (a *app) metrics(f *flag.FlagSet) func([]string) error {
	format := f.String("format", "openmetrics", "`FORMAT`, openmetrics or prometheus (its text format 0.0.4)")
	output := f.String("output", "", "replace `FILE` instead of printing")
	return func([]string) error {
		if *format != "openmetrics" && *format != "prometheus" {
			return usageError("metrics --format " + *format + ": allowed are openmetrics and prometheus")
		}
		set, err := a.figures()
		if err != nil && *output != "" {
			os.Remove(*output) // no figures are better than old ones
		}
		if err != nil {
			return err
		}
		text := set.Text(*format == "openmetrics")
		if *output != "" {
			return replace(*output, text)
		}
		_, err = io.WriteString(a.stdout, text)
		return err
	}
}

// figures collects the metrics. A mistake in the configuration is one of them.
func (a *app) figures() (*metrics.Set, error) {
	c, _, err := a.read(a.path)
	var mistakes config.Problems
	if errors.As(err, &mistakes) {
		return reconcile.Metrics(version, nil), nil
	}
	if err != nil {
		return nil, err
	}
	m := &reconcile.End{Config: c, Kernel: a.kernel()}
	s, err := m.Status()
	if err != nil {
		return nil, err
	}
	set := reconcile.Metrics(version, s)
	totals, err := traffic.Ask(a.run)
	if err != nil {
		a.warning(err.Error()) // all else is known
	}
	totals.Metrics(set)
	return set, nil
}

// replace writes a file of mode 0644 so that readers see all of it or the former one.
func replace(path, text string) error {
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	if err = errors.Join(err, file.Chmod(0o644), file.Close()); err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		os.Remove(fresh)
	}
	return err
}

func (a *app) trafficOptions() traffic.Options {
	return traffic.Options{Run: a.run, File: a.path, Say: a.say, Load: func() ([]*config.Relay, error) {
		c, _, err := a.read(a.path)
		if err != nil {
			return nil, err
		}
		return kernel.OnCards(c.Relays), nil
	}}
}
