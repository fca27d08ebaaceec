//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
)

// Environment names the variable that says where lab tests run: "vm" is set by labctl exec in its virtual machine,
// "host" is set by a person who wants the machine's own kernel.
const Environment = "DS4RELAY_LAB"

// Require returns an error that says what to do if this machine is not one for lab tests.
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

// Main is the TestMain of a package of lab tests: it runs them where Require allows it, and fails elsewhere.
func Main(m interface{ Run() int }) {
	if err := Require(); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
	// On an emulated CPU collecting garbage costs more than the machine's memory does.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(600 << 20)
	os.Exit(m.Run())
}
