//go:build !openwrt

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/paired"
	"github.com/ds4relay/ds4relay/internal/pushed"
	"github.com/ds4relay/ds4relay/internal/reconcile"
)

// socket is where the service for homes listens: /run/ds4relay-receive.sock beside /run/ds4relay.
func (a *app) socket() string { return strings.TrimRight(a.run, "/") + "-receive.sock" }

func (a *app) enroll(f *flag.FlagSet) func([]string) error {
	used := f.Bool("used", false, "the invitation has been used already")
	key := f.String("key", "", "the session is one of the key with this `ID`")
	return func(args []string) error {
		verb := paired.Enrol
		if *used {
			verb = paired.Used
		}
		return a.ask("enroll", verb, *key, args, pushed.MaxEnrolment)
	}
}

func (a *app) receive(f *flag.FlagSet) func([]string) error {
	service := f.Bool("service", false, "do what homes ask for: the standard input is a socket")
	key := f.String("key", "", "the session is one of the key with this `ID`")
	return func(args []string) error {
		if !*service {
			return a.ask("receive", paired.Receive, *key, args, config.MaxPush)
		}
		if len(args) > 0 {
			return usageError("receive --service takes no relay")
		}
		conn, err := net.FileConn(os.Stdin)
		if err != nil {
			return message.New("the standard input is no socket: %v", err)
		}
		defer conn.Close()
		return a.homes().Serve(conn)
	}
}

// ask is what a home's ssh session runs: it hands the standard input to the service, and prints the answer. most limits
// the input.
func (a *app) ask(command, verb, key string, args []string, most int) error {
	if len(args) != 1 || !config.RelayName(args[0]) {
		return usageError(command + " takes the name of one relay; sshd runs it for a home")
	}
	connection := a.env("SSH_CONNECTION")
	from, _, _ := strings.Cut(connection, " ")
	return a.answer(paired.Ask(a.socket(), paired.Header{Verb: verb, Relay: args[0], Key: key, From: from,
		Connection: connection}, os.Stdin, most))
}

// answer prints an answer. The exit status is 0 if something was taken.
func (a *app) answer(data []byte) error {
	fmt.Fprintf(a.stdout, "%s", data)
	var answer pushed.Answer
	if json.Unmarshal(bytes.TrimSpace(data), &answer) != nil || answer.State != pushed.OK {
		return exitCode(exitFailed)
	}
	return nil
}

// homes is the service that does what homes ask for.
func (a *app) homes() *paired.Service {
	return &paired.Service{Dir: paired.Path, Config: a.path, Defaults: a.defaults, Facts: kernel.PushFacts, Up: a.upFor,
		Running: func() ([]string, error) { return reconcile.Running(a.kernel()) },
		Edited:  func(c *config.Config) bool { return reconcile.Edited(a.kernel(), c) },
		End:     paired.EndSessions, Log: a.note}
}

// upFor brings up a relay with what its home has said. What is wrong with others is not the home's fault.
func (a *app) upFor(relay string) error {
	a.quiet = true
	err := a.bringUp([]string{relay}, false, false)
	var some *reconcile.SomeFailed
	if errors.As(err, &some) && !slices.Contains(a.kernel().FailedRelays(), relay) {
		return nil
	}
	return err
}

// forget takes back what the home of a relay has: its keys, its sessions, and the forwards that it has pushed.
func (a *app) forget(args []string) error {
	if len(args) != 1 || !config.RelayName(args[0]) {
		return usageError("forget takes the name of one relay")
	}
	if err := needRoot(); err != nil {
		return err
	}
	relay := args[0]
	was, err := a.homes().Forget(relay)
	if err != nil {
		return err
	}
	c, _, err := a.read(a.path)
	if err != nil {
		if was {
			a.note(message.New("relay %q: its home is forgotten and cannot push any more; its tunnel stays until the file "+
				"has no mistakes: then run ds4relay forget %s again", relay, relay))
		}
		return err
	}
	changed := false
	switch running, err := reconcile.Running(a.kernel()); {
	case err != nil:
		return err
	case c.Relay(relay) == nil && !was:
		return message.New("%v %q; %s has: %s", reconcile.ErrUnknownRelay, relay, c.Path, c.Names())
	case c.Relay(relay) != nil && slices.Contains(running, relay): // else the next up says what becomes of it
		if changed, err = a.forgetTunnel(c, relay); err != nil {
			return err
		}
	}
	a.unchanged(was || changed, "Nothing to do: relay "+relay+" has no home.")
	if was && !a.quiet {
		fmt.Fprintf(a.stdout, "The home of relay %s is forgotten: `ds4relay invite %s` makes an invitation for "+
			"another one.\n", relay, relay)
	}
	return nil
}

// forgetTunnel makes the kernel match the file: a relay without a home has no tunnel.
func (a *app) forgetTunnel(c *config.Config, relay string) (changed bool, err error) {
	m := &reconcile.End{Config: c, Kernel: a.kernel()}
	changed, err = m.Up([]string{relay}, nil, a.show, a.waiting)
	if changed {
		a.announce()
	}
	return changed, err
}
