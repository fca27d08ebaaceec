package probe

import (
	"os"
	"path/filepath"
	"testing"
)

// TestLoadable: a module that an administrator has forbidden cannot be loaded.
func TestLoadable(t *testing.T) {
	for file, c := range map[string]struct {
		text string
		want bool
	}{
		"etc/modprobe.d/hardening.conf":    {"# tunnels\ninstall ip6-tunnel /bin/false\n", false},
		"usr/lib/modprobe.d/x.conf":        {"install ip6_tunnel /usr/bin/true\n", false},
		"etc/modprobe.d/other.conf":        {"install sctp /bin/false\nblacklist ip6_tunnel\n", true},
		"etc/modprobe.d/script.conf":       {"install ip6_tunnel /sbin/modprobe -i ip6_tunnel\n", true},
		"proc/sys/kernel/modules_disabled": {"1\n", false},
	} {
		root := t.TempDir()
		path := filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := loadable(root, "ip6_tunnel"); got != c.want {
			t.Errorf("%s: %v", file, got)
		}
	}
}
