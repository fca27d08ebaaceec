// Command ds4relay-proxy runs the proxies of the configuration on OpenWrt. There ds4relay does not contain them, to
// save space on routers without proxies. Elsewhere the command is `ds4relay proxy`.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/ds4relay/ds4relay/internal/buildinfo"
	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/plain"
	"github.com/ds4relay/ds4relay/internal/proxyd"
)

// The linker sets version, and commit to the commit and its date.
var version, commit = "dev", ""

// Exit statuses, the same as ds4relay's.
const (
	exitFailed  = 1
	exitUsage   = 2
	exitDiffers = 3
)

const usage = `ds4relay-proxy runs the proxies of /etc/config/ds4relay in the foreground.

usage: ds4relay-proxy [-c FILE] [--run DIR] [--status [--json] | --reload | --take-over [--successor SECONDS]]

  --status [--json]  show the proxies that run (exit status 3: not as the configuration says)
  --reload           have them read the configuration again
  --take-over        go on for the process that runs: no client is refused meanwhile, and its sessions come to their
                     end there
  --successor SECONDS
                     after SIGTERM go on for so long, so that another process can take over
  --version
  -c FILE            the configuration, default /etc/config/ds4relay
  --run DIR          records of ds4relay, default /var/run/ds4relay; the control socket is in DIR-proxy
`

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	stdout, stderr = plain.Writer{To: stdout}, plain.Writer{To: stderr}
	f := flag.NewFlagSet("ds4relay-proxy", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	path := f.String("c", config.DefaultPath, "")
	records := f.String("run", "/var/run/ds4relay", "")
	status := f.Bool("status", false, "")
	asJSON := f.Bool("json", false, "")
	reload := f.Bool("reload", false, "")
	takeOver := f.Bool("take-over", false, "")
	successor := f.Uint("successor", 0, "")
	showVersion := f.Bool("version", false, "")
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, usage)
		return 0
	case err != nil || f.NArg() > 0:
		fmt.Fprint(stderr, usage)
		return exitUsage
	}
	load := func() ([]*config.Proxy, error) {
		c, warnings, err := config.Load(*path, config.Defaults{Role: config.Router})
		for _, w := range warnings {
			fmt.Fprintln(stderr, "warning: "+w.Error())
		}
		if err != nil {
			return nil, proxyd.ConfigurationError(err.Error())
		}
		return c.Proxies, nil
	}
	var err error
	code := 0
	switch {
	case *showVersion:
		fmt.Fprintln(stdout, buildinfo.Line("ds4relay-proxy", version, commit))
	case *status:
		code, err = show(*records, load, *asJSON, stdout)
	case *reload:
		err = proxyd.Reload(*records)
	default:
		o := proxyd.Options{Run: *records, Version: version, TakeOver: *takeOver,
			Successor: time.Duration(*successor) * time.Second, Load: load, Say: func(line string) {
				fmt.Fprintln(stderr, line)
			}}
		err = proxyd.Run(o)
	}
	var mistake proxyd.ConfigurationError
	switch {
	case errors.As(err, &mistake):
		fmt.Fprintln(stderr, err)
		return exitUsage
	case err != nil:
		fmt.Fprintln(stderr, "ds4relay-proxy: "+err.Error())
		return exitFailed
	}
	return code
}

func show(records string, load func() ([]*config.Proxy, error), asJSON bool, stdout io.Writer) (int, error) {
	proxies, err := load()
	if err != nil {
		return 0, err
	}
	report, err := proxyd.Ask(records)
	if err != nil && !errors.Is(err, proxyd.ErrNotRunning) {
		return 0, err
	}
	entries := proxyd.Entries(report, proxies)
	if asJSON {
		encoder := json.NewEncoder(stdout)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(entries); err != nil {
			return 0, err
		}
	} else {
		proxyd.Print(stdout, entries)
	}
	if !proxyd.OK(entries) {
		return exitDiffers, nil
	}
	return 0, nil
}
