package vm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Options say which program runs, and in which virtual machine.
type Options struct {
	Args     []string       // program and arguments
	Env      []string       // complete environment
	Dir      string         // working directory, on the host's file system
	MemoryMB int            // 0: 2048
	CPUs     int            // 0: 1
	Icount   bool           // one CPU whose clock counts instructions (repeatable figures: docs/dev/figures.md)
	Share    string         // host directory, writable at /mnt/share; empty: none
	Router   *RouterOptions // a router as second virtual machine; may be nil
	Debian   *DebianOptions // a Debian as second virtual machine; may be nil

	Stdout io.Writer
	Stderr io.Writer
	Booted func(Boot) // is called for every boot of a machine; may be nil
}

// Run boots kernel, runs the program and returns its exit status (128 + the signal's number if a signal ended it). An
// error means that the program did not run to its end. It contains the guest's kernel log, or is ctx's error. QEMU is
// killed when ctx ends, and by the kernel when this process dies.
func Run(ctx context.Context, kernel Kernel, opts Options) (status int, err error) {
	dir, err := os.MkdirTemp("", "ds4relay-lab-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	if err := os.Symlink(self, filepath.Join(dir, "labctl")); err != nil {
		return 0, err
	}
	todo := spec{
		Args: opts.Args, Env: opts.Env, Dir: opts.Dir, Modules: kernel.Modules, Share: opts.Share != "",
		Icount: opts.Icount,
	}
	if !opts.Icount { // the figures of docs/dev/ were taken with all files on the host
		todo.Warm = warmPaths(warmPrograms)
	}
	err = todo.write(dir)
	if err != nil {
		return 0, err
	}
	var other *second
	switch {
	case opts.Router != nil:
		other, err = newRouter(ctx, &opts, dir)
	case opts.Debian != nil:
		other, err = newDebian(ctx, &opts, dir)
	}
	if err != nil {
		return 0, err
	}
	var cards []int
	if other != nil {
		cards = other.cards
		unplug, err := layWires(dir, cards)
		if err != nil {
			return 0, err
		}
		defer unplug()
		var lost context.CancelCauseFunc
		ctx, lost = context.WithCancelCause(ctx)
		defer lost(nil)
		end, err := other.start(ctx, lost)
		if err != nil {
			return 0, err
		}
		defer end()
	}
	for try := 1; ; try++ {
		status, err = runFirst(ctx, kernel, &opts, dir, cards, try)
		var failed *bootError
		if !errors.As(err, &failed) || ctx.Err() != nil {
			break
		}
		opts.note(failed.Boot)
		if try == bootTries {
			break
		}
	}
	if other != nil && (status != 0 || err != nil) {
		fmt.Fprintln(opts.Stderr, "the second machine's console:", other.log())
	}
	return status, err
}

// runFirst boots the first machine once and runs the program. A bootError means that the machine did not start.
func runFirst(ctx context.Context, kernel Kernel, opts *Options, dir string, cards []int, try int) (status int,
	err error) {
	var ports [3]*os.File
	var guestEnds []*os.File
	for i := range ports {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return 0, fmt.Errorf("socketpair: %w", err)
		}
		ports[i] = os.NewFile(uintptr(pair[0]), "port")
		guestEnds = append(guestEnds, os.NewFile(uintptr(pair[1]), "port"))
		defer ports[i].Close()
		defer guestEnds[i].Close()
	}

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	console := filepath.Join(dir, fmt.Sprintf("console.%d.log", try))
	qemu := exec.CommandContext(ctx, "qemu-system-x86_64", qemuArgs(kernel, opts, dir, console, cards)...)
	qemu.ExtraFiles = guestEnds
	var qemuErrors strings.Builder
	qemu.Stdout, qemu.Stderr = &qemuErrors, &qemuErrors
	// QEMU gets its own process group, so that Ctrl-C reaches only labctl, which ends QEMU through ctx.
	qemu.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	runtime.LockOSThread() // Pdeathsig is tied to the forking thread
	defer runtime.UnlockOSThread()
	if err := qemu.Start(); err != nil {
		return 0, fmt.Errorf("%w (is qemu-system-x86 installed?)", err)
	}
	for _, f := range guestEnds {
		f.Close()
	}
	watch := watchBoot("lab", try, qemu.Process.Pid, console)

	var copies sync.WaitGroup
	copies.Add(1)
	go func() {
		defer copies.Done()
		io.Copy(opts.Stdout, ports[0])
	}()
	copies.Add(1)
	go func() {
		defer copies.Done()
		io.Copy(opts.Stderr, ports[1])
	}()
	started := make(chan struct{})
	var result string
	copies.Add(1)
	go func() {
		defer copies.Done()
		lines := bufio.NewScanner(ports[2])
		for lines.Scan() {
			if lines.Text() == statusStarted {
				close(started)
			}
			result = lines.Text()
		}
	}()
	ended := make(chan struct{})
	var waitErr error
	go func() {
		waitErr = qemu.Wait()
		close(ended)
	}()
	failed := awaitStart(watch, started, ended)
	if failed != nil {
		cancel(errors.New(failed.Failure))
		<-ended
	}
	if isClosed(ended) {
		copies.Wait() // the report that it has started may arrive after the end, or after a reason to give up
	}
	if isClosed(started) {
		opts.note(watch.boot)
		failed = nil
	}
	<-ended
	copies.Wait() // with QEMU gone, the ports have reached their end

	word, rest, _ := strings.Cut(result, " ")
	switch {
	case word == statusExit:
		return strconv.Atoi(rest)
	case word == statusError:
		return 0, fmt.Errorf("in the guest: %s", rest)
	case failed != nil:
		return 0, failed
	case ctx.Err() != nil:
		cause := context.Cause(ctx)
		if errors.Is(cause, context.Canceled) {
			return 0, cause
		}
		return 0, fmt.Errorf("%w\n%s%s", cause, qemuErrors.String(), readLog(console))
	case !isClosed(started):
		return 0, watch.failed(fmt.Sprintf("ended before it had started (%v) %s", waitErr, qemuErrors.String()))
	default:
		return 0, fmt.Errorf("the guest ended without a result (QEMU: %v)\n%s%s", waitErr, qemuErrors.String(),
			readLog(console))
	}
}

