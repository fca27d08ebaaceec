package main

import (
	"errors"
	"fmt"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/doctor"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/plain"
	"github.com/ds4relay/ds4relay/internal/reconcile"
)

// check judges a file alone, or the configuration of this machine together with the machine. Exit status 2: the file
// has mistakes; 1: this machine cannot have what it says.
func (a *app) check(args []string) error {
	if len(args) > 1 {
		return usageError("check takes one file")
	}
	path := a.path
	if len(args) == 1 {
		path = args[0]
	}
	c, warnings, err := a.load(path)
	var mistakes config.Problems
	if errors.As(err, &mistakes) {
		fmt.Fprintln(a.stderr, err)
		plain.Mark(a.stderr, plain.Bad, fmt.Sprintf("%s: not correct (mistakes: %s, warnings: %s)", path,
			mistakes.Count(), warnings.Count()))
		fmt.Fprintln(a.stderr)
		return exitCode(exitUsage)
	}
	if err != nil {
		return err
	}
	enabled, forwards := []*config.Relay{}, config.Sections(c.Relays)
	for _, r := range c.Relays {
		if r.Enabled {
			enabled = append(enabled, r)
		}
	}
	var notes, problems []*message.Text
	lockout := a.lockout(enabled)
	if len(args) == 0 { // this machine's file
		notes = a.neighbours(c.Relays)
		problems = a.obstacles(c, enabled)
	}
	switch {
	case lockout == nil:
	case len(args) == 0:
		problems = append(problems, message.Lines(lockout)...)
	default:
		notes = append(notes, message.Lines(lockout)...)
	}
	for _, text := range notes {
		a.warning(text.Error())
		warnings = append(warnings, config.Problem{Message: text.Error()})
	}
	for _, text := range problems {
		plain.Paint(a.stderr, plain.Bad, "in the way: ")
		fmt.Fprintln(a.stderr, text)
	}
	note := ""
	if len(c.Proxies) > 0 {
		note = fmt.Sprintf(", proxies: %d", len(c.Proxies))
	}
	style := plain.Good
	if len(warnings) > 0 {
		style = plain.Warning
		note += ", warnings: " + warnings.Count()
	}
	if len(problems) > 0 {
		plain.Mark(a.stderr, plain.Bad, fmt.Sprintf("%s: correct, but it does not work on this machine (relays: %d, "+
			"forwards: %d%s, in the way: %d)", path, len(c.Relays), forwards, note, len(problems)))
		fmt.Fprintln(a.stderr)
		return exitCode(exitFailed)
	}
	plain.Mark(a.stdout, style, fmt.Sprintf("%s: correct (relays: %d, forwards: %d%s)", path,
		len(c.Relays), forwards, note))
	fmt.Fprintln(a.stdout)
	return nil
}

// obstacles are what up would refuse on this machine, and what could not work there although up takes it.
func (a *app) obstacles(c *config.Config, enabled []*config.Relay) (problems []*message.Text) {
	if len(enabled) == 0 {
		return nil
	}
	problems, err := (&reconcile.End{Config: c, Kernel: a.kernel()}).Blocked()
	if err != nil {
		return []*message.Text{message.Of(err)}
	}
	if f, err := doctor.Of(a.examined(), c).Run("system", ""); err == nil && f.State == doctor.Failed {
		problems = append(problems, message.New("%v: %v", f.Codes.Evidence, f.Codes.Remedy))
	}
	return append(problems, a.unheard(enabled, c.Proxies)...)
}
