//go:build openwrt

package main

import (
	"flag"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/doctor"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/reconcile"
)

// hostCommands has a stub of proxy, which names the other package. The proxy itself would not fit into a router's flash
// memory.
func hostCommands() []command {
	return []command{{name: "proxy", internal: true, summary: "run proxies, with the package ds4relay-proxy",
		setup: (*app).proxy}}
}

func (a *app) proxy(f *flag.FlagSet) func([]string) error {
	for _, name := range []string{"status", "json", "reload", "upgrade", "take-over"} {
		f.Bool(name, false, "")
	}
	return func([]string) error {
		return usageError("this program is without the proxy: on OpenWrt that is the package ds4relay-proxy")
	}
}

// announceAgain is for a VPS with Debian.
func announceAgain(*reconcile.End) error { return nil }

func (a *app) defaults() config.Defaults { return config.Defaults{Role: here().DefaultRole()} }

const reloadSummary = "the same as up"

func (a *app) reload(f *flag.FlagSet) func([]string) error { return a.up(f) }

// details is empty: routers do not have the manual.
func details(string) string { return "" }

// neighbours: OpenWrt's own parts are told what they have to know (package openwrt).
func (a *app) neighbours([]*config.Relay) []*message.Text { return nil }

// unheard is empty: a router has no room for it. The doctor finds out whether packets arrive.
func (a *app) unheard([]*config.Relay, []*config.Proxy) []*message.Text { return nil }

func (a *app) lockout(relays []*config.Relay) error {
	return reconcile.Lockout(relays, a.env("SSH_CONNECTION"))
}

// refuses is empty: a router forwards no ports of its own.
func (a *app) refuses(*config.Config, []string) {}

// stayFlag is never set: on a router nothing stays resident.
func stayFlag(*flag.FlagSet) *bool { return new(bool) }

func (a *app) stay() error { return nil }

// announce does nothing: nobody listens on ubus.
func (a *app) announce() {}

// describe prints the status, and reports whether the kernel is as the configuration says.
func (a *app) describe(_ *config.Config, s *reconcile.Status, _ []string, asJSON bool) (bool, error) {
	if asJSON {
		return s.OK(), a.printJSON(s)
	}
	s.Print(a.stdout)
	return s.OK(), nil
}

// proxyFindings is empty: this program does not contain the proxy.
func (a *app) proxyFindings([]string) []doctor.Finding { return nil }
