//go:build !openwrt

package main

import (
	"crypto/ed25519"
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"

	"rsc.io/qr"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/invite"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/pairing"
	"github.com/ds4relay/ds4relay/internal/plain"
	"github.com/ds4relay/ds4relay/internal/reconcile"
	"github.com/ds4relay/ds4relay/internal/setup"
)

func (a *app) invitation(f *flag.FlagSet) func([]string) error {
	standby := f.Bool("standby", false, "only if another VPS has the relay's public address by turns")
	return func(names []string) error {
		if len(names) > 1 {
			return usageError("invite takes the name of one relay")
		}
		return a.inviteTo(a.host(), names, *standby)
	}
}

// inviteTo invites the home of a relay, which must be named if there are several that wait for homes.
func (a *app) inviteTo(h host, names []string, standby bool) error {
	c, _, err := a.load(a.path)
	if err != nil {
		return err
	}
	r, err := invited(c, names)
	if err != nil {
		return err
	}
	if standby && !r.Standby {
		return message.New("relay %q is for this VPS alone; if another one has %s by turns: ds4relay setup --standby "+
			"--relay %s --ipaddr %s", r.Name, r.IPAddr, r.Name, r.IPAddr)
	}
	if err := h.Root(); err != nil {
		return err
	}
	m, err := h.Machine(a.env("SSH_CONNECTION"))
	if err != nil {
		return err
	}
	keys := setup.Keys{}
	if keys.Host, err = h.HostKey(); err != nil {
		return err
	}
	a.warnAbout(h, m, r)
	if r.Transport == config.WireGuard {
		if keys.Public, _, err = h.Key(r); err != nil {
			return err
		}
	}
	return a.invite(h, m, r, keys)
}

// invited returns the relay whose home is to be invited.
func invited(c *config.Config, names []string) (*config.Relay, error) {
	var paired []string
	for _, r := range c.Relays {
		if r.Allow != nil {
			paired = append(paired, r.Name)
		}
	}
	switch {
	case len(names) == 1:
	case len(paired) == 1:
		names = paired
	case len(paired) > 1:
		return nil, usageError("invite takes the name of a relay, since each has its own home: " +
			strings.Join(paired, ", "))
	default:
		return nil, usageError(c.Path + " has no relay that a home can join (none has a list allow); to make one: " +
			"ds4relay setup")
	}
	r := c.Relay(names[0])
	switch {
	case r == nil:
		return nil, message.New("%v %q", reconcile.ErrUnknownRelay, names[0])
	case r.Role != config.VPS:
		return nil, usageError(fmt.Sprintf("relay %q: this machine is the home's end; run invite on the VPS", r.Name))
	case r.Allow == nil:
		return nil, usageError(fmt.Sprintf("relay %q was written by hand; to let a home join it, add what the home may "+
			"ask for, such as: list allow 'tcp:1-65535'", r.Name))
	case !r.Enabled:
		return nil, usageError(fmt.Sprintf("relay %q is switched off (option enabled '0'), so no home can join it; to "+
			"switch it on: ds4relay setup --relay %s", r.Name, r.Name))
	}
	return r, nil
}

// invite makes an invitation, which takes the place of a former one, and prints it.
func (a *app) invite(h host, m setup.Machine, r *config.Relay, keys setup.Keys) error {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	keys.OneTime = [64]byte(private)
	i, err := setup.Invitation(m, r, keys, time.Now())
	if err != nil {
		return err
	}
	text := invite.Encode(i)
	if err := h.Invite(r.Name, [32]byte(public), i.Expires); err != nil {
		return message.New("relay %q: cannot make an invitation: %v", r.Name, err)
	}
	a.begin(fmt.Sprintf("Invitation for the home of relay %s, good once, until %s:", r.Name,
		i.Expires.UTC().Format(dateFormat)))
	_, err = fmt.Fprintf(a.stdout, "\n%s\n\n", text)
	return errors.Join(err, a.showCode(text), a.sayWhere(keys.Host))
}

// sayWhere says what to do with an invitation, and how the home recognises the VPS.
func (a *app) sayWhere(hostKey []byte) error {
	_, err := fmt.Fprintf(a.stdout, "At home, paste it into the field in LuCI (Services → DS4Relay), or run `ds4relay "+
		"join`.\nBoth show the fingerprint of the VPS's ssh host key. Compare it with this one:\n%s\n"+
		"Until the home has joined, the invitation is a secret: whoever has it can take the home's place.\n",
		(&pairing.VPS{HostKey: hostKey}).Fingerprint())
	return err
}

// quiet zone around a code, in modules (ISO/IEC 18004 section 9.1).
const quietZone = 4

// showCode prints a text as a QR code, if it is printed on a terminal that has room for it.
func (a *app) showCode(text string) error {
	terminal, ok := a.stdout.(plain.Writer)
	if !ok {
		return nil
	}
	columns, err := terminal.Columns()
	if err != nil {
		return nil // no terminal
	}
	lines, err := codeLines(text)
	if err != nil {
		return nil // it does without
	}
	if width := len([]rune(lines[0])); width > columns {
		_, err := fmt.Fprintf(a.stdout, "(A terminal with %d columns or more also shows a QR code.)\n\n", width)
		return err
	}
	for _, line := range lines {
		plain.Paint(a.stdout, plain.Paper, line)
		if _, err := fmt.Fprintln(a.stdout); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintln(a.stdout)
	return err
}

// codeLines draws a QR code, two rows of it in a line: dark on light.
func codeLines(text string) (lines []string, err error) {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return nil, err
	}
	for y := -quietZone; y < code.Size+quietZone; y += 2 {
		var line strings.Builder
		for x := -quietZone; x < code.Size+quietZone; x++ {
			line.WriteString([]string{" ", "▀", "▄", "█"}[bit(code.Black(x, y))+2*bit(code.Black(x, y+1))])
		}
		lines = append(lines, line.String())
	}
	return lines, nil
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}
