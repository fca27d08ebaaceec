package openwrt

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestPackages looks into the packages of a directory, as opkg and apk will: `make test-packages` builds them.
func TestPackages(t *testing.T) {
	dir := os.Getenv("DS4RELAY_PACKAGES")
	if dir == "" {
		t.Skip("DS4RELAY_PACKAGES names no directory of packages")
	}
	wanted := map[string][]string{
		"ds4relay_":           {"etc/config/ds4relay", "etc/init.d/ds4relay", "etc/uci-defaults/90-ds4relay", "lib/upgrade/keep.d/ds4relay", "usr/libexec/rpcd/ds4relay", "usr/sbin/ds4relay", "usr/share/rpcd/acl.d/ds4relay.json"},
		"ds4relay-proxy_":     {"etc/init.d/ds4relay-proxy", "lib/upgrade/keep.d/ds4relay-proxy", "usr/sbin/ds4relay-proxy"},
		"luci-app-ds4relay":   {"usr/share/luci/menu.d/luci-app-ds4relay.json", "usr/share/rpcd/acl.d/luci-app-ds4relay.json", "www/luci-static/resources/view/ds4relay/overview.js"},
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
		var names []string
		for _, archive := range archives(t, path, data) {
			for {
				header, err := archive.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatalf("%s: %v", path, err)
				}
				name := strings.Trim(strings.TrimPrefix(header.Name, "."), "/")
				names = append(names, name)
				// A mode beyond the permissions is written in a way that opkg reads as 0000.
				executable := strings.HasPrefix(name, "etc/init.d/") || strings.HasPrefix(name, "usr/sbin/") || strings.HasPrefix(name, "usr/libexec/")
				switch {
				case header.Typeflag == tar.TypeDir && header.Mode != 0o755,
					header.Typeflag == tar.TypeReg && executable && header.Mode != 0o755,
					header.Typeflag == tar.TypeReg && header.Mode&0o444 != 0o444 && name != "PKGINFO":
					t.Errorf("%s: %s has mode %o", filepath.Base(path), header.Name, header.Mode)
				}
			}
		}
		for prefix, files := range wanted {
			if !strings.HasPrefix(filepath.Base(path), prefix) {
				continue
			}
			found[prefix]++
			if filepath.Ext(path) == ".apk" {
				name, _, _ := strings.Cut(filepath.Base(path), "_")
				files = append([]string{"lib/apk/packages/" + name + ".list", "post-upgrade"}, files...)
			}
			for _, file := range files {
				if !slices.Contains(names, file) {
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

// archives are those with the files of a package: data.tar.gz of an .ipk; an .apk is archives one after the other.
func archives(t *testing.T, path string, data []byte) []*tar.Reader {
	t.Helper()
	outer, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(outer)
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Ext(path) == ".apk" {
		return []*tar.Reader{tar.NewReader(bytes.NewReader(content))}
	}
	for archive := tar.NewReader(bytes.NewReader(content)); ; {
		header, err := archive.Next()
		if err != nil {
			t.Fatalf("%s: no data.tar.gz: %v", path, err)
		}
		if strings.HasSuffix(header.Name, "data.tar.gz") {
			inner, err := gzip.NewReader(archive)
			if err != nil {
				t.Fatal(err)
			}
			return []*tar.Reader{tar.NewReader(inner)}
		}
	}
}
