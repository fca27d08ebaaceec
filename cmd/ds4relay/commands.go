package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/ping"
	"github.com/ds4relay/ds4relay/internal/plain"
	"github.com/ds4relay/ds4relay/internal/reconcile"
	"github.com/ds4relay/ds4relay/internal/state"
)

func (a *app) kernel() reconcile.Kernel {
	var k reconcile.Kernel = &kernel.Kernel{Run: a.run, Kept: kernel.KeptDir, Platform: here()}
	if a.apply != nil {
		k = a.apply(k)
	}
	return k
}

// The errors where the caller may not change the kernel.
var (
	errRoot      = message.New("this needs root (CAP_NET_ADMIN); run it with sudo")
	errContainer = message.New("this needs the capability CAP_NET_ADMIN, which root does not have here; allow it " +
		"where the container is made (docker run --cap-add NET_ADMIN)")
)

func needRoot() error {
	switch {
	case kernel.Admin():
		return nil
	case os.Geteuid() == 0:
		return errContainer
	}
	return errRoot
}

func (a *app) show(step state.Step) {
	if a.quiet {
		return
	}
	commands := []string{state.Line(step)}
	if a.verbose {
		commands = step.Commands()
	}
	for _, command := range commands {
		plain.Paint(a.stdout, plain.Command, "[#] "+command)
		fmt.Fprintln(a.stdout)
	}
}

func (a *app) waiting(holder string) {
	fmt.Fprintf(a.stderr, "waiting for another ds4relay (process %s) to finish\n", holder)
}

func (a *app) note(text *message.Text) { a.say(text.Error()) }

func (a *app) say(text string) { fmt.Fprintln(a.stderr, text) }

func (a *app) unchanged(changed bool, text string) {
	if !changed && !a.quiet {
		fmt.Fprintln(a.stdout, text)
	}
}

func (a *app) up(f *flag.FlagSet) func([]string) error {
	force := f.Bool("force", false, "hand over the port of this ssh session too, or of a tunnel that a relay runs in")
	running := f.Bool("running", false, "take the relays that are up, and no others")
	a.stepFlags(f)
	return func(names []string) error { return a.bringUp(names, *force, *running) }
}

// bringUp brings up the named relays, all enabled ones, or those that are running.
func (a *app) bringUp(names []string, force, running bool) error {
	var err error
	if running {
		if len(names) > 0 {
			return usageError("up takes --running or names of relays, not both")
		}
		if names, err = reconcile.Running(a.kernel()); err != nil || len(names) == 0 {
			return err
		}
	}
	c, _, err := a.load(a.path)
	if err != nil {
		return err
	}
	if running {
		names = slices.DeleteFunc(names, func(name string) bool { return c.Relay(name) == nil })
		if len(names) == 0 {
			return nil
		}
	}
	if err := needRoot(); err != nil {
		return err
	}
	check := func(relays []*config.Relay) error {
		switch {
		case force:
			return nil
		case running: // a tunnel that they run in has survived them
			return reconcile.Lockout(kernel.OnCards(relays), a.env("SSH_CONNECTION"))
		}
		return a.lockout(relays)
	}
	m := &reconcile.End{Config: c, Kernel: a.kernel(), Note: a.note}
	changed, err := m.Up(names, check, a.show, a.waiting)
	if changed {
		a.announce()
	}
	var some *reconcile.SomeFailed
	if err == nil || errors.As(err, &some) {
		a.tell(c)
	}
	if err == nil {
		nothing := "Nothing to do: the kernel is as the configuration says."
		if len(c.Relays) == 0 && len(c.Proxies) > 0 {
			nothing = "Nothing to do: the file has proxies only, which the service ds4relay-proxy runs."
		}
		a.unchanged(changed, nothing)
	}
	return err
}

func (a *app) down(f *flag.FlagSet) func([]string) error {
	a.stepFlags(f)
	return a.takeDown
}

// takeDown takes down the named relays, or everything.
func (a *app) takeDown(names []string) error {
	var err error
	m := &reconcile.End{Kernel: a.kernel(), Note: a.note}
	if len(names) > 0 { // without names everything of ours is removed, whatever the file says
		if m.Config, _, err = a.load(a.path); err != nil {
			return err
		}
	}
	if err := needRoot(); err != nil {
		return err
	}
	changed, err := m.Down(names, a.show, a.waiting)
	if changed {
		a.announce()
	}
	if err == nil {
		a.unchanged(changed, "Nothing to do: nothing of ds4relay is installed.")
	}
	return err
}

