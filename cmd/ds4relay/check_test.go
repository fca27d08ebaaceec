package main

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/kernel/fake"
	"github.com/ds4relay/ds4relay/internal/reconcile"
)

// TestCheckMachine: check without a file says what up says, with exit status 1; a file alone is correct.
func TestCheckMachine(t *testing.T) {
	const relay = "config relay 'home'\n\toption role 'vps'\n\toption ipaddr '198.51.100.144'\n\toption ip6addr " +
		"'2001:db8:6ef9::/64'\n\toption peeraddr 'home.example.org'\n\toption device 'wrap1'\nconfig forward 'web'\n" +
		"\toption src_dport '443'\n\toption dest_ip '192.168.1.210'\n"
	for says, breaks := range map[string]func(*fake.Kernel){
		"there is a device wrap1 already": func(k *fake.Kernel) { k.Devices = append(k.Devices, "wrap1") },
		"no address of home.example.org":  func(k *fake.Kernel) { k.Names = nil },
	} {
		file := filepath.Join(t.TempDir(), "config")
		if err := os.WriteFile(file, []byte(relay), 0o600); err != nil {
			t.Fatal(err)
		}
		k := fake.New("eth0")
		k.Names = map[string][]netip.Addr{"home.example.org": {netip.MustParseAddr("2001:db8:fdd2::1")}}
		breaks(k)
		run := func(args ...string) (int, string) {
			var said bytes.Buffer
			a := &app{stdout: &said, stderr: &said, env: func(string) string { return "" },
				apply: func(reconcile.Kernel) reconcile.Kernel { return k }}
			return a.main(append([]string{"--run", t.TempDir()}, args...)), said.String()
		}
		if status, said := run("-c", file, "check"); status != exitFailed || !strings.Contains(said, says) {
			t.Errorf("check: %d %s, want %s", status, said, says)
		}
		if status, said := run("-c", file, "up"); status != exitFailed || !strings.Contains(said, says) {
			t.Errorf("up: %d %s, want %s", status, said, says)
		}
		if status, said := run("check", file); status != 0 || !strings.Contains(said, "correct (relays: 1") {
			t.Errorf("check FILE: %d %s", status, said)
		}
	}
}
