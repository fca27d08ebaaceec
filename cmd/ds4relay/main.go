// Command ds4relay gives a home behind DS-Lite a global IPv4 address: it installs one end of a relay, on the VPS or on
// the home's router.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/control"
	"github.com/ds4relay/ds4relay/internal/openwrt"
	"github.com/ds4relay/ds4relay/internal/plain"
	"github.com/ds4relay/ds4relay/internal/platform"
)

// version is set by the linker.
var version = "dev"

// Exit statuses.
const (
	exitFailed  = 1 // and rolled back
	exitUsage   = 2 // bad usage or configuration, nothing was changed
	exitDiffers = 3 // status: the kernel is not as the configuration says
	exitSome    = 4 // some relays are up, others could not be brought up
)

const usage = `ds4relay gives a home behind DS-Lite a global IPv4 address, through a VPS.

usage: ds4relay [-c FILE] [--run DIR] [-q] COMMAND

  up [RELAY…] [--force] [--running]
                           make the kernel match the configuration: all enabled relays, the named ones, or those that are up
  down [RELAY…]            remove what up made
  reload [RELAY…]          the same as up
  plan [--down] [RELAY…]   print what up (or down) would do, as commands that a person could type
  status [--json]          show the relays and what differs from the configuration (exit status 3: something does)
  doctor [RELAY…] [--json] find out why it does not work, and what to do (exit status 1: something has failed)
  trace [CLIENT] [-c LINES] [-t SECONDS]
                           follow one connection over this machine's devices, a line for each step of a packet
  watch                    look once whether the DNS name of an other end has another address, and move the tunnel there
  check [FILE]             report every mistake in the configuration
  export [RELAY]           print the configuration of the other end
  ping HOST4 HOST6 [-c N] [-i SECONDS]
                           compare the round trip over IPv4 by the relay with that over IPv6
  proxy [--status [--json] | --reload | --upgrade | --take-over]
                           run the proxies of the configuration in the foreground; show those that run; have them read the
                           configuration again, or go on as the version that is installed now; go on for those that run
  version

  on OpenWrt, for its services: service FILE, firewall [--shell], netifd, rpcd list|call METHOD

  -c FILE    the configuration, default /etc/config/ds4relay
  --run DIR  records of what is installed, default /var/run/ds4relay on OpenWrt, else /run/ds4relay
  -q         do not print the steps

exit status: 0 done, 1 failed and rolled back, 2 bad usage or configuration, 4 some relays are up, others could not be
`

// app is one call of the program.
type app struct {
	path   string
	run    string
	quiet  bool
	stdout io.Writer
	stderr io.Writer
	most   int // bytes of what a command answers over a bus
	env    func(string) string
	// apply wraps the kernel; tests make steps fail with it.
	apply func(control.Kernel) control.Kernel
}

func main() {
	os.Exit(newApp(os.Stdout, os.Stderr).main(os.Args[1:]))
}

// newApp prints nothing but plain text.
func newApp(stdout, stderr io.Writer) *app {
	return &app{stdout: plain.Writer{To: stdout}, stderr: plain.Writer{To: stderr}, env: sessionEnv}
}

// usageError is a mistake on the command line.
type usageError string

func (e usageError) Error() string { return string(e) }

func (a *app) flags(name string) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	return f
}

// parse allows options before, between and after the other arguments, and returns those.
func parse(f *flag.FlagSet, args []string) ([]string, error) {
	var rest []string
	for {
		if err := f.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, err
			}
			// "-c FILE" is what a command named trace or ping would take for its own.
			for _, before := range []string{"c", "config", "run"} {
				if strings.HasSuffix(err.Error(), "not defined: -"+before) {
					return nil, usageError("-" + before + " stands before the command: ds4relay -" + before + " … " + f.Name())
				}
			}
			return nil, usageError(fmt.Sprintf("%s; see: ds4relay help", err))
		}
		if f.NArg() == 0 {
			return rest, nil
		}
		rest, args = append(rest, f.Arg(0)), f.Args()[1:]
	}
}

