//go:build !openwrt

package probe

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
)

// loadable reports whether the kernel may load a module: an administrator can stop that for all (sysctl
// kernel.modules_disabled), or for one, with a line `install NAME /bin/false` (modprobe.d(5)).
func loadable(root, name string) bool {
	disabled, err := os.ReadFile(filepath.Join(root, "proc/sys/kernel/modules_disabled"))
	if err == nil && string(bytes.TrimSpace(disabled)) == "1" {
		return false
	}
	for _, dir := range []string{"etc", "run", "usr/lib", "lib"} {
		files, err := filepath.Glob(filepath.Join(root, dir, "modprobe.d/*.conf"))
		if err != nil {
			return true
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				continue
			}
			for line := range strings.Lines(string(data)) {
				words := strings.Fields(line)
				if len(words) == 3 && words[0] == "install" && strings.ReplaceAll(words[1], "-", "_") == name &&
					(filepath.Base(words[2]) == "false" || filepath.Base(words[2]) == "true") {
					return false
				}
			}
		}
	}
	return true
}
