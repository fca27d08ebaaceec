//go:build !openwrt

package main

import (
	"slices"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/probe"
	"github.com/ds4relay/ds4relay/internal/reconcile"
)

// announcement tells the homes of the named relays, or of all with standby, that this VPS has their address now.
func (a *app) announcement(names []string) error {
	c, _, err := a.load(a.path)
	if err != nil {
		return err
	}
	for _, name := range names {
		switch r := c.Relay(name); {
		case r == nil:
			return message.New("%v %q", reconcile.ErrUnknownRelay, name)
		case r.Role != config.VPS:
			return message.New("relay %q: announce is for a VPS; this is the home's end", name)
		}
	}
	if err := needRoot(); err != nil {
		return err
	}
	var relays []*config.Relay
	for _, r := range c.Relays {
		if slices.Contains(names, r.Name) || len(names) == 0 && r.Enabled && r.Role == config.VPS && r.Standby {
			relays = append(relays, r)
		}
	}
	return probe.Announce(relays, probe.Announcements)
}

// announceAgain tells homes that have not heard, or do not remember, that this VPS has their address.
func announceAgain(m *reconcile.End) error {
	var relays []*config.Relay
	for _, r := range m.Config.Relays {
		if has := kernel.Active(r); has != nil && *has && slices.Contains(m.Kernel.Applied().Relays, r.Name) {
			relays = append(relays, r)
		}
	}
	return probe.Announce(relays, 1)
}
