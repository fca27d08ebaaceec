//go:build !openwrt

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/debian"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/paired"
	"github.com/ds4relay/ds4relay/internal/platform"
	"github.com/ds4relay/ds4relay/internal/reconcile"
	"github.com/ds4relay/ds4relay/internal/state"
)

// hostCommands are the commands that a router does not have.
func hostCommands() []command {
	return []command{
		{name: "setup", setup: (*app).setup,
			summary: "make this machine a VPS: find its addresses, write the configuration, start it, invite the home"},
		{name: "invite", args: "[RELAY]", setup: (*app).invitation,
			summary: "print another invitation for a home; the former one is worth nothing from then on"},
		{name: "announce", args: "[RELAY…]", setup: bare((*app).announcement),
			summary: "tell the homes that this VPS has the public address now, of several that have it by turns"},
		{name: "proxy", summary: "run the proxies of the configuration in the foreground, or ask those that run",
			setup: (*app).proxy},
		{name: "metrics", summary: "print what status knows as figures for Prometheus", setup: (*app).metrics},
		{name: "forget", args: "RELAY", setup: bare((*app).forget),
			summary: "take back what the home of a paired relay has: its keys, its sessions, and its forwards"},
		{name: "enroll", args: "RELAY", internal: true, setup: (*app).enroll,
			summary: "let a home enrol for a relay; sshd runs it"},
		{name: "receive", args: "[RELAY]", internal: true, setup: (*app).receive,
			summary: "take what a home has to say about its relay; sshd runs it"},
		{name: "ifupdown", internal: true, summary: "do what a hook of ifupdown asks", setup: bare((*app).ifupdown)},
		{name: "completion", args: "bash|zsh|fish", internal: true, summary: "print the completion of a shell",
			setup: bare((*app).completion)},
		{name: "dbus", internal: true, summary: "answer on the system bus", setup: bare((*app).dbus)},
	}
}

// defaults are what this machine says about options that a file leaves out: ifupdown's configuration may name the
// tunnels' devices. ifup itself reports what is wrong with its files.
func (a *app) defaults() config.Defaults {
	defaults := config.Defaults{Role: here().DefaultRole(), Homes: paired.Path.Read()}
	if here().Name() == platform.OpenWrtName {
		return defaults
	}
	if stanzas, err := debian.Interfaces(debian.InterfacesPath); err == nil {
		defaults.Devices = debian.Devices(stanzas)
	}
	return defaults
}

const reloadSummary = "the same as up, also for the proxies that run"

// dbusIdle is how long the service stays on the bus after the last call.
const dbusIdle = time.Minute

// Limits of arguments and answers on the bus, in bytes. A message has at most 32 MiB.
const (
	dbusText   = 256 << 10 // a configuration to check
	dbusWord   = 256
	dbusOutput = 4 << 20
)

// announce tells listeners on the bus that the kernel was changed.
func (a *app) announce() { debian.Announce() }

// dbus answers on the system bus, with the same methods as on ubus on OpenWrt.
func (a *app) dbus([]string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	asJSON := func(value any, err error) (string, error) {
		if err != nil {
			return "", err
		}
		data, err := json.Marshal(value)
		return string(data), err
	}
	a.most = dbusOutput
	return debian.Serve(ctx, []debian.Method{
		{Name: "Status", Result: "json", Call: func(...string) (string, error) { return a.output("status", "--json") }},
		{Name: "Check", Arguments: []string{"config"}, Result: "json", Most: dbusText,
			Call: func(arguments ...string) (string, error) {
				return asJSON(a.checkText(arguments[0]))
			}},
		{Name: "Plan", Result: "plan", Call: func(...string) (string, error) { return a.output("plan") }},
		{Name: "Export", Arguments: []string{"relay"}, Result: "config", Most: dbusWord,
			Call: func(arguments ...string) (string, error) {
				if arguments[0] == "" {
					return a.output("export")
				}
				return a.output("export", "--", arguments[0])
			}},
		{Name: "Doctor", Arguments: []string{"check", "relay"}, Result: "json", Most: dbusWord, Root: true,
			Call: func(arguments ...string) (string, error) {
				return asJSON(a.doctorAnswer(map[string]string{"check": arguments[0], "relay": arguments[1]}))
			}},
		{Name: "Reload", Result: "steps", Root: true,
			Call: func(...string) (string, error) { return a.output("reload", "-v") }},
	}, dbusIdle)
}

