package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/control"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/openwrt"
	"github.com/ds4relay/ds4relay/internal/state"
	"github.com/ds4relay/ds4relay/internal/uci"
)

func (a *app) export(args []string) error {
	names, err := parse(a.flags("export"), args)
	if err != nil {
		return err
	}
	c, _, err := a.load(a.path)
	if err != nil {
		return err
	}
	text, err := a.exportText(c, names)
	if err == nil {
		fmt.Fprint(a.stdout, text)
	}
	return err
}

func (a *app) exportText(c *config.Config, names []string) (string, error) {
	if len(names) == 0 && len(c.Relays) == 1 {
		names = []string{c.Relays[0].Name}
	}
	if len(names) != 1 {
		return "", usageError("export takes the name of a relay: each has another end")
	}
	relay := c.Relay(names[0])
	if relay == nil {
		return "", fmt.Errorf("%w %q", control.ErrUnknownRelay, names[0])
	}
	local, peer := relay.Local, relay.Peer
	if relay.Auto || relay.PeerName != "" {
		facts, err := a.kernel().Facts([]*config.Relay{relay})
		if err != nil {
			return "", err
		}
		if relay.Auto {
			local = facts.Local[relay.Name]
		}
		if relay.PeerName != "" {
			peer = facts.Peer[relay.Name]
		}
		if !local.IsValid() {
			return "", fmt.Errorf("relay %q waits for %s: its endpoint is not known yet", relay.Name, facts.Waiting[relay.Name])
		}
	}
	return config.Export(c, relay, local, peer), nil
}

// running are the relays that are up, with their endpoints.
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

// firewall prints what the firewall of OpenWrt has to let through for the relays that are up, as calls of jshn.sh for the
// init script, or as JSON.
func (a *app) firewall(args []string) error {
	f := a.flags("firewall")
	shell := f.Bool("shell", false, "")
	if args, err := parse(f, args); err != nil || len(args) > 0 {
		return errors.Join(err, usageError("firewall takes no arguments but --shell"))
	}
	c, _, err := a.load(a.path)
	if err != nil {
		return err
	}
	rules, err := a.rules(c)
	if err != nil {
		return err
	}
	if *shell {
		fmt.Fprint(a.stdout, openwrt.Shell(rules))
		return nil
	}
	list := []map[string]any{}
	for _, rule := range rules {
		list = append(list, rule.Map())
	}
	return a.printJSON(list)
}

// rules are what the firewall has to let through for the relays that are up.
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
		peers[r.Name], uplinks[r.Name] = r.Peer, kernel.Uplink(r, interfaces)
		if r.PeerName != "" {
			peers[r.Name] = facts.Peer[r.Name]
		}
	}
	return openwrt.Rules(relays, peers, uplinks, interfaces, openwrt.Zones(file)), nil
}

// service does in one process what an event of an interface asks of the init script: up, netifd, and the firewall's
// rules, as calls of jshn.sh. They go to FILE.new where they are not those of FILE, which means that the firewall has
// to be told; no rules are an empty file, or none. Where up fails the rules stay; where netifd fails they do not.
func (a *app) service(args []string) error {
	args, err := parse(a.flags("service"), args)
	if err != nil {
		return err
	}
	if len(args) != 1 {
		return usageError("service takes the file that has the firewall's rules")
	}
	if err := os.Remove(args[0] + ".new"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err // of a call whose script was ended
	}
	if err := a.up(nil); err != nil {
		return err
	}
	shown := a.netifd(nil)
	c, _, err := config.Load(a.path, defaultRole()) // its warnings are printed
	if err == nil {
		var rules []openwrt.Rule
		if rules, err = a.rules(c); err == nil {
			err = offer(args[0], openwrt.Shell(rules))
		}
	}
	return errors.Join(shown, err)
}

// offer writes the text to path.new where it is not that of path.
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

// netifd makes the tunnels that are up interfaces of netifd, so that LuCI shows them, and removes the others. netifd takes
// the addresses off a device that it takes into use: they are put back.
func (a *app) netifd(args []string) error {
	if args, err := parse(a.flags("netifd"), args); err != nil || len(args) > 0 {
		return errors.Join(err, usageError("netifd takes no arguments"))
	}
	if err := needRoot(); err != nil {
		return err
	}
	o, err := a.kernel().Observe(state.State{})
	if err != nil {
		return err
	}
	tunnels := map[string]string{}
	for _, link := range o.Links {
		tunnels[link.Relay] = link.Name
	}
	taken, err := openwrt.Show(tunnels)
	if err != nil || !taken {
		return err
	}
	c, _, err := a.load(a.path)
	if err != nil {
		return err
	}
	m := &control.Machine{Config: c, Kernel: a.kernel()}
	_, err = m.Up(slices.Sorted(maps.Keys(tunnels)), nil, a.show, a.waiting)
	return err
}