// awaitStart waits until the guest reports that it has started, or has ended. A boot that must be given up is an error.
func awaitStart(watch *bootWatch, started, ended <-chan struct{}) *bootError {
	poll := time.NewTicker(bootPoll)
	defer poll.Stop()
	for {
		select {
		case <-started:
			watch.ended()
			return nil
		case <-ended:
			watch.ended()
			return nil
		case <-poll.C:
		}
		if why := watch.failure(); why != "" {
			return watch.failed(why)
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// x86Append is for the command line of every x86 kernel here: no mitigations, since the CPU is emulated; no hardening
// that costs time for each page and call; and short RCU grace periods.
const x86Append = "quiet mitigations=off tsc=reliable clocksource=tsc no_timer_check init_on_alloc=0 " +
	"rcupdate.rcu_expedited=1"

// coarseTimers lets timers fire at the kernel's ticks, 250 times a second, and not at any time in between. Each timer
// that is set exactly wakes QEMU's main thread, and Go's runtime sets one every 20 microseconds while it has work.
const coarseTimers = " highres=off"

// x86Args returns the machine type and CPUs. Each CPU is a QEMU thread. If the computer runs only one of two, that one
// spins at the guest's locks, which on a busy computer costs up to ten times the work (docs/dev/lab.md). The CPU lacks
// features that are slow in software: fast copies (ERMS), vectors of 32 bytes, and checks of each access.
func x86Args(cpus int) []string {
	return []string{"-machine", "pc,hpet=off", "-accel", "tcg,thread=multi", "-smp", strconv.Itoa(cpus),
		"-cpu", "max,-erms,-fsrm,-smap,-smep,-la57,-xsave,-avx,-avx2,-svm"}
}

func qemuArgs(kernel Kernel, opts *Options, dir, console string, cards []int) []string {
	memory := opts.MemoryMB
	if memory == 0 {
		memory = 2048
	}
	args, timers := x86Args(max(opts.CPUs, 1)), coarseTimers+knownTSC()
	if opts.Icount { // with the CPU with which the figures of docs/dev/ were taken
		args = []string{"-machine", "pc,hpet=off", "-accel", "tcg,thread=single", "-icount", "shift=0,sleep=on", "-smp",
			"1", "-cpu", "max"}
		timers = "" // it counts instructions
	}
	args = append(args,
		"-m", strconv.Itoa(memory),
		"-nodefaults", "-display", "none", "-no-reboot", "-serial", "file:"+console,
		"-kernel", kernel.Image, "-initrd", kernel.Initramfs,
		// Programs have the same addresses in every process (norandmaps), so QEMU translates their code once. A CPU
		// that hangs for a minute (twice watchdog_thresh) ends the guest, with the kernel's log. There is no cgroup
		// memory accounting and no check of copies to and from user space.
		"-append", "console=ttyS0 panic=-1 rdinit=/init norandmaps lsm= audit=0 psi=0 cgroup_disable=memory "+
			"hardened_usercopy=off watchdog_thresh=30 softlockup_panic=1 "+x86Append+timers+" ds4relay.spec="+dir,
		"-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap", "-device",
		"virtio-serial-pci")
	if opts.Share != "" {
		path := strings.ReplaceAll(opts.Share, ",", ",,")
		args = append(args, "-virtfs",
			"local,path="+path+",mount_tag="+shareTag+",security_model=none,multidevs=remap")
	}
	args = append(args, cardArgs(dir, 0, cards, CardMAC)...)
	for i, name := range []string{portStdout, portStderr, portStatus} {
		const firstExtraFile = 3
		args = append(args,
			"-chardev", fmt.Sprintf("socket,id=port%d,fd=%d", i, firstExtraFile+i),
			"-device", fmt.Sprintf("virtserialport,chardev=port%d,name=%s", i, name))
	}
	return args
}
