// Package keys keeps an emulated kernel from altering its code for packets while tests run, which it does for the first
// user of a thing and after the last (static keys, Documentation/staging/static-keys.rst): QEMU 7.2 without KVM may go
// on with the breakpoint that stands there for that moment, and each CPU that comes by then hangs or dies of it
// (docs/dev/lab.md).
package keys

import (
	"fmt"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// hooks are of every kind that a test adds or removes; no packet meets the chain that is no hook.
const hooks = `table netdev lab {
	chain ingress { type filter hook ingress device lo priority 0; policy accept; }
}
table inet lab {
	chain prerouting { type filter hook prerouting priority 0; policy accept; }
	chain input { type filter hook input priority 0; policy accept; }
	chain forward { type filter hook forward priority 0; policy accept; }
	chain output { type filter hook output priority 0; policy accept; }
	chain postrouting { type filter hook postrouting priority 0; policy accept; }
	chain traced { meta nftrace set 0; }
}
`

// Hold uses, in the network namespace that the caller's thread is in, and as long as this process and that namespace
// live: hooks of netfilter (ingress_needed_key, nf_hooks_needed), its traces (nft_trace_enabled), and time stamps
// (netstamp_needed_key: ping, packet sockets).
func Hold() error {
	nft := exec.Command("nft", "-f", "-")
	nft.Stdin = strings.NewReader(hooks)
	if out, err := nft.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, out)
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if err := unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_TIMESTAMP, 1); err != nil {
		return fmt.Errorf("SO_TIMESTAMP: %w", err)
	}
	return nil
}
