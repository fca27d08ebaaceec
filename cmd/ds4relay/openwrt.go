package main

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/openwrt"
	"github.com/ds4relay/ds4relay/internal/reconcile"
	"github.com/ds4relay/ds4relay/internal/state"
	"github.com/ds4relay/ds4relay/internal/uci"
)

// running returns the relays that are up, with their endpoints.
func (a *app) running(c *config.Config) (relays []*config.Relay, facts state.Facts, err error) {
	k := a.kernel()
	o, err := k.Observe(state.State{})
	if err != nil {
		return nil, facts, err
	}
	for _, r := range c.Relays {
		if slices.ContainsFunc(o.Links, func(l state.Link) bool { return l.Relay == r.Name && l.Name == r.Device }) {
			relays = append(relays, r)
		}
	}
	if facts, err = k.Facts(relays); err != nil {
		return nil, facts, err
	}
	return state.Resolve(relays, facts), facts, nil
}

// firewall prints the rules that OpenWrt's firewall needs for the relays that are up, as calls of jshn.sh for the init
// script, or as JSON.
func (a *app) firewall(f *flag.FlagSet) func([]string) error {
	shell := f.Bool("shell", false, "print calls of jshn.sh, else JSON")
	return func([]string) error { return a.printRules(*shell) }
}

func (a *app) printRules(shell bool) error {
	c, _, err := a.load(a.path)
	if err != nil {
		return err
	}
	rules, err := a.rules(c)
	if err != nil {
		return err
	}
	if shell {
		_, err := fmt.Fprint(a.stdout, openwrt.Shell(rules)) // an incomplete script would be a different one
		return err
	}
	list := []map[string]any{}
	for _, rule := range rules {
		list = append(list, rule.Map())
	}
	return a.printJSON(list)
}

// rules returns the firewall rules for the relays that are up.
func (a *app) rules(c *config.Config) ([]openwrt.Rule, error) {
	relays, facts, err := a.running(c)
	if err != nil || len(relays) == 0 {
		return nil, err
	}
	interfaces, err := openwrt.Interfaces()
	if err != nil {
		return nil, err
	}
	file, err := uci.Load(openwrt.FirewallPath)
	if errors.Is(err, os.ErrNotExist) {
		file, err = &uci.File{}, nil
	}
	if err != nil {
		return nil, err
	}
	peers, uplinks := map[string]netip.Addr{}, map[string]*openwrt.Interface{}
	for _, r := range relays {
		peers[r.Name], uplinks[r.Name] = r.Peer, openwrt.UplinkOf(r, interfaces)
		if r.PeerName != "" {
			peers[r.Name] = facts.Peer[r.Name]
		}
	}
	return openwrt.Rules(relays, peers, uplinks, interfaces, openwrt.Zones(file)), nil
}

// service does everything that the init script needs after an interface event in one process: up, netifd, and the
// firewall's rules as calls of jshn.sh. If the rules differ from FILE, it writes them to FILE.new, which means that the
// firewall must be notified; an empty or missing file means no rules. If up fails, the rules stay; if netifd fails,
// they do not.
func (a *app) service(args []string) error {
	if len(args) != 1 {
		return usageError("service takes the file that has the firewall's rules")
	}
	if err := os.Remove(args[0] + ".new"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err // left by a call whose script was killed
	}
	err := a.bringUp(nil, false, false)
	var some *reconcile.SomeFailed
	if err != nil && !errors.As(err, &some) {
		return err
	}
	shown := errors.Join(err, a.netifd(nil))
	c, _, err := config.Load(a.path, a.defaults()) // its warnings were printed before
	if err == nil {
		var rules []openwrt.Rule
		if rules, err = a.rules(c); err == nil {
			err = offer(args[0], openwrt.Shell(rules))
		}
	}
	return errors.Join(shown, err)
}

// killswitch runs on a router before its network starts: hosts with a kill switch cannot send to other networks until
// `up` runs. It needs only the configuration. If a relay is up, or the kill switch is already on, it does nothing.
func (a *app) killswitch([]string) error {
	if err := needRoot(); err != nil {
		return err
	}
	c, _, err := a.read(a.path) // up prints the warnings
	if err != nil {
		return err
	}
	k := a.kernel()
	o, err := k.Observe(state.State{})
	if err != nil || o.KillSwitch() || len(o.Links) > 0 {
		return err
	}
	m := &reconcile.End{Config: c, Kernel: beforeNetwork{k}}
	if _, err = m.Up(nil, nil, a.show, a.waiting); errors.Is(err, errBeforeNetwork) {
		return nil
	}
	return err
}

var errBeforeNetwork = message.New("the network has not started")