func (a *app) plan(f *flag.FlagSet) func([]string) error {
	down := f.Bool("down", false, "print what down would do")
	return func(names []string) error { return a.printPlan(names, *down) }
}

func (a *app) printPlan(names []string, down bool) error {
	var err error
	m := &reconcile.End{Kernel: a.kernel(), Note: a.note}
	if !down || len(names) > 0 {
		if m.Config, _, err = a.load(a.path); err != nil {
			return err
		}
	}
	if err := needRoot(); err != nil {
		return err
	}
	steps, err := m.Plan(names, down) // of the relays that can be brought up
	if !down {
		a.refuses(m.Config, names)
	}
	for _, step := range steps {
		for _, command := range step.Commands() {
			fmt.Fprintln(a.stdout, command)
		}
	}
	return err
}

// Limits of ping's options: at most a day at one packet a second, and never a flood.
const (
	maxPings        = 86400
	minPingInterval = 10 * time.Millisecond
)

func (a *app) ping(f *flag.FlagSet) func([]string) error {
	count := f.Int("c", 10, "send `N` packets to each, else 10")
	interval := f.Float64("i", 1, "send one every `SECONDS`, else each second")
	return func(hosts []string) error { return a.compare(hosts, *count, *interval) }
}

// compare implements ping; the interval is in seconds.
func (a *app) compare(hosts []string, count int, interval float64) error {
	wait := time.Duration(interval * float64(time.Second))
	switch {
	case len(hosts) != 2:
		return usageError("ping takes two hosts: ds4relay ping HOST4 HOST6, the same one by its IPv4 and its " +
			"IPv6 address")
	case count < 1 || count > maxPings:
		return usageError(fmt.Sprintf("ping -c %d: allowed is a number from 1 to %d", count, maxPings))
	case wait < minPingInterval || wait > time.Hour:
		return usageError(fmt.Sprintf("ping -i %g: allowed are seconds from %g to 3600", interval,
			minPingInterval.Seconds()))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	progress := func(host string, seq int, rtt time.Duration, err error) {
		switch {
		case a.quiet:
		case err != nil:
			fmt.Fprintf(a.stdout, "%s: seq=%d %v\n", host, seq, err)
		default:
			fmt.Fprintf(a.stdout, "%s: seq=%d time=%.3f ms\n", host, seq, float64(rtt)/float64(time.Millisecond))
		}
	}
	who := a.answerers()
	v4, v6, err := ping.Compare(ctx, hosts[0], hosts[1], ping.Options{Count: count, Interval: wait}, progress)
	if err != nil {
		return err
	}
	fmt.Fprintln(a.stdout)
	fmt.Fprint(a.stdout, ping.Format(v4, v6))
	if v4.Received == 0 || v6.Received == 0 {
		return exitCode(exitFailed)
	}
	known, err := who.home(v4.Addr, v4.Received)
	if !known && !a.quiet {
		fmt.Fprintf(a.stdout, "who has answered for %s is not known on this machine: the home, or the VPS "+
			"itself\n", v4.Addr)
	}
	return err
}

// ancestors limits the search for the ssh session that sudo hides.
const ancestors = 32

// sessionEnv reads a variable from the environment, or from that of the nearest ancestor that has it: sudo and su
// remove SSH_CONNECTION, but the calling shell still has it.
func sessionEnv(name string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	pid := os.Getppid()
	for range ancestors {
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil || pid <= 1 {
			return ""
		}
		for entry := range strings.SplitSeq(string(environ), "\x00") {
			if value, ok := strings.CutPrefix(entry, name+"="); ok && value != "" {
				return value
			}
		}
		if pid = parentOf(pid); pid == 0 {
			return ""
		}
	}
	return ""
}

// parentOf reads the fourth field of /proc/PID/stat (proc(5)), after the command's name in parentheses.
func parentOf(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(stat[max(strings.LastIndexByte(string(stat), ')'), 0):]), " ")
	words := strings.Fields(rest)
	if len(words) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(words[1])
	return parent
}
