// Proxybench compares proxies in namespaces on this machine's own kernel: a client, a VPS on which the proxies run, and
// a host behind it. `make bench-proxy` runs it.
package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"syscall"
	"time"
)

// settings are the parameters of a run.
type settings struct {
	ds4relay    string
	frp         string
	out         string
	only        *regexp.Regexp
	metrics     *regexp.Regexp
	repetitions int
	window      time.Duration
	more        bool
	idle        []int // numbers of connections at which to measure memory
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "proxybench:", err)
		os.Exit(1)
	}
}

func run() error {
	switch {
	case len(os.Args) == 2 && os.Args[1] == "load":
		return runLoad()
	case len(os.Args) == 4 && os.Args[1] == "splice":
		return runSplice(os.Args[2], os.Args[3])
	}
	var s settings
	flag.StringVar(&s.ds4relay, "ds4relay", "build/ds4relay", "the program")
	flag.StringVar(&s.frp, "frp", "", "a directory with frps and frpc; frp is left out without")
	flag.StringVar(&s.out, "out", "", "a directory for the tables and the chart")
	flag.IntVar(&s.repetitions, "n", 5, "how often each is measured; a median is taken")
	flag.DurationVar(&s.window, "t", time.Second, "how long each measurement takes")
	only := flag.String("only", "", "a regular expression: only these ways, beside plain routing")
	flag.BoolVar(&s.more, "more", true, "also measure one stream with bbr, and without segmentation offloads")
	metrics := flag.String("metrics", "", "a regular expression: only these figures")
	flag.Parse()
	var err error
	if s.only, err = regexp.Compile(*only); err != nil {
		return err
	}
	if s.metrics, err = regexp.Compile(*metrics); err != nil {
		return err
	}
	// The programs inherit this limit. Without CAP_SYS_RESOURCE it cannot be raised.
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return err
	}
	wanted := uint64(2*idleMost + spareFiles)
	files.Cur = max(files.Cur, min(wanted, files.Max))
	if syscall.Setrlimit(syscall.RLIMIT_NOFILE,
		&syscall.Rlimit{Cur: max(wanted, files.Max), Max: max(wanted, files.Max)}) == nil {
		files.Cur = wanted
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE,
		&syscall.Rlimit{Cur: files.Cur, Max: max(files.Cur, files.Max)}); err != nil {
		return err
	}
	// Each idle connection needs two descriptors of a proxy.
	s.idle = []int{idleFew, min(idleMost, (int(files.Cur)-spareFiles)/2)}
	return bench(s)
}
