package main

import (
	"cmp"
	"flag"
	"fmt"
	"net/netip"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/reconcile"
)

// errWhichRelay is bad usage of export, also over a bus.
var errWhichRelay = message.New("export takes the name of a relay: each has another end")

func (a *app) export(f *flag.FlagSet) func([]string) error {
	plain := f.Bool("wireguard", false, "print a file of wg-quick(8) for a home without ds4relay (option peer 'plain')")
	address := f.String("address", "", "with --wireguard: the home's own `ADDRESS/BITS`; default: its only host's")
	return func(names []string) error {
		c, _, err := a.load(a.path)
		if err != nil {
			return err
		}
		text := ""
		if *plain {
			text, err = a.exportPlain(c, names, *address)
		} else {
			text, err = a.exportText(c, names)
		}
		if err == nil {
			_, err = fmt.Fprint(a.stdout, text)
		}
		return err
	}
}

// exportPlain returns the file for a WireGuard client.
func (a *app) exportPlain(c *config.Config, names []string, address string) (string, error) {
	relay, err := exported(c, names)
	if err != nil {
		return "", err
	}
	if !relay.WireGuard.Plain {
		return "", usageError(fmt.Sprintf("export --wireguard is for relays with option peer 'plain'; relay %q has "+
			"ds4relay at home", relay.Name))
	}
	own, err := netip.ParsePrefix(address)
	if address == "" {
		hosts := map[netip.Addr]bool{}
		for _, f := range relay.Forwards {
			hosts[f.DestIP], own = true, netip.PrefixFrom(f.DestIP, f.DestIP.BitLen())
		}
		if len(hosts) != 1 {
			return "", usageError("export --wireguard: add --address with the client's own address, such as " +
				"192.168.178.1/24 of a FRITZ!Box: the forwards have no or several hosts")
		}
	} else if err != nil {
		return "", usageError(fmt.Sprintf("export --address %q: allowed is an address with the length of its prefix, "+
			"such as 192.168.178.1/24", address))
	}
	secret, err := kernel.ReadSecret(relay.WireGuard.PrivateFile)
	return config.ExportPlain(relay, config.Known{PublicKey: secret.Public()}, own), err
}

// exported returns the relay that export is about.
func exported(c *config.Config, names []string) (*config.Relay, error) {
	if len(names) == 0 && len(c.Relays) == 1 {
		names = []string{c.Relays[0].Name}
	}
	if len(names) != 1 {
		return nil, errWhichRelay
	}
	relay := c.Relay(names[0])
	if relay == nil {
		return nil, message.New("%v %q", reconcile.ErrUnknownRelay, names[0])
	}
	return relay, nil
}

func (a *app) exportText(c *config.Config, names []string) (string, error) {
	relay, err := exported(c, names)
	if err != nil {
		return "", err
	}
	if relay.WireGuard.Plain {
		return "", message.New("relay %q has no ds4relay at home (option peer 'plain'); for a WireGuard client: "+
			"ds4relay export --wireguard %s", relay.Name, relay.Name)
	}
	if relay.Role == config.Router && a.pairings.Paired(relay.Name) {
		a.warning(fmt.Sprintf("relay %s is paired: its VPS has a file of its own, and needs none from here", relay.Name))
	}
	known := config.Known{Local: relay.Local, Peer: relay.Peer}
	if relay.Transport == config.WireGuard {
		secret, err := kernel.ReadPrivate(relay.WireGuard.PrivateFile, relay.Name)
		if err != nil {
			return "", err
		}
		known.PublicKey = secret.Public()
		return config.Export(c, relay, known), nil
	}
	if relay.Auto || relay.PeerName != "" {
		facts, err := a.kernel().Facts([]*config.Relay{relay})
		if err = cmp.Or(err, facts.Failed[relay.Name]); err != nil {
			return "", err
		}
		if relay.Auto {
			known.Local = facts.Local[relay.Name]
		}
		if relay.PeerName != "" {
			known.Peer = facts.Peer[relay.Name]
		}
		if !known.Local.IsValid() {
			return "", message.New("relay %q waits for %s: its endpoint is not known yet", relay.Name,
				facts.Waiting[relay.Name])
		}
	}
	return config.Export(c, relay, known), nil
}