// rpcd is the plugin of rpcd that puts ds4relay on ubus.
func (a *app) rpcd(args []string) error {
	return openwrt.Serve(args, os.Stdin, a.stdout, map[string]openwrt.Method{
		"schema": {Call: func(map[string]string) (any, error) {
			return schema{config.Schema, config.Protocols(), defaultRole()}, nil
		}},
		"status": {Call: func(map[string]string) (any, error) { return a.object("status", "--json") }},
		"doctor": {Arguments: []string{"check", "relay"}, Call: a.doctorAnswer},
		"plan": {Call: func(map[string]string) (any, error) {
			text, err := a.output("plan")
			return map[string]string{"plan": text}, err
		}},
		"export": {Arguments: []string{"relay"}, Call: func(arguments map[string]string) (any, error) {
			command := []string{"export"}
			if relay := arguments["relay"]; relay != "" {
				command = append(command, "--", relay)
			}
			text, err := a.output(command...)
			return map[string]string{"config": text}, err
		}},
		"service": {Call: func(map[string]string) (any, error) { return openwrt.ReadService() }},
		"control": {Arguments: []string{"action"}, Call: func(arguments map[string]string) (any, error) {
			if err := openwrt.Control(arguments["action"]); err != nil {
				return nil, err
			}
			return openwrt.ReadService()
		}},
		"check": {Arguments: []string{"config"}, Call: func(arguments map[string]string) (any, error) { return a.checkText(arguments["config"]) }},
	})
}

// output is what a command prints; what it says on standard error is the error.
func (a *app) output(command ...string) (string, error) {
	var out, problems bytes.Buffer
	inner := *a
	inner.stdout, inner.stderr = &out, &problems
	if code := inner.main(append([]string{"-c", a.path, "--run", a.run}, command...)); code != 0 && code != exitDiffers {
		return "", errors.New(strings.TrimSpace(problems.String()))
	}
	return out.String(), nil
}

func (a *app) object(command ...string) (any, error) {
	text, err := a.output(command...)
	return json.RawMessage(text), err
}

// schema is the answer of the method schema: what a form has to know.
type schema struct {
	Sections  []config.SectionSpec `json:"sections"`
	Protocols []config.Protocol    `json:"protocols"`
	Role      config.Role          `json:"role"` // of a relay that does not say
}

// checked is the answer of the method check.
type checked struct {
	OK       bool             `json:"ok"`
	Errors   []config.Problem `json:"errors"`
	Warnings []config.Problem `json:"warnings"`
}

// checkText checks a configuration that is not saved yet, or the saved one where text is empty.
func (a *app) checkText(text string) (any, error) {
	path := a.path
	if text != "" {
		file, err := os.CreateTemp("", "ds4relay-check")
		if err != nil {
			return nil, err
		}
		defer os.Remove(file.Name())
		if _, err := file.WriteString(text); err != nil {
			return nil, errors.Join(err, file.Close())
		}
		if err := file.Close(); err != nil {
			return nil, err
		}
		path = file.Name()
	}
	_, warnings, err := config.Load(path, defaultRole())
	var problems config.Problems
	if err != nil && !errors.As(err, &problems) {
		return nil, err
	}
	return checked{OK: err == nil, Errors: a.shown(problems), Warnings: a.shown(warnings)}, nil
}

// maxProblems and maxText bound an answer, which goes over ubus: a message there has at most a megabyte.
const (
	maxProblems = 200
	maxText     = 300 // bytes of a value or a message
)

// shown are the problems as they are answered: of the file that the user knows, and not without end.
func (a *app) shown(problems []config.Problem) []config.Problem {
	shown := []config.Problem{}
	for i, p := range problems {
		if i == maxProblems {
			return append(shown, config.Problem{File: a.path, Line: p.Line, Message: fmt.Sprintf("%d more from here on", len(problems)-i)})
		}
		p.File, p.Value, p.Message = a.path, bounded(p.Value), bounded(p.Message)
		shown = append(shown, p)
	}
	return shown
}

func bounded(text string) string {
	if len(text) <= maxText {
		return text
	}
	return strings.ToValidUTF8(text[:maxText], "") + "…"
}

func (a *app) printJSON(value any) error {
	encoder := json.NewEncoder(a.stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}
