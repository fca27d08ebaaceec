package openwrt

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestPackages reads the packages in a directory like opkg and apk do: `make test-packages` builds them.
func TestPackages(t *testing.T) {
	dir := os.Getenv("DS4RELAY_PACKAGES")
	if dir == "" {
		t.Skip("DS4RELAY_PACKAGES names no directory of packages")
	}
	wanted := map[string][]string{
		"ds4relay_": {"etc/config/ds4relay", "etc/init.d/ds4relay", "etc/init.d/ds4relay-killswitch",
			"lib/upgrade/keep.d/ds4relay", "usr/libexec/rpcd/ds4relay", "usr/sbin/ds4relay",
			"usr/share/licenses/ds4relay/copyright.gz"},
		"ds4relay-proxy_": {"etc/init.d/ds4relay-proxy", "usr/sbin/ds4relay-proxy",
			"usr/share/licenses/ds4relay-proxy/copyright.gz"},
		"prometheus-node-exporter-lua-ds4relay_": {"usr/lib/lua/prometheus-collectors/ds4relay.lua"},
		"luci-app-ds4relay": {"usr/share/luci/menu.d/luci-app-ds4relay.json",
			"usr/share/rpcd/acl.d/luci-app-ds4relay.json", "www/luci-static/resources/view/ds4relay/overview.js"},
		"luci-i18n-ds4relay-": {"etc/uci-defaults/luci-i18n-ds4relay-de", "usr/lib/lua/luci/i18n/ds4relay.de.lmo"},
	}
	found := map[string]int{}
	packages, err := filepath.Glob(filepath.Join(dir, "*.[ia]pk"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range packages {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name, _, _ := strings.Cut(filepath.Base(path), "_")
		contents := map[string]string{}
		for _, archive := range archives(t, path, data) {
			for {
				header, err := archive.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatalf("%s: %v", path, err)
				}
				text, err := io.ReadAll(archive)
				if err != nil {
					t.Fatalf("%s: %v", path, err)
				}
				file := strings.Trim(strings.TrimPrefix(header.Name, "."), "/")
				contents[file] = string(text)
				// opkg reads modes with bits beyond the permissions as 0000.
				executable := executables.MatchString(file)
				switch {
				case header.Typeflag == tar.TypeDir && header.Mode != 0o755,
					header.Typeflag == tar.TypeReg && executable && header.Mode != 0o755,
					header.Typeflag == tar.TypeReg && header.Mode&0o444 != 0o444 && file != "PKGINFO":
					t.Errorf("%s: %s has mode %o", filepath.Base(path), header.Name, header.Mode)
				}
			}
		}
		if program, has := contents["usr/sbin/"+name]; has && !commits.MatchString(program) {
			t.Errorf("%s: the program does not know its commit", filepath.Base(path))
		}
		for _, problem := range problems(name, contents) {
			t.Errorf("%s: %s", filepath.Base(path), problem)
		}
		for prefix, files := range wanted {
			if !strings.HasPrefix(filepath.Base(path), prefix) {
				continue
			}
			found[prefix]++
			if filepath.Ext(path) == ".apk" {
				files = append([]string{"lib/apk/packages/" + name + ".list", "post-upgrade"}, files...)
			}
			for _, file := range files {
				if _, ok := contents[file]; !ok {
					t.Errorf("%s has no %s", filepath.Base(path), file)
				}
			}
		}
	}
	for prefix := range wanted {
		if found[prefix] < 2 {
			t.Errorf("%d packages of %s, want an .ipk and an .apk", found[prefix], prefix)
		}
	}
}

// executables matches files that must be executable, commits the commit in a program, and appliesAll a script that
// applies all pending changes of the owner.
var (
	executables = regexp.MustCompile(`^(etc/init\.d|usr/sbin|usr/libexec)/`)
	commits     = regexp.MustCompile(`[0-9a-f]{12}(-dirty)?, 20\d\d-\d\d-\d\d`)
	appliesAll  = regexp.MustCompile(`(?m)^[^#]*\breload_config\b|uci commit *($|;)`)
)

// problems lists side effects of a package with these files and scripts on the rest of a router.
func problems(name string, contents map[string]string) (found []string) {
	report := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	services := strings.HasPrefix(name, "ds4relay")
	for file, text := range contents {
		base, _ := strings.CutPrefix(file, "post-")
		switch {
		case strings.HasPrefix(file, "lib/upgrade/keep.d/"):
			// sysupgrade would overwrite the newer image's files with those listed there.
			allowed := []string{"/etc/ds4relay/\n", "/etc/apk/keys/ds4relay.rsa.pub\n"} // records and keys; our feed's key
			for line := range strings.Lines(text) {
				if !strings.HasPrefix(line, "/etc/config/") && !slices.Contains(allowed, line) {
					report("%s has sysupgrade keep %s", file, strings.TrimSpace(line))
				}
			}
		case strings.HasPrefix(file, "etc/uci-defaults/") && services:
			report("with %s, opkg commits every edit that the owner has not saved yet", file)
		case base == "install", base == "upgrade", base == "postinst":
			if services && !regexp.MustCompile(`(?m)^export .*pkgname=`+name+`( |$)`).MatchString(text) {
				report("%s does not name the package:\n%s", file, text)
			}
			if upgrade := strings.Contains(text, "PKG_UPGRADE=1"); services && upgrade != (base == "upgrade") {
				report("%s counts as an upgrade: %v", file, upgrade)
			}
		}
		if appliesAll.MatchString(text) && !strings.HasPrefix(text, "\x7fELF") {
			report("%s applies edits of the owner's in other files", file)
		}
	}
	return found
}

// TestProblems: each kind of problem is found.
func TestProblems(t *testing.T) {
	for _, c := range []struct{ file, text, want string }{
		{"lib/upgrade/keep.d/ds4relay", "/etc/config/ds4relay\n/etc/ds4relay/\n", ""},
		{"lib/upgrade/keep.d/ds4relay", "/etc/config/ds4relay\n/usr/sbin/ds4relay\n",
			"has sysupgrade keep /usr/sbin/ds4relay"},
		{"etc/uci-defaults/90-ds4relay", "exit 0\n", "opkg commits every edit"},
		{"postinst", "export pkgname=ds4relay\n# as reload_config does\n", ""},
		{"postinst", "export pkgname=ds4relay-proxy\n", "does not name the package"},
		{"post-upgrade", "export pkgname=ds4relay\n", "counts as an upgrade: false"},
		{"postinst", "export pkgname=ds4relay\nreload_config\n", "applies edits"},
		{"postinst", "export pkgname=ds4relay\nuci commit\n", "applies edits"},
	} {
		found := problems("ds4relay", map[string]string{c.file: c.text})
		if (c.want == "") != (len(found) == 0) || !strings.Contains(strings.Join(found, "\n"), c.want) {
			t.Errorf("%s %q: found %q, want %q", c.file, c.text, found, c.want)
		}
	}
}

// archives returns the archives with a package's files and scripts: control.tar.gz and data.tar.gz of an .ipk; an .apk
// consists of consecutive archives.
func archives(t *testing.T, path string, data []byte) (archives []*tar.Reader) {
	t.Helper()
	unpacked := func(r io.Reader) []byte {
		t.Helper()
		packed, err := gzip.NewReader(r)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		content, err := io.ReadAll(packed)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		return content
	}
	content := unpacked(bytes.NewReader(data))
	if filepath.Ext(path) == ".apk" {
		return []*tar.Reader{tar.NewReader(bytes.NewReader(content))}
	}
	for archive := tar.NewReader(bytes.NewReader(content)); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) && len(archives) == 2 {
			return archives
		}
		if err != nil {
			t.Fatalf("%s: %d archives, want 2: %v", path, len(archives), err)
		}
		if strings.HasSuffix(header.Name, ".tar.gz") {
			archives = append(archives, tar.NewReader(bytes.NewReader(unpacked(archive))))
		}
	}
}
