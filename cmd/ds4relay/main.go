// Command ds4relay gives a home behind DS-Lite a global IPv4 address: it installs one end of a relay, on the VPS or on
// the home's router.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/ds4relay/ds4relay/internal/buildinfo"
	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/doctor"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/openwrt"
	"github.com/ds4relay/ds4relay/internal/pairing"
	"github.com/ds4relay/ds4relay/internal/plain"
	"github.com/ds4relay/ds4relay/internal/platform"
	"github.com/ds4relay/ds4relay/internal/program"
	"github.com/ds4relay/ds4relay/internal/reconcile"
)

// The linker sets version, and commit to the commit and its date.
var version, commit = "dev", ""

// Exit statuses.
const (
	exitFailed  = 1 // and rolled back
	exitUsage   = 2 // bad usage or configuration, nothing was changed
	exitDiffers = 3 // status: the kernel is not as the configuration says
	exitSome    = 4 // some relays are up, others could not be brought up
	exitSilent  = 5 // status: all is as the configuration says, but another end is silent
)

// app is one run of the program.
type app struct {
	path    string
	run     string
	quiet   bool
	verbose bool
	stdout  io.Writer
	stderr  io.Writer
	most    int // limit of a command's output over a bus, in bytes
	env     func(string) string
	input   io.Reader // standard input
	// pairings are those with VPSs, session runs one of ssh, spawn starts this program once more, and startUp the service;
	// tests have their own.
	pairings pairing.Dir
	session  func(*pairing.Session) (string, error)
	spawn    func(args ...string) error
	startUp  func(*app) error
	// apply wraps the kernel; tests use it to make steps fail.
	apply func(reconcile.Kernel) reconcile.Kernel
	// machine is what the doctor examines; nil: this one.
	machine doctor.Prober
}

func main() {
	os.Exit(newApp(os.Stdout, os.Stderr).main(os.Args[1:]))
}

// newApp writes plain text only; colours on a terminal.
func newApp(stdout, stderr io.Writer) *app {
	return &app{stdout: plain.NewWriter(stdout), stderr: plain.NewWriter(stderr), env: sessionEnv, input: os.Stdin,
		pairings: pairing.DefaultDir, session: (*pairing.Session).Do, spawn: program.Again,
		startUp: (*app).startService}
}

// usageError is a mistake on the command line.
type usageError string

func (e usageError) Error() string { return string(e) }

// flags returns the flags that precede the command.
func (a *app) flags() *flag.FlagSet {
	f := flag.NewFlagSet("ds4relay", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&a.path, "c", config.DefaultPath, "the configuration is in `FILE`, else "+config.DefaultPath)
	f.StringVar(&a.path, "config", config.DefaultPath, "")
	f.StringVar(&a.run, "run", here().RunDir(), "records of what is installed are in `DIR`, else "+here().RunDir())
	a.stepFlags(f)
	f.Bool("version", false, "print the version")
	return f
}

// stepFlags defines the flags for how much is printed of the steps; they may stand before or after the command.
func (a *app) stepFlags(f *flag.FlagSet) {
	f.BoolVar(&a.quiet, "q", a.quiet, "do not print the steps")
	f.BoolVar(&a.verbose, "v", a.verbose, "print all of a ruleset, not its size only")
}

// parse allows options before, between and after the other arguments, and returns the latter.
func parse(f *flag.FlagSet, args []string) ([]string, error) {
	var rest []string
	for {
		if err := f.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, err
			}
			// These flags belong to the program, not to the command.
			for _, before := range []string{"c", "config", "run"} {
				if strings.HasSuffix(err.Error(), "not defined: -"+before) {
					return nil, usageError("-" + before + " stands before the command: ds4relay -" + before + " … " +
						f.Name())
				}
			}
			return nil, usageError(fmt.Sprintf("%s; see: ds4relay %s --help", err, f.Name()))
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
	if errors.As(err, &said{}) {
		a.stderr = plain.NewWriter(io.Discard)
	}
	switch {
	case err == nil:
		return 0
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(a.stdout, usage())
		return 0
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &problems), errors.Is(err, reconcile.ErrUnknownRelay), errors.Is(err,
		errWhichRelay), errors.As(err, &bad),
		errors.Is(err, errConfig):
		fmt.Fprintln(a.stderr, err)
		return exitUsage
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		plain.Paint(a.stderr, plain.Bad, "ds4relay: ")
		fmt.Fprintln(a.stderr, line)
	}
	var some *reconcile.SomeFailed
	if errors.As(err, &some) {
		return exitSome
	}
	return exitFailed
}

// exitCode ends the program without a message.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

var errConfig = message.New("the configuration cannot be read")

func (a *app) dispatch(args []string) error {
	f := a.flags()
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return usageError(fmt.Sprintf("%s; see: ds4relay help", err))
	}
	if f.Lookup("version").Value.String() == "true" {
		return a.version(nil)
	}
	if f.NArg() == 0 {
		return usageError(strings.TrimRight(usage(), "\n"))
	}
	c := find(f.Arg(0))
	if c == nil {
		return unknown(f.Arg(0))
	}
	return a.call(c, f.Args()[1:])
}

func (a *app) version([]string) error {
	fmt.Fprintln(a.stdout, buildinfo.Line("ds4relay", version, commit))
	return nil
}

// here returns the platform that manages this machine's network.
func here() platform.Platform {
	if platform.IsOpenWrt() {
		return openwrt.Platform{}
	}
	return platform.Debian{}
}

// load reads the configuration and prints its warnings.
func (a *app) load(path string) (*config.Config, config.Problems, error) {
	c, warnings, err := a.read(path)
	a.warn(warnings)
	return c, warnings, err
}

func (a *app) warn(warnings config.Problems) {
	for _, w := range warnings {
		a.warning(w.Error())
	}
}

func (a *app) warning(text string) {
	plain.Paint(a.stderr, plain.Warning, "warning: ")
	fmt.Fprintln(a.stderr, text)
}

// read is like load, without printing.
func (a *app) read(path string) (*config.Config, config.Problems, error) {
	c, warnings, err := config.Load(path, a.defaults())
	var problems config.Problems
	if err != nil && !errors.As(err, &problems) && !passing(err) {
		err = message.New("%v: %v", errConfig, err)
	}
	return c, warnings, err
}

// passing reports whether an error is temporary: the machine lacks a resource, the configuration is not to blame, and
// systemd may try again.
func passing(err error) bool {
	lacks := []error{syscall.ENOMEM, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EMFILE, syscall.ENFILE,
		syscall.EIO, syscall.EAGAIN, syscall.EINTR}
	return slices.ContainsFunc(lacks, func(lack error) bool { return errors.Is(err, lack) })
}