// ifupdown is called by the scripts of ifupdown and ifupdown-ng.
func (a *app) ifupdown([]string) error {
	hook, err := debian.NewHook(a.env)
	if err != nil {
		return usageError(err.Error())
	}
	a.quiet = a.quiet || a.env("VERBOSE") == "" && a.env("VERBOSITY") != "1" // ifup -v shows the steps
	if !slices.Contains([]string{"depend", "pre-up", "post-down"}, hook.Phase) {
		return nil
	}
	c, _, err := a.load(a.path)
	if err != nil {
		return err
	}
	relay := c.Relay(hook.Relay)
	if hook.Phase == "post-down" {
		if relay == nil {
			return a.takeDown(nil) // nobody else could take down a relay whose name is gone
		}
		return a.takeDown([]string{relay.Name})
	}
	if relay == nil {
		return fmt.Errorf("iface %s: ds4relay %s: %w; %s has: %s", hook.Device, hook.Relay, reconcile.ErrUnknownRelay,
			c.Path, c.Names())
	}
	if err := hook.Check(relay); err != nil {
		return usageError(err.Error())
	}
	stanzas, err := debian.Interfaces(debian.InterfacesPath)
	if err != nil {
		return err
	}
	uplink := debian.Uplink(kernel.OnCards([]*config.Relay{relay})[0], stanzas)
	if hook.Phase == "depend" {
		fmt.Fprintln(a.stdout, uplink)
		return nil
	}
	if hook.Nested && uplink != "" {
		if err := debian.Raise(uplink); err != nil {
			return fmt.Errorf("relay %q: its device cannot be brought up: %w", relay.Name, err)
		}
	}
	if err := a.rides(relay); err != nil {
		return err
	}
	return a.bringUp([]string{relay.Name}, false, false)
}

// unheard says of each relay and each proxy why nothing can arrive at this machine, if so.
func (a *app) unheard(relays []*config.Relay, proxies []*config.Proxy) (problems []*message.Text) {
	for _, r := range relays {
		if path, err := a.examined().Path(r); err == nil && path.Unheard != nil {
			problems = append(problems, message.New("relay %q: %v", r.Name, path.Unheard))
		}
		if r.Transport == config.WireGuard && r.Role == config.VPS && kernel.PortTaken(r) {
			problems = append(problems, message.New("relay %q: UDP port %d (option listen_port) is in use; find out "+
				"who "+
				"has it with `ss -ulpn` and `wg show`, or give the relay another one", r.Name, int(r.WireGuard.Port)))
		}
		facts, err := a.kernel().Facts([]*config.Relay{r})
		if err != nil || facts.Failed[r.Name] != nil {
			continue // this is reported
		}
		switch device := facts.Tunlink[r.Name]; {
		case device != "" && !kernel.LinkUp(device):
			problems = append(problems, message.New("relay %q: the device %s is down: nothing can arrive", r.Name,
				device))
		case r.Role == config.VPS && r.Tunlink == "" && !r.Standby && !r.NICAddr.IsValid() && !facts.Card[r.Name].IsValid() &&
			!kernel.HasAddr(r.IPAddr):
			problems = append(problems, message.New("relay %q: no device has the address %s (option ipaddr) any more: "+
				"nothing can arrive", r.Name, r.IPAddr))
		}
	}
	return append(problems, unheardProxies(proxies, kernel.OnCards(relays))...)
}

