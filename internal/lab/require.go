//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"time"
)

// Environment is the variable that says where lab tests run: "vm" is set by labctl exec in its virtual machine. Set it
// to "host" to use the machine's own kernel.
const Environment = "DS4RELAY_LAB"

// Require returns an error with advice if lab tests cannot run on this machine.
func Require() error {
	switch where := os.Getenv(Environment); where {
	case "vm":
		return nil
	case "host":
		return requireHost()
	default:
		return fmt.Errorf("lab tests change the network of the machine: run them with "+
			"go test -exec \"labctl exec --\", or with %s=host as root on a kernel with ip6_tunnel (%s=%q)",
			Environment, Environment, where)
	}
}

func requireHost() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%s=host needs root", Environment)
	}
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		return errors.New("this kernel has no IPv6")
	}
	if _, err := os.Stat("/sys/module/ip6_tunnel"); err == nil {
		return nil
	}
	if out, err := exec.Command("modprobe", "ip6_tunnel").CombinedOutput(); err != nil {
		return fmt.Errorf("this kernel has no ip6_tunnel (modprobe: %w: %s): use labctl exec instead",
			err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Main is the TestMain of a package of lab tests: it runs them if Require allows it, and fails otherwise. It fails too
// if they leave the clock wrong, which tests after them in the same machine would find.
func Main(m interface{ Run() int }) {
	if err := Require(); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
	// On an emulated CPU, garbage collection costs more than the memory that it frees.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(600 << 20)
	began := time.Now()
	code := m.Run()
	if off := clockOff(began, time.Now()); off.Abs() > time.Minute {
		fmt.Fprintf(os.Stderr, "lab: a test has left the machine's clock wrong, by %v\n", off.Round(time.Second))
		code = 1
	}
	os.Exit(code)
}

// clockOff returns by how much the clock has been set between two readings, of which each has a monotonic part too.
func clockOff(began, now time.Time) time.Duration {
	return now.Round(0).Sub(began.Round(0)) - now.Sub(began)
}
