package main

import (
	"flag"
	"fmt"
	"strings"

	"github.com/ds4relay/ds4relay/internal/doctor"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/plain"
	"github.com/ds4relay/ds4relay/internal/probe"
)

// examined returns this machine for the doctor, also for the bus.
func (a *app) examined() doctor.Prober {
	if a.machine != nil {
		return a.machine
	}
	return &probe.Prober{File: a.path, Defaults: a.defaults(), Platform: here(), Kernel: a.kernel()}
}

// examined is what `doctor --json` prints.
type examined struct {
	Version int              `json:"version"` // message.AnswersVersion
	OK      bool             `json:"ok"`      // nothing has failed
	Checks  []doctor.Finding `json:"checks"`
}

// doctor runs the checks in order and prints each as it ends. Exit status 1: one has failed.
func (a *app) doctor(f *flag.FlagSet) func([]string) error {
	asJSON := f.Bool("json", false, "print JSON")
	return func(names []string) error { return a.examine(names, *asJSON) }
}

func (a *app) examine(names []string, asJSON bool) error {
	if err := needRoot(); err != nil {
		return err
	}
	d := doctor.New(a.examined())
	checks, err := d.Checks(names...)
	if err != nil {
		return usageError(err.Error())
	}
	findings := []doctor.Finding{}
	done := func(f doctor.Finding) {
		findings = append(findings, f)
		if !asJSON {
			a.printFinding(f)
		}
	}
	well, err := d.RunAll(checks, done)
	if err != nil {
		return err
	}
	for _, f := range a.proxyFindings(names) {
		well = well && f.State != doctor.Failed
		done(f)
	}
	switch {
	case !asJSON && !a.quiet:
		a.printSummary(findings)
	case asJSON:
		err = a.printJSON(examined{message.AnswersVersion, well, findings})
	}
	if err == nil && !well {
		err = exitCode(exitFailed)
	}
	return err
}

var styles = map[doctor.State]plain.Style{
	doctor.OK: plain.Good, doctor.Warning: plain.Warning, doctor.Failed: plain.Bad, doctor.Skipped: plain.Skipped,
}

// printSummary prints the number of checks by result.
func (a *app) printSummary(findings []doctor.Finding) {
	count := map[doctor.State]int{}
	for _, f := range findings {
		count[f.State]++
	}
	worst, text := doctor.OK, fmt.Sprintf("checks: %d", len(findings))
	for _, state := range []doctor.State{doctor.OK, doctor.Skipped, doctor.Warning, doctor.Failed} {
		if n := count[state]; n > 0 {
			text += fmt.Sprintf(", %s: %d", state, n)
			worst = state
		}
	}
	fmt.Fprintln(a.stdout)
	plain.Mark(a.stdout, styles[worst], text)
	fmt.Fprintln(a.stdout)
}

func (a *app) printFinding(f doctor.Finding) {
	relay := ""
	if f.Relay != "" {
		relay = f.Relay + ": "
	}
	if a.quiet && (f.State == doctor.OK || f.State == doctor.Skipped) {
		return
	}
	plain.Mark(a.stdout, styles[f.State], fmt.Sprintf("%-8s", f.State))
	fmt.Fprintf(a.stdout, " %s%s: %s\n", relay, f.Title, f.Evidence)
	if f.Remedy != "" {
		fmt.Fprintf(a.stdout, "         → %s\n", f.Remedy)
	}
}

// doctorAnswer implements the method doctor of ubus.
func (a *app) doctorAnswer(arguments map[string]string) (any, error) {
	if err := needRoot(); err != nil {
		return nil, err
	}
	if arguments["check"] == "" && arguments["relay"] != "" {
		return nil, message.New("the argument relay goes with check")
	}
	return doctor.Answer(a.examined(), strings.TrimSpace(arguments["check"]), arguments["relay"])
}
