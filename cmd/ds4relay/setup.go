//go:build !openwrt

package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/plain"
	"github.com/ds4relay/ds4relay/internal/program"
	"github.com/ds4relay/ds4relay/internal/setup"
	"github.com/ds4relay/ds4relay/internal/transport"
	"github.com/ds4relay/ds4relay/internal/uci"
)

// host is the VPS, as far as setup and invite use more of it than the configuration. Tests have another one.
type host interface {
	// Root refuses who may not do this.
	Root() error
	// Ready refuses a machine where Start cannot work.
	Ready() error
	// Machine finds out about the machine; session is the value of SSH_CONNECTION.
	Machine(session string) (setup.Machine, error)
	// Cloud asks the cloud's metadata service for the public address; it is not valid if nobody knows it.
	Cloud() netip.Addr
	// Ask asks the user. ok is false where nobody can be asked.
	Ask(question string) (answer string, ok bool)
	// HostKey is ssh's ed25519 key of this machine, in ssh's wire format.
	HostKey() ([]byte, error)
	// Warnings are what other programs of this machine do to the relay, such as firewalls.
	Warnings(r *config.Relay) []*message.Text
	// Key returns the public half of the relay's WireGuard key, which it makes if there is none.
	Key(r *config.Relay) (public transport.Key, made bool, err error)
	// RemoveKey removes a key that was made.
	RemoveKey(r *config.Relay) error
	// Start starts the service, now and at boot. If that fails, back makes it what it was, once the file is; it is nil
	// if nothing was done.
	Start() (back func() error, err error)
	// Invite lets a one-time key in, instead of a former one of that relay.
	Invite(relay string, key [32]byte, expires time.Time) error
	// Invited reports whether an invitation is open, until when, and whether the home has enrolled.
	Invited(relay string) (open bool, expires time.Time, enrolled bool, err error)
}

func (a *app) setup(f *flag.FlagSet) func([]string) error {
	relay := f.String("relay", "home", "set up the relay `NAME`, else home; each home has its own")
	carrier := f.String("transport", "", "take `TRANSPORT` (wireguard or ipip6), else wireguard if the kernel has it")
	ipaddr := f.String("ipaddr", "", "the public IPv4 address is `ADDRESS`, else it is found or asked for")
	standby := f.Bool("standby", false, "another VPS has the address of --ipaddr by turns")
	yes := f.Bool("yes", false, "do not ask: write the file and start the service")
	return func([]string) error {
		o := setup.Options{Path: a.path, Relay: *relay, Transport: config.Transport(*carrier), Standby: *standby,
			Defaults: a.defaults()}
		var err error
		if *ipaddr != "" {
			o.IPAddr, err = netip.ParseAddr(*ipaddr)
		}
		switch {
		case !config.RelayName(*relay):
			return usageError(fmt.Sprintf("setup --relay %q: allowed is a relay's name of 1 to 11 characters out of "+
				"a-z 0-9 _", *relay))
		case *carrier != "" && o.Transport != config.WireGuard && o.Transport != config.IPIP6:
			return usageError(fmt.Sprintf("setup --transport %q: allowed is wireguard or ipip6", *carrier))
		case err != nil || o.IPAddr.IsValid() && !isPublic(o.IPAddr):
			return usageError(fmt.Sprintf("setup --ipaddr %q: allowed is the VPS's public IPv4 address (not a private, "+
				"multicast or reserved one)", *ipaddr))
		}
		return a.setUp(a.host(), o, *yes)
	}
}

// isPublic reports whether an address can be reached from everywhere over IPv4.
func isPublic(addr netip.Addr) bool {
	return addr.Is4() && !config.Reserved(netip.PrefixFrom(addr, 32))
}

