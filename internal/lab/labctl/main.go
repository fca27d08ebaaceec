// Labctl runs programs, such as test binaries, in the lab's virtual machine.
//
//	labctl prepare [SUITE]              download a kernel into the cache, or create that Debian suite's disk
//	labctl exec [flags] -- PROGRAM …    run PROGRAM in the virtual machine, in this working directory
//	labctl exec -- labctl demo DS4RELAY   run the demo in the lab
//	go test -exec "labctl exec --" -tags lab ./internal/lab/...
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ds4relay/ds4relay/internal/lab"
	"github.com/ds4relay/ds4relay/internal/lab/demo"
	"github.com/ds4relay/ds4relay/internal/lab/vm"
)

const usage = `usage: labctl prepare [SUITE]
       labctl exec [flags] -- PROGRAM [ARGUMENT…]
       labctl demo DS4RELAY        (inside the lab)
`

// Exit statuses of labctl itself, the same as those of timeout(1) and env(1).
const (
	exitUsage   = 2
	exitTimeout = 124
	exitFailed  = 125
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(exitUsage)
	}
	switch args := os.Args[2:]; os.Args[1] {
	case "prepare":
		ctx, stop := interruptible()
		defer stop()
		if len(args) > 0 {
			if _, err := vm.PrepareDebian(ctx, args[0], os.Stderr); err != nil {
				fail(err)
			}
			return
		}
		kernel, err := vm.Prepare(ctx, "", os.Stderr)
		if err != nil {
			fail(err)
		}
		fmt.Println(kernel.Version)
	case "exec":
		os.Exit(run(args))
	case "demo":
		if len(args) != 1 {
			fmt.Fprint(os.Stderr, usage)
			os.Exit(exitUsage)
		}
		if err := lab.Require(); err != nil {
			fail(err)
		}
		if err := demo.Run(os.Stdout, args[0], os.Getenv("DS4RELAY_COLOUR") == "1"); err != nil {
			fail(err)
		}
	case "guest-init": // only as process 1 of the virtual machine, see vm/init.sh
		if os.Getpid() != 1 || len(args) != 1 {
			fmt.Fprint(os.Stderr, usage)
			os.Exit(exitUsage)
		}
		vm.Guest(args[0])
	default:
		fmt.Fprint(os.Stderr, usage)
		os.Exit(exitUsage)
	}
}

