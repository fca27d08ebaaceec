// Package keys stops an emulated kernel from patching its packet code while tests run. The kernel patches code when the
// first user of a feature appears and when the last one leaves (static keys, Documentation/staging/static-keys.rst).
// QEMU 7.2 without KVM may keep executing the breakpoint that stands there meanwhile, and a CPU that meets it hangs or
// crashes (docs/dev/lab.md).
package keys

import (
	"fmt"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// hooks has every kind of hook that a test adds or removes. No packet reaches the chain without a hook.
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

// Hold uses these features in the calling thread's network namespace for as long as this process and the namespace
// exist: netfilter hooks (ingress_needed_key, nf_hooks_needed), tracing (nft_trace_enabled) and time stamps
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
