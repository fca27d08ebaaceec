//go:build !openwrt

package kernel

import (
	"os"
	"path/filepath"
	"testing"
)

// TestBackends: whichever kind of tables iptables is about on a machine, the other one has a name of its own.
func TestBackends(t *testing.T) {
	for target, want := range map[string][2]string{
		"xtables-nft-multi":    {"iptables", "iptables-legacy"},
		"xtables-legacy-multi": {"iptables-nft", "iptables"},
		"":                     {"iptables", "iptables-legacy"}, // iptables is not installed
	} {
		dir := t.TempDir()
		t.Setenv("PATH", dir)
		if target != "" {
			if err := os.WriteFile(filepath.Join(dir, target), []byte("#!/bin/sh\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(target, filepath.Join(dir, "iptables")); err != nil {
				t.Fatal(err)
			}
		}
		got := backends("iptables")
		if len(got) != 2 || got[0].program != want[0] || got[1].program != want[1] || got[0].names != "" ||
			got[1].names != "/proc/thread-self/net/ip_tables_names" {
			t.Errorf("%q: %+v, want %v", target, got, want)
		}
	}
}