func run(args []string) int {
	flags := flag.NewFlagSet("labctl exec", flag.ExitOnError)
	flags.Usage = func() {
		fmt.Fprint(os.Stderr, usage)
		flags.PrintDefaults()
	}
	memory := flags.Int("mem", 2048, "memory of the virtual machine in `MB`")
	cpus := flags.Int("cpus", 1, "`NUMBER` of CPUs of the virtual machine; 0: two where the computer has two idle "+
		"ones, else one")
	icount := flags.Bool("icount", false, "one CPU whose clock counts instructions: repeatable figures")
	timeout := flags.Duration("timeout", 20*time.Minute, "end the virtual machine after this time")
	share := flags.String("share", "", "mount `DIR` writable at /mnt/share")
	router := flags.String("router", "", "a second virtual machine as the home's router: `ARCH` is mipsel or arm64")
	routerIcount := flags.Bool("router-icount", false, "the router's clock counts instructions, one per nanosecond")
	debian := flags.String("debian", "", "a second virtual machine as the VPS: `SUITE` is bookworm or trixie")
	agent := flags.String("agent", "", "the agent for the second virtual machine, `FILE`")
	pkg := flags.String("package", "", "the package that is installed on the router, `FILE`.ipk")
	suite := flags.String("kernel", "", "boot the kernel of another Debian, `SUITE` such as trixie-backports")
	verbose := flags.Bool("v", false, "say how long the boot took")
	flags.Parse(args)
	if flags.NArg() == 0 {
		flags.Usage()
		return exitUsage
	}

	ctx, stop := interruptible()
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()

	kernel, err := vm.Prepare(ctx, *suite, os.Stderr)
	if err != nil {
		fail(err)
	}
	dir, err := os.Getwd()
	if err != nil {
		fail(err)
	}
	opts := vm.Options{
		Args: flags.Args(), Env: environment(), Dir: dir,
		MemoryMB: *memory, CPUs: *cpus, Icount: *icount,
		Stdout: os.Stdout, Stderr: os.Stderr,
	}
	if *share != "" {
		if opts.Share, err = filepath.Abs(*share); err != nil {
			fail(err)
		}
	}
	if *router != "" {
		opts.Router = &vm.RouterOptions{Arch: *router, Agent: *agent, Package: *pkg, Icount: *routerIcount}
		opts.Env = append(opts.Env, lab.RouterEnvironment+"="+*router)
	}
	if *debian != "" {
		opts.Debian = &vm.DebianOptions{Suite: *debian, Agent: *agent}
		opts.Env = append(opts.Env, lab.DebianEnvironment+"="+*debian)
	}
	if *cpus == 0 {
		opts.CPUs = min(2, max(1, idleCPUs()))
		fmt.Fprintf(os.Stderr, "labctl: the virtual machine has %d CPUs\n", opts.CPUs)
	}
	opts.Booted = func(boot vm.Boot) {
		if *verbose && boot.Failure == "" {
			fmt.Fprintf(os.Stderr, "labctl: %v\n", boot)
		}
		if err := record(boot); err != nil {
			fmt.Fprintln(os.Stderr, "labctl:", err)
		}
	}
	status, err := vm.Run(ctx, kernel, opts)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		fmt.Fprintf(os.Stderr, "labctl: %s: not finished after %v: %v\n", flags.Arg(0), *timeout, err)
		return exitTimeout
	case err != nil:
		fail(err)
	}
	return status
}

// bootsEnvironment is the variable with the path of a log of boots. Each line has the machine, the try, the elapsed
// seconds, the seconds of CPU time, and "ok" or the reason of the failure.
const bootsEnvironment = "DS4RELAY_BOOTS"

func record(boot vm.Boot) error {
	path := os.Getenv(bootsEnvironment)
	if path == "" {
		return nil
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = fmt.Fprintf(file, "%s\t%d\t%.1f\t%.1f\t%s\n", boot.Machine, boot.Try, boot.Took.Seconds(),
		boot.CPU.Seconds(), cmp.Or(boot.Failure, "ok"))
	return err
}

// idleCPUs returns how many of the computer's CPUs are idle (proc_stat(5)).
func idleCPUs() int {
	const look, user = 500 * time.Millisecond, 1
	read := func() (idle, total float64) {
		data, err := os.ReadFile("/proc/stat")
		if err != nil {
			return 0, 1
		}
		line, _, _ := strings.Cut(string(data), "\n")
		for i, field := range strings.Fields(line) {
			n, err := strconv.ParseFloat(field, 64)
			if err != nil {
				continue
			}
			total += n
			if i == user+3 {
				idle = n
			}
		}
		return idle, total
	}
	idle, total := read()
	time.Sleep(look)
	idleNow, totalNow := read()
	return int(float64(runtime.NumCPU())*(idleNow-idle)/max(totalNow-total, 1) + 0.3)
}

// interruptible returns a context that ends with the signals of a terminal, of kill(1), or of a go test that times out.
func interruptible() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
}

// environment returns the guest's environment: a PATH for tools, and the project's own variables.
func environment() []string {
	env := []string{
		"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin:/usr/bin:/bin",
		"HOME=/root",
		"GOGC=400", // the guest has memory to spare, and garbage collection is slow there
		"TERM=" + os.Getenv("TERM"),
	}
	for _, entry := range os.Environ() {
		if strings.HasPrefix(entry, "DS4RELAY_") && !strings.HasPrefix(entry, "DS4RELAY_LAB=") {
			env = append(env, entry)
		}
	}
	return append(env, "DS4RELAY_LAB=vm")
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "labctl:", err)
	os.Exit(exitFailed)
}
