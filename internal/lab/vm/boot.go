package vm

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

// Boot is one start of a virtual machine, up to the word that it has started.
type Boot struct {
	Machine string        // lab, router or debian
	Try     int           // 1 for the first
	Took    time.Duration // by the clock
	CPU     time.Duration // that QEMU used
	Failure string        // why it was given up; "" for a boot that ended well
}

func (b Boot) String() string {
	how := "booted"
	if b.Failure != "" {
		how = b.Failure
	}
	return fmt.Sprintf("%s: %s after %.1f s (%.1f s of CPU time, try %d of %d)", b.Machine, how, b.Took.Seconds(),
		b.CPU.Seconds(), b.Try, bootTries)
}

// bootTries is how often a machine is started before the run fails. What runs in it is never tried again.
const bootTries = 3

// Limits of a boot. How long one takes by the clock depends on what else the computer does; the work in it does not,
// so that the limit that counts is one of QEMU's own CPU time. A boot takes 4 seconds of it, a whole Debian's 12 to
// 21, and up to twice that on a computer that is busy.
const (
	bootCPU   = 90 * time.Second
	bootIdle  = 30 * time.Second // without any work: it waits for what does not come
	bootLimit = 5 * time.Minute
	bootPoll  = 50 * time.Millisecond
)

// stalls are what a kernel prints that has stopped, before it says that it has started.
var stalls = []string{"detected stalls on CPUs", "self-detected stall on CPU", "soft lockup - CPU", "Kernel panic"}

// bootError tells that a machine did not come up, which is worth another try.
type bootError struct {
	Boot
	console string
}

func (e *bootError) Error() string {
	return fmt.Sprintf("the virtual machine does not boot: %v\n%s", e.Boot, e.console)
}

type bootLimits struct{ cpu, idle, clock time.Duration }

// bootWatch follows one start of a machine.
type bootWatch struct {
	boot    Boot
	pid     int
	console string // path of the file with the kernel's messages
	began   time.Time
	limits  bootLimits

	worked   time.Time // when it last had used CPU time
	workedAt time.Duration
}

func watchBoot(machine string, try, pid int, console string) *bootWatch {
	now := time.Now()
	return &bootWatch{boot: Boot{Machine: machine, Try: try}, pid: pid, console: console, began: now, worked: now,
		limits: bootLimits{bootCPU, bootIdle, bootLimit}}
}

// ended fills in what the boot took.
func (w *bootWatch) ended() Boot {
	w.boot.Took, w.boot.CPU = time.Since(w.began), cpuTime(w.pid)
	return w.boot
}

// failure says why the boot has to be given up, or "".
func (w *bootWatch) failure() string {
	used := cpuTime(w.pid)
	if idle := w.limits.idle / 300; used-w.workedAt > idle { // less in that time counts as none
		w.worked, w.workedAt = time.Now(), used
	}
	switch {
	case used > w.limits.cpu:
		return fmt.Sprintf("has not started with %v of CPU time", w.limits.cpu)
	case time.Since(w.worked) > w.limits.idle:
		return fmt.Sprintf("has not started, and did nothing for %v", w.limits.idle)
	case time.Since(w.began) > w.limits.clock:
		return fmt.Sprintf("has not started within %v", w.limits.clock)
	}
	log, _ := os.ReadFile(w.console)
	for _, stall := range stalls {
		if strings.Contains(string(log), stall) {
			return fmt.Sprintf("has not started, and its kernel says %q", stall)
		}
	}
	return ""
}

// failed makes an error of the boot.
func (w *bootWatch) failed(why string) *bootError {
	boot := w.ended()
	boot.Failure = why
	return &bootError{boot, readLog(w.console)}
}

// cpuTime is what a process has used (proc_pid_stat(5)); 0 for one that has ended.
func cpuTime(pid int) time.Duration {
	const (
		userTicks  = 11  // field behind the program's name
		clockTicks = 100 // a second (USER_HZ)
	)
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	if len(fields) < userTicks+2 {
		return 0
	}
	user, _ := strconv.Atoi(fields[userTicks])
	system, _ := strconv.Atoi(fields[userTicks+1])
	return time.Duration(user+system) * time.Second / clockTicks
}

// note reports a boot to whoever counts them, and one that failed to a person as well.
func (o *Options) note(boot Boot) {
	if o.Booted != nil {
		o.Booted(boot)
	}
	if boot.Failure != "" {
		fmt.Fprintf(o.Stderr, "labctl: %v\n", boot)
	}
}

func readLog(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return "kernel log:\n" + string(data)
}

// saysStarted tells whether a console has the word of a second machine's agent.
func saysStarted(console, word string) bool {
	file, err := os.Open(console)
	if err != nil {
		return false
	}
	defer file.Close()
	data, err := io.ReadAll(file)
	return err == nil && strings.Contains(string(data), word)
}
