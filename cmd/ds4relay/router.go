//go:build openwrt

package main

import (
	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/control"
	"github.com/ds4relay/ds4relay/internal/doctor"
)

// hostCommands are those that a router does not have. Proxies are the VPS's, and would not fit into a router's flash beside the rest.
func (a *app) hostCommands() map[string]func([]string) error {
	return map[string]func([]string) error{"proxy": func([]string) error {
		return usageError("this program is without the proxy: on OpenWrt that is the package ds4relay-proxy")
	}}
}

// neighbours: OpenWrt's own parts are told what they have to know (package openwrt).
func (a *app) neighbours([]*config.Relay) []string { return nil }

func (a *app) warnings(relays []*config.Relay) []string { return a.neighbours(relays) }

// announce: ubus has no listeners for it.
func (a *app) announce() {}

// describe prints the status, and tells whether the kernel is as the configuration says.
func (a *app) describe(_ *config.Config, s *control.Status, asJSON bool) (bool, error) {
	if asJSON {
		return s.OK(), a.printJSON(s)
	}
	s.Print(a.stdout)
	return s.OK(), nil
}

// proxyFindings: the program is without the proxy.
func (a *app) proxyFindings([]string) []doctor.Finding { return nil }
