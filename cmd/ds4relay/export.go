package main

import (
	"cmp"
	"fmt"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/reconcile"
)

// errWhichRelay is bad usage of export, also over a bus.
var errWhichRelay = message.New("export takes the name of a relay: each has another end")

func (a *app) export(names []string) error {
	c, _, err := a.load(a.path)
	if err != nil {
		return err
	}
	text, err := a.exportText(c, names)
	if err == nil {
		_, err = fmt.Fprint(a.stdout, text)
	}
	return err
}

func (a *app) exportText(c *config.Config, names []string) (string, error) {
	if len(names) == 0 && len(c.Relays) == 1 {
		names = []string{c.Relays[0].Name}
	}
	if len(names) != 1 {
		return "", errWhichRelay
	}
	relay := c.Relay(names[0])
	if relay == nil {
		return "", message.New("%v %q", reconcile.ErrUnknownRelay, names[0])
	}
	local, peer := relay.Local, relay.Peer
	if relay.Auto || relay.PeerName != "" {
		facts, err := a.kernel().Facts([]*config.Relay{relay})
		if err = cmp.Or(err, facts.Failed[relay.Name]); err != nil {
			return "", err
		}
		if relay.Auto {
			local = facts.Local[relay.Name]
		}
		if relay.PeerName != "" {
			peer = facts.Peer[relay.Name]
		}
		if !local.IsValid() {
			return "", message.New("relay %q waits for %s: its endpoint is not known yet", relay.Name,
				facts.Waiting[relay.Name])
		}
	}
	return config.Export(c, relay, local, peer), nil
}
