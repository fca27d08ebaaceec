package vm

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

// Boot is one start of a virtual machine, until it reports that it has started.
type Boot struct {
	Machine string        // lab, router or debian
	Try     int           // 1 for the first
	Took    time.Duration // elapsed time
	CPU     time.Duration // used by QEMU
	Failure string        // why it failed; "" for a successful boot
}

func (b Boot) String() string {
	how := "booted"
	if b.Failure != "" {
		how = b.Failure
	}
	return fmt.Sprintf("%s: %s after %.1f s (%.1f s of CPU time, try %d of %d)", b.Machine, how, b.Took.Seconds(),
		b.CPU.Seconds(), b.Try, bootTries)
}

// bootTries is how often a machine is started before the run fails. The program in it is never run again.
const bootTries = 3

// Limits of a boot. The elapsed time depends on the computer's other load, but the work does not, so the limit that
// matters is QEMU's CPU time. A boot needs 4 seconds of it, a complete Debian 12 to 21, and up to twice as much on a
// busy computer.
const (
	bootCPU   = 90 * time.Second
	bootIdle  = 30 * time.Second // without work: it waits for something that never comes
	bootLimit = 5 * time.Minute
	bootPoll  = 50 * time.Millisecond
)

// stalls are messages of a kernel that has stopped before it has started completely.
var stalls = []string{"detected stalls on CPUs", "self-detected stall on CPU", "soft lockup - CPU", "Kernel panic"}

// bootError says that a machine did not start. Another try may succeed.
type bootError struct {
	Boot
	console string
}

func (e *bootError) Error() string {
	return fmt.Sprintf("the virtual machine does not boot: %v\n%s", e.Boot, e.console)
}

type bootLimits struct{ cpu, idle, clock time.Duration }

// bootWatch monitors one start of a machine.
type bootWatch struct {
	boot    Boot
	pid     int
	console string // path of the file with the kernel's messages
	began   time.Time
	limits  bootLimits

	worked   time.Time // last time with new CPU time
	workedAt time.Duration
}

func watchBoot(machine string, try, pid int, console string) *bootWatch {
	now := time.Now()
	return &bootWatch{boot: Boot{Machine: machine, Try: try}, pid: pid, console: console, began: now, worked: now,
		limits: bootLimits{bootCPU, bootIdle, bootLimit}}
}

// ended records how long the boot took.
func (w *bootWatch) ended() Boot {
	w.boot.Took, w.boot.CPU = time.Since(w.began), cpuTime(w.pid)
	return w.boot
}

// failure returns why the boot must be given up, or "".
func (w *bootWatch) failure() string {
	used := cpuTime(w.pid)
	if idle := w.limits.idle / 300; used-w.workedAt > idle { // less than that counts as idle
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

// failed returns an error for the boot.
func (w *bootWatch) failed(why string) *bootError {
	boot := w.ended()
	boot.Failure = why
	return &bootError{boot, readLog(w.console)}
}

// cpuTime returns the CPU time of a process (proc_pid_stat(5)); 0 if it has ended.
func cpuTime(pid int) time.Duration {
	const (
		userTicks  = 11  // index after the program's name
		clockTicks = 100 // per second (USER_HZ)
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

// note reports a boot to Booted, and a failed one also on stderr.
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

// saysStarted reports whether the console contains the word of a second machine's agent.
func saysStarted(console, word string) bool {
	file, err := os.Open(console)
	if err != nil {
		return false
	}
	defer file.Close()
	data, err := io.ReadAll(file)
	return err == nil && strings.Contains(string(data), word)
}