// setUp finds out, asks, writes the file, starts the service and invites the home. If a step fails, all is as it was.
func (a *app) setUp(h host, o setup.Options, yes bool) error {
	if err := h.Root(); err != nil {
		return err
	}
	if err := h.Ready(); err != nil {
		return err
	}
	former, err := os.ReadFile(a.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	m, err := h.Machine(a.env("SSH_CONNECTION"))
	if err != nil {
		return err
	}
	if m.Translated() && !o.IPAddr.IsValid() {
		m.Cloud = h.Cloud()
	}
	plan, err := a.planSetup(h, m, former, o, yes)
	if err != nil {
		return err
	}
	// What the invitation needs, before anything is changed.
	keys := setup.Keys{}
	if keys.Host, err = h.HostKey(); err != nil {
		return err
	}
	if _, err := setup.Invitation(m, plan.Relay, keys, time.Now()); err != nil {
		return err
	}
	changed := former == nil || string(plan.Text) != string(former)
	if err := a.showSetup(plan, former, changed); err != nil {
		return err
	}
	a.warn(plan.Warnings)
	a.warnAbout(h, m, plan.Relay)
	if changed && !yes {
		answer, ok := h.Ask("Write this file and start the service? (Y/n) ")
		if !ok {
			return usageError("nothing was written: standard input is not a terminal, so setup cannot ask; to go ahead " +
				"without questions: ds4relay setup --yes")
		}
		if answer = strings.ToLower(answer); answer != "" && answer != "y" && answer != "yes" {
			return message.New("nothing was written")
		}
	}
	made := false
	if plan.Relay.Transport == config.WireGuard {
		if keys.Public, made, err = h.Key(plan.Relay); err != nil {
			return err
		}
	}
	if err := a.install(h, former, plan.Text, changed); err != nil {
		if made {
			err = errors.Join(err, h.RemoveKey(plan.Relay))
		}
		return err
	}
	if err := a.inviteOnce(h, m, plan.Relay, keys, plan.Rejoin || made); err != nil {
		return message.New("the relay is set up, but its home is not invited: %v; try again: ds4relay invite %s", err,
			plan.Relay.Name)
	}
	return nil
}

// warnAbout warns of what other programs do to a relay, and the ssh server to its home.
func (a *app) warnAbout(h host, m setup.Machine, r *config.Relay) {
	for _, warning := range append(setup.ShutOut(m.SSHD), h.Warnings(r)...) {
		a.warning(warning.Error())
	}
}

// planSetup decides what is to be written, and asks for the address if it has to.
func (a *app) planSetup(h host, m setup.Machine, former []byte, o setup.Options, yes bool) (setup.Plan, error) {
	plan, err := setup.Decide(m, former, o)
	question := ""
	switch {
	case yes:
	case errors.Is(err, setup.ErrAddress):
		question = "The public IPv4 address of this VPS, as your provider's control panel shows it: "
	case errors.Is(err, setup.ErrShared):
		question = "The public IPv4 address that the VPSs share: "
	case err == nil && len(plan.Choices) > 1:
		question = fmt.Sprintf("This VPS has several public IPv4 addresses: %s\nWhich one does the home get? (%s) ",
			addresses(plan.Choices), plan.Choices[0])
	}
	if question != "" {
		answer, ok := h.Ask(question)
		addr, parseErr := netip.ParseAddr(answer)
		switch {
		case !ok || answer == "" && err == nil: // the first one, or the error
		case parseErr != nil || !isPublic(addr):
			return plan, usageError(fmt.Sprintf("%q is not a public IPv4 address; nothing was written", answer))
		default:
			o.IPAddr = addr
			plan, err = setup.Decide(m, former, o)
		}
	}
	var problems config.Problems
	if err != nil && !errors.As(err, &problems) {
		err = usageError(err.Error())
	}
	return plan, err
}

// addresses writes a list for people.
func addresses(list []netip.Addr) string {
	words := make([]string, len(list))
	for i, addr := range list {
		words[i] = addr.String()
	}
	return strings.Join(words, ", ")
}

// showSetup prints what would be done.
func (a *app) showSetup(plan setup.Plan, former []byte, changed bool) error {
	r := plan.Relay
	fmt.Fprintf(a.stdout, "relay %s: public address %s, transport %s\n", r.Name, r.IPAddr, r.Transport)
	if len(plan.Choices) > 1 {
		fmt.Fprintf(a.stdout, "this VPS has several public addresses: %s; to use another one: ds4relay setup --ipaddr "+
			"ADDRESS\n", addresses(plan.Choices))
	}
	if r.Standby {
		fmt.Fprintf(a.stdout, "another VPS has %s by turns; run there, too: ds4relay setup --standby --ipaddr %s\nthe home "+
			"joins both, one after the other\n", r.IPAddr, r.IPAddr)
	}
	for _, kept := range plan.Kept {
		fmt.Fprintf(a.stdout, "stays on this VPS: %s\n", kept)
	}
	if slices.ContainsFunc(plan.Kept, func(k setup.Kept) bool { return !k.SSH }) {
		fmt.Fprintln(a.stdout, "(to give such a port to the home, stop the program and delete its line `list keep`)")
	}
	for _, note := range plan.Notes {
		fmt.Fprintln(a.stdout, note)
	}
	if plan.Rejoin {
		fmt.Fprintln(a.stdout, "with these changes, a home that has joined must join again")
	}
	if !changed {
		fmt.Fprintf(a.stdout, "Nothing to change in %s.\n", a.path)
		return nil
	}
	before := a.path
	if former == nil {
		before = os.DevNull
	}
	diff, problems, err := program.Command{Name: "diff", Args: []string{"-u", "--label", before, "--label", a.path,
		before, "-"}, Input: string(plan.Text), Limit: 10 * time.Second}.Run()
	if problems != "" || diff == "" && err != nil {
		diff = string(plan.Text)
	}
	_, err = fmt.Fprintf(a.stdout, "\n%s\n", diff)
	return err
}

// install writes the file and starts the service, or leaves both as they were.
func (a *app) install(h host, former, text []byte, changed bool) error {
	if changed {
		if err := uci.Save(a.path, former, text); err != nil {
			return err
		}
	}
	back, err := h.Start()
	if err == nil {
		return nil
	}
	if changed {
		err = errors.Join(err, uci.Undo(a.path, former, text))
	}
	if back != nil {
		err = errors.Join(err, back())
	}
	return err
}

// inviteOnce invites the home, unless it has enrolled or is invited already, and what it knows of the relay is true.
func (a *app) inviteOnce(h host, m setup.Machine, r *config.Relay, keys setup.Keys, rejoin bool) error {
	open, expires, enrolled, err := h.Invited(r.Name)
	open = open && expires.After(time.Now())
	switch {
	case err != nil:
		return err
	case enrolled && rejoin:
		fmt.Fprintln(a.stdout, "The relay has changed, so its home must join again, with this invitation:")
	case open && rejoin:
		fmt.Fprintln(a.stdout, "The relay has changed, so this invitation replaces the former one:")
	case enrolled:
		fmt.Fprintf(a.stdout, "The home has joined already. To let another home take its place: ds4relay invite %s\n",
			r.Name)
		return nil
	case open:
		fmt.Fprintf(a.stdout, "An invitation was printed before; it is valid until %s. To print another one instead: "+
			"ds4relay invite %s\n", expires.UTC().Format(dateFormat), r.Name)
		return nil
	}
	return a.invite(h, m, r, keys)
}

// dateFormat is how times are shown, in UTC.
const dateFormat = "2006-01-02 15:04 UTC"

// begin is a heading on a terminal.
func (a *app) begin(text string) {
	plain.Paint(a.stdout, plain.Good, text)
	fmt.Fprintln(a.stdout)
}
