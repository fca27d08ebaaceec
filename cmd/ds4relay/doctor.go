package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ds4relay/ds4relay/internal/doctor"
	"github.com/ds4relay/ds4relay/internal/evidence"
)

// examined is this machine for the doctor, also for what offers it on a bus.
func (a *app) examined() doctor.Machine {
	return &evidence.Machine{Path: a.path, Platform: here(), Kernel: a.kernel()}
}

// doctor runs the checks in order and prints each as it ends. Exit status 1: one has failed.
func (a *app) doctor(args []string) error {
	f := a.flags("doctor")
	asJSON := f.Bool("json", false, "")
	names, err := parse(f, args)
	if err != nil {
		return err
	}
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
		if !*asJSON {
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
	if *asJSON {
		err = a.printJSON(struct {
			OK     bool             `json:"ok"`
			Checks []doctor.Finding `json:"checks"`
		}{well, findings})
	}
	if err == nil && !well {
		err = exitCode(exitFailed)
	}
	return err
}

func (a *app) printFinding(f doctor.Finding) {
	relay := ""
	if f.Relay != "" {
		relay = f.Relay + ": "
	}
	if a.quiet && (f.State == doctor.OK || f.State == doctor.Skipped) {
		return
	}
	fmt.Fprintf(a.stdout, "%-8s %s%s: %s\n", f.State, relay, f.Title, f.Evidence)
	if f.Remedy != "" {
		fmt.Fprintf(a.stdout, "         → %s\n", f.Remedy)
	}
}

// doctorAnswer is the method doctor of ubus.
func (a *app) doctorAnswer(arguments map[string]string) (any, error) {
	if err := needRoot(); err != nil {
		return nil, err
	}
	if arguments["check"] == "" && arguments["relay"] != "" {
		return nil, errors.New("the argument relay goes with check")
	}
	return doctor.Answer(a.examined(), strings.TrimSpace(arguments["check"]), arguments["relay"])
}
