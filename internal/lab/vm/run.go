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

// Options say what runs in the virtual machine, and in which one.
type Options struct {
	Args     []string       // the program and its arguments
	Env      []string       // its whole environment
	Dir      string         // its working directory, on the host's file system
	MemoryMB int            // 0: 2048
	Icount   bool           // one CPU whose clock counts instructions (LAB.md: repeatable figures)
	Share    string         // host directory mounted writable at /mnt/share; empty: none
	Router   *RouterOptions // a second virtual machine; may be nil
	Debian   *DebianOptions // another kind of one; may be nil

	Stdout io.Writer
	Stderr io.Writer
	Booted func(after time.Duration) // called when the guest is about to run the program; may be nil
}

// bootLimit is a multiple of the 3 seconds that a boot takes, for machines that are busy.
const bootLimit = 2 * time.Minute

// Run boots kernel, runs the program and returns its exit status (128 + the signal's number if one ended it). An error
// means that the program was not run to its end: it then has the guest's kernel log, or ctx's error.
// QEMU is killed when ctx ends, and by the kernel when this process dies.
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
	err = spec{
		Args: opts.Args, Env: opts.Env, Dir: opts.Dir, Modules: kernel.Modules, Share: opts.Share != "",
	}.write(dir)
	if err != nil {
		return 0, err
	}
	console := filepath.Join(dir, "console.log")
	if opts.Router != nil {
		end, err := startRouter(ctx, *opts.Router, dir, opts.Stderr)
		if err != nil {
			return 0, err
		}
		defer end()
	}
	if opts.Debian != nil {
		end, err := startDebian(ctx, *opts.Debian, dir, opts.Stderr)
		if err != nil {
			return 0, err
		}
		defer end()
	}

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
	qemu := exec.CommandContext(ctx, "qemu-system-x86_64", qemuArgs(kernel, opts, dir, console)...)
	qemu.ExtraFiles = guestEnds
	var qemuErrors strings.Builder
	qemu.Stdout, qemu.Stderr = &qemuErrors, &qemuErrors
	// A process group of its own: Ctrl-C on the terminal reaches labctl, which ends QEMU through ctx.
	qemu.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	runtime.LockOSThread() // Pdeathsig follows the thread that forks
	defer runtime.UnlockOSThread()
	start := time.Now()
	if err := qemu.Start(); err != nil {
		return 0, fmt.Errorf("%w (is qemu-system-x86 installed?)", err)
	}
	for _, f := range guestEnds {
		f.Close()
	}
	bootTimer := time.AfterFunc(bootLimit, func() { cancel(fmt.Errorf("the guest did not boot within %v", bootLimit)) })
	defer bootTimer.Stop()

	var copies sync.WaitGroup
	copies.Go(func() { io.Copy(opts.Stdout, ports[0]) })
	copies.Go(func() { io.Copy(opts.Stderr, ports[1]) })
	var result string
	copies.Go(func() {
		lines := bufio.NewScanner(ports[2])
		for lines.Scan() {
			if lines.Text() == statusStarted && bootTimer.Stop() && opts.Booted != nil {
				opts.Booted(time.Since(start))
			}
			result = lines.Text()
		}
	})
	waitErr := qemu.Wait()
	copies.Wait() // the ports are at their end now that QEMU is gone

	word, rest, _ := strings.Cut(result, " ")
	if opts.Debian != nil && result != statusExit+" 0" {
		fmt.Fprintln(opts.Stderr, "the VPS's console:", readLog(filepath.Join(dir, "debian.log")))
	}
	switch {
	case word == statusExit:
		return strconv.Atoi(rest)
	case word == statusError:
		return 0, fmt.Errorf("in the guest: %s", rest)
	case ctx.Err() != nil:
		cause := context.Cause(ctx)
		if errors.Is(cause, context.Canceled) {
			return 0, cause
		}
		return 0, fmt.Errorf("%w\n%s%s", cause, qemuErrors.String(), readLog(console))
	default:
		return 0, fmt.Errorf("the guest ended without a result (QEMU: %v)\n%s%s", waitErr, qemuErrors.String(), readLog(console))
	}
}

func qemuArgs(kernel Kernel, opts Options, dir, console string) []string {
	memory := opts.MemoryMB
	if memory == 0 {
		memory = 2048
	}
	args := []string{
		"-machine", "pc,hpet=off", "-cpu", "max", "-m", strconv.Itoa(memory),
		"-nodefaults", "-display", "none", "-no-reboot", "-serial", "file:" + console,
		"-kernel", kernel.Image, "-initrd", kernel.Initramfs,
		// Programs at the same addresses in every process (norandmaps): QEMU translates their code once. A CPU that hangs for a
		// minute (twice watchdog_thresh) ends the guest, with the kernel's log.
		"-append", "console=ttyS0 quiet panic=-1 rdinit=/init mitigations=off tsc=reliable clocksource=tsc " +
			"no_timer_check norandmaps watchdog_thresh=30 softlockup_panic=1 ds4relay.spec=" + dir,
		"-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
		"-device", "virtio-serial-pci",
	}
	if opts.Icount {
		args = append(args, "-accel", "tcg,thread=single", "-icount", "shift=0,sleep=on", "-smp", "1")
	} else {
		args = append(args, "-accel", "tcg,thread=multi", "-smp", "2")
	}
	if opts.Share != "" {
		path := strings.ReplaceAll(opts.Share, ",", ",,")
		args = append(args, "-virtfs",
			"local,path="+path+",mount_tag="+shareTag+",security_model=none,multidevs=remap")
	}
	if opts.Router != nil {
		args = append(args, cardArgs(dir, []int{CardWAN, CardLAN, CardCtl})...)
	}
	if opts.Debian != nil {
		args = append(args, cardArgs(dir, []int{CardWAN, CardCtl})...)
	}
	for i, name := range []string{portStdout, portStderr, portStatus} {
		const firstExtraFile = 3
		args = append(args,
			"-chardev", fmt.Sprintf("socket,id=port%d,fd=%d", i, firstExtraFile+i),
			"-device", fmt.Sprintf("virtserialport,chardev=port%d,name=%s", i, name))
	}
	return args
}

func readLog(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return "kernel log:\n" + string(data)
}