// unheardProxies says which proxies listen on an address that a cloud translates. They can, without an error.
func unheardProxies(proxies []*config.Proxy, relays []*config.Relay) (problems []*message.Text) {
	for _, p := range proxies {
		for _, r := range relays {
			if r.Role == config.VPS && r.Translated() && slices.ContainsFunc(p.Listen, func(l config.Listen) bool {
				return l.Addr == r.IPAddr
			}) {
				problems = append(problems, message.New("proxy %q: no packet to this machine has the address %s (option "+
					"listen): a cloud translates it to %s; write that one, or 0.0.0.0", p.Section, r.IPAddr, r.NICAddr))
				break
			}
		}
	}
	return problems
}

// lockout refuses relays that would forward the port of this ssh session, or of a tunnel that a relay runs in.
func (a *app) lockout(relays []*config.Relay) error {
	facts := state.Facts{}
	if slices.ContainsFunc(relays, func(r *config.Relay) bool { return r.PeerName != "" }) {
		facts, _ = a.kernel().Facts(relays) // up reports errors
	}
	carriers := map[string][]kernel.Carrier{}
	for _, r := range relays {
		peer := r.Peer
		if r.PeerName != "" {
			peer = facts.Peer[r.Name]
		}
		if r.Role == config.VPS && peer.IsValid() {
			carriers[r.Name] = kernel.Carriers(peer)
		}
	}
	relays = kernel.OnCards(relays)
	return errors.Join(reconcile.Lockout(relays, a.env("SSH_CONNECTION")), reconcile.Carried(relays, carriers))
}

// refuses warns of what up would refuse.
func (a *app) refuses(c *config.Config, names []string) {
	relays := slices.DeleteFunc(slices.Clone(c.Relays), func(r *config.Relay) bool {
		return !r.Enabled && len(names) == 0 || len(names) > 0 && !slices.Contains(names, r.Name)
	})
	if err := a.lockout(relays); err != nil {
		for _, text := range message.Lines(err) {
			a.warning(text.Error())
		}
	}
}

// neighbours are notes about other programs of this machine. Where one cannot be asked, the note says so.
func (a *app) neighbours(relays []*config.Relay) []*message.Text {
	if here().Name() == platform.OpenWrtName {
		return nil
	}
	relays = slices.DeleteFunc(slices.Clone(relays), func(r *config.Relay) bool { return !r.Enabled })
	n, err := debian.Observe("/")
	if err == nil {
		n.Drop, err = kernel.DropChains()
	}
	if err == nil {
		n.Translations, err = kernel.Translations()
	}
	n.Self = map[netip.Addr]bool{}
	for _, r := range relays {
		for _, f := range r.Forwards {
			n.Self[f.DestIP] = r.Role == config.Router && kernel.HasAddr(f.DestIP)
		}
	}
	notes := n.Notes(kernel.OnCards(relays))
	if err != nil {
		notes = append(notes, message.New("not everything of this machine could be looked at: %v", err))
	}
	if program, step := (&kernel.Kernel{Run: a.run}).Rival(); program != "" {
		notes = append(notes, message.New("%s takes away again and again what the relays need; it is put back only "+
			"once a minute until that ends; the last time with: %s", program, step))
	}
	for _, r := range relays {
		if reused := r.Home.Reused; reused != nil {
			notes = append(notes, message.New("relay %q: at %s somebody at %s has tried the invitation that the home had "+
				"used already; if that was not you, pair it again: ds4relay forget %s, ds4relay invite %s", r.Name,
				time.Unix(reused.At, 0).Format("2006-01-02 15:04"), reused.From, r.Name, r.Name))
		}
	}
	return notes
}

// rides refuses a relay whose device is down, so that ifup reports it instead of leaving a tunnel without a path.
func (a *app) rides(relay *config.Relay) error {
	facts, err := a.kernel().Facts([]*config.Relay{relay})
	if err = cmp.Or(err, facts.Failed[relay.Name]); err != nil {
		return err
	}
	if device := facts.Tunlink[relay.Name]; device != "" && !kernel.LinkUp(device) {
		return fmt.Errorf("relay %q: the device that it rides on, %s, is down; bring it up first: ifup %s", relay.Name,
			device, device)
	}
	return nil
}