// beforeNetwork is a kernel about which only the file is known: no relay can be brought up.
type beforeNetwork struct{ reconcile.Kernel }

func (k beforeNetwork) Facts(relays []*config.Relay) (state.Facts, error) {
	facts, err := k.Kernel.Facts(nil)
	facts.Failed = map[string]error{}
	for _, r := range relays {
		facts.Failed[r.Name] = errBeforeNetwork
	}
	return facts, err
}

// offer writes the text to path.new if it differs from path.
func offer(path, text string) error {
	former, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if string(former) == text {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path+".new", []byte(text), 0o600)
}

// netifd makes the tunnels that are up interfaces of netifd, so that LuCI shows them, and removes the others. When
// netifd starts to use a device it removes the device's addresses; they are restored.
func (a *app) netifd([]string) error {
	if err := needRoot(); err != nil {
		return err
	}
	o, err := a.kernel().Observe(state.State{})
	if err != nil {
		return err
	}
	tunnels := map[string]string{}
	for _, link := range o.Links {
		if link.Relay != "" {
			tunnels[link.Relay] = link.Name
		}
	}
	taken, refused := openwrt.Show(tunnels)
	if !taken {
		return refused
	}
	c, _, err := a.load(a.path)
	if err != nil {
		return errors.Join(refused, err)
	}
	m := &reconcile.End{Config: c, Kernel: a.kernel()}
	_, err = m.Up(slices.Sorted(maps.Keys(tunnels)), nil, a.show, a.waiting)
	return errors.Join(refused, err)
}

// rpcd is the rpcd plugin that puts ds4relay on ubus.
func (a *app) rpcd(args []string) error {
	a.most = ubusOutput
	debug.SetGCPercent(rpcdGarbage)
	return openwrt.Serve(args, os.Stdin, a.stdout, map[string]openwrt.Method{
		"schema": {Call: func(map[string]string) (any, error) {
			return schema{message.AnswersVersion, config.Schema, config.Protocols(), here().DefaultRole()}, nil
		}},
		"status": {Call: func(map[string]string) (any, error) { return a.object("status", "--json") }},
		"doctor": {Arguments: []string{"check", "relay"}, Call: a.doctorAnswer},
		"plan": {Call: func(map[string]string) (any, error) {
			text, err := a.output("plan")
			return map[string]any{"version": message.AnswersVersion, "plan": text}, err
		}},
		"export": {Arguments: []string{"relay"}, Call: func(arguments map[string]string) (any, error) {
			command := []string{"export"}
			if relay := arguments["relay"]; relay != "" {
				command = append(command, "--", relay)
			}
			text, err := a.output(command...)
			return map[string]any{"version": message.AnswersVersion, "config": text}, err
		}},
		"genkey": {Arguments: []string{"relay"}, Call: func(arguments map[string]string) (any, error) {
			public, err := a.makeKey(arguments["relay"])
			return map[string]any{"version": message.AnswersVersion, "public_key": public}, err
		}},
		"invitation": {Arguments: []string{"invitation"}, Call: func(arguments map[string]string) (any, error) {
			j, err := a.newJoining(arguments["invitation"])
			if err != nil {
				return nil, err
			}
			return j.shown(), nil
		}},
		"join": {Arguments: []string{"invitation"}, Call: func(arguments map[string]string) (any, error) {
			return a.joinFromPage(arguments["invitation"])
		}},
		"service": {Call: func(map[string]string) (any, error) { return openwrt.ReadService() }},
		"control": {Arguments: []string{"action"}, Call: func(arguments map[string]string) (any, error) {
			if err := openwrt.Control(arguments["action"], openwrt.PageTime); err != nil {
				return nil, err
			}
			return openwrt.ReadService()
		}},
		"check": {Arguments: []string{"config"}, Call: func(arguments map[string]string) (any, error) {
			return a.checkText(arguments["config"])
		}},
	})
}

// makeKey is genkey for callers that may not write where they want: the file is the default one.
func (a *app) makeKey(relay string) (public string, err error) {
	path, err := a.keyFile("genkey", []string{relay})
	if err != nil {
		return "", err
	}
	if path != config.KeyDir+relay {
		return "", message.New("option private_key_file names %s; make the key on the command line: ds4relay genkey %s",
			path, relay)
	}
	text, err := a.output("genkey", "--", relay)
	return strings.TrimSpace(text), err
}

// rpcdGarbage is the garbage collector's target percentage: a router has more time than memory.
const rpcdGarbage = 30

// ubusOutput limits a command's output over ubus, in bytes: a message has at most a megabyte, including JSON's escapes.
const ubusOutput = 480 << 10