func (a *app) main(args []string) int {
	err := a.dispatch(args)
	var problems config.Problems
	var bad usageError
	var code exitCode
	switch {
	case err == nil:
		return 0
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(a.stdout, usage)
		return 0
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &problems), errors.Is(err, control.ErrUnknownRelay), errors.As(err, &bad), errors.Is(err, errConfig):
		fmt.Fprintln(a.stderr, err)
		return exitUsage
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintln(a.stderr, "ds4relay: "+line)
	}
	var some *control.SomeFailed
	if errors.As(err, &some) {
		return exitSome
	}
	return exitFailed
}

// exitCode ends the program without a message.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

var errConfig = errors.New("the configuration cannot be read")

func (a *app) dispatch(args []string) error {
	f := a.flags("ds4relay")
	f.StringVar(&a.path, "c", config.DefaultPath, "")
	f.StringVar(&a.path, "config", config.DefaultPath, "")
	f.StringVar(&a.run, "run", here().RunDir(), "")
	f.BoolVar(&a.quiet, "q", false, "")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return usageError(fmt.Sprintf("%s; see: ds4relay help", err))
	}
	if f.NArg() == 0 {
		return usageError(strings.TrimRight(usage, "\n"))
	}
	commands := map[string]func([]string) error{
		"up": a.up, "reload": a.up, "down": a.down, "plan": a.plan, "status": a.status, "check": a.check, "ping": a.ping, "doctor": a.doctor, "trace": a.trace, "watch": a.watch,
		"export": a.export, "firewall": a.firewall, "netifd": a.netifd, "rpcd": a.rpcd, "service": a.service,
		"killswitch": a.killswitch,
		"version":    a.version, "help": func([]string) error { return flag.ErrHelp },
	}
	maps.Copy(commands, a.hostCommands())
	name := f.Arg(0)
	command, ok := commands[name]
	if !ok {
		return usageError(fmt.Sprintf("unknown command %q; see: ds4relay help", name))
	}
	return command(f.Args()[1:])
}

func (a *app) version(args []string) error {
	if len(args) > 0 {
		return usageError("version takes no arguments")
	}
	fmt.Fprintln(a.stdout, "ds4relay "+version)
	return nil
}

// here is what the network of this machine is run by.
func here() platform.Platform {
	if platform.IsOpenWrt() {
		return openwrt.Platform{}
	}
	return platform.Debian{}
}

// load reads the configuration; warnings are printed.
func (a *app) load(path string) (*config.Config, config.Problems, error) {
	c, warnings, err := config.Load(path, here().DefaultRole())
	for _, w := range warnings {
		fmt.Fprintln(a.stderr, "warning: "+w.Error())
	}
	var problems config.Problems
	if err != nil && !errors.As(err, &problems) && !passing(err) {
		err = fmt.Errorf("%w: %w", errConfig, err)
	}
	return c, warnings, err
}

// passing tells of an error whether the machine lacks something, which it may have the next time: the configuration is
// not to blame, and systemd may try again.
func passing(err error) bool {
	lacks := []error{syscall.ENOMEM, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EMFILE, syscall.ENFILE,
		syscall.EIO, syscall.EAGAIN, syscall.EINTR}
	return slices.ContainsFunc(lacks, func(lack error) bool { return errors.Is(err, lack) })
}

func (a *app) check(args []string) error {
	args, err := parse(a.flags("check"), args)
	if err != nil {
		return err
	}
	if len(args) > 1 {
		return usageError("check takes one file")
	}
	path := a.path
	if len(args) == 1 {
		path = args[0]
	}
	c, warnings, err := a.load(path)
	if err != nil {
		return err
	}
	forwards := 0
	for _, r := range c.Relays {
		forwards += len(r.Forwards)
	}
	if len(args) == 0 { // the file of this machine
		for _, text := range a.warnings(c.Relays) {
			fmt.Fprintln(a.stderr, "warning: "+text)
		}
	}
	note := ""
	if len(c.Proxies) > 0 {
		note = fmt.Sprintf(", proxies: %d", len(c.Proxies))
	}
	if len(warnings) > 0 {
		note += fmt.Sprintf(", %d warnings", len(warnings))
	}
	fmt.Fprintf(a.stdout, "%s: correct (relays: %d, forwards: %d%s)\n", path, len(c.Relays), forwards, note)
	return nil
}
