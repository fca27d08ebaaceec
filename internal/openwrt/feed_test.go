package openwrt

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	feedMakefile = "../../openwrt/ds4relay/Makefile"
	luciMakefile = "../../luci-app/luci-app-ds4relay/Makefile"
)

// assignments returns the values that a makefile gives a variable.
func assignments(t *testing.T, path, variable string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	for _, m := range regexp.MustCompile(`(?m)^ *`+variable+`:=(.*)$`).FindAllSubmatch(text, -1) {
		values = append(values, string(m[1]))
	}
	return values
}

// TestFeeds: the makefiles are as OpenWrt's feeds want them, and only the page's package grants rights.
func TestFeeds(t *testing.T) {
	for path, lines := range map[string][]string{
		feedMakefile: {"include ../../lang/golang/golang-package.mk", "PKG_LICENSE:=Apache-2.0",
			"PKG_SOURCE:=$(PKG_NAME)-$(PKG_VERSION).tar.gz",
			"PKG_SOURCE_URL:=https://codeload.github.com/ds4relay/ds4relay/tar.gz/v$(PKG_VERSION)?",
			"GO_PKG_LDFLAGS_X:=main.version=$(PKG_VERSION) main.commit=v$(PKG_VERSION)"},
		luciMakefile: {"include ../../luci.mk", "PKG_LICENSE:=Apache-2.0",
			"# call BuildPackage - OpenWrt buildroot signature"},
	} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range lines {
			if !strings.Contains("\n"+string(text), "\n"+line+"\n") {
				t.Errorf("%s: the feed wants the line %s", path, line)
			}
		}
		if strings.Contains(string(text), "$(TOPDIR)/feeds/") {
			t.Errorf("%s names another feed by its path, which the feeds do not accept", path)
		}
	}
	if menus := assignments(t, feedMakefile, "SUBMENU"); !slices.Equal(menus, []string{"VPN", "VPN"}) {
		t.Errorf("the submenus are %q, want VPN for both programs", menus)
	}
	if hash := assignments(t, feedMakefile, "PKG_HASH"); !slices.Equal(hash, []string{"skip"}) {
		t.Errorf("PKG_HASH is %q: a makefile inside the archive cannot know its hash", hash)
	}
	var rights []string
	for _, dir := range []string{files, filepath.Dir(luciMakefile)} {
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if strings.Contains(path, "/acl.d/") {
				rights = append(rights, filepath.Base(path))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(rights, []string{"luci-app-ds4relay.json"}) {
		t.Errorf("the ACL files are %q, want the page's only", rights)
	}
}

// TestFeedVersion: the feed's version test passes with what its makefile builds, and with no other version.
func TestFeedVersion(t *testing.T) {
	version := assignments(t, feedMakefile, "PKG_VERSION")
	if len(version) != 1 {
		t.Fatal(version)
	}
	dir := t.TempDir()
	build := exec.Command("go", "build", "-tags", "openwrt", "-ldflags", "-X main.version="+version[0], "-o", dir+"/",
		"../../cmd/ds4relay", "../../cmd/ds4relay-proxy")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, c := range []struct {
		name, version string
		passes        bool
	}{
		{"ds4relay", version[0], true},
		{"ds4relay-proxy", version[0], true},
		{"prometheus-node-exporter-lua-ds4relay", version[0], true},
		{"ds4relay", version[0] + ".1", false},
		{"ds4relay-proxy", version[0] + ".1", false},
		{"ds4relay", version[0][:len(version[0])-1], false},
	} {
		test := exec.Command("sh", "../../openwrt/ds4relay/test.sh", c.name, c.version)
		test.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
		out, err := test.CombinedOutput()
		if (err == nil) != c.passes {
			t.Errorf("test.sh %s %s: %v %s", c.name, c.version, err, out)
		}
	}
}

// TestFeedHash: the hash is that of the tag's archive, which does not depend on the work tree, and needs the tag.
func TestFeedHash(t *testing.T) {
	dir := t.TempDir()
	for from, to := range map[string]string{"../../scripts/common.sh": "scripts/common.sh",
		"../../scripts/feed-hash": "scripts/feed-hash", feedMakefile: "openwrt/ds4relay/Makefile"} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		to = filepath.Join(dir, to)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	run := func(command string) (string, error) {
		c := exec.Command("sh", "-c", command)
		c.Dir = dir
		c.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
		for _, who := range []string{"AUTHOR", "COMMITTER"} {
			c.Env = append(c.Env, "GIT_"+who+"_NAME=x", "GIT_"+who+"_EMAIL=x@localhost",
				"GIT_"+who+"_DATE=2026-11-30T12:00:00Z")
		}
		out, err := c.CombinedOutput()
		return string(out), err
	}
	if out, err := run("git init -q && git add . && git commit -qm x"); err != nil {
		t.Fatal(err, out)
	}
	tag := "v" + assignments(t, feedMakefile, "PKG_VERSION")[0]
	if out, err := run("scripts/feed-hash"); err == nil || !strings.Contains(out, "there is no tag "+tag+" yet") {
		t.Errorf("without the tag: %v %s", err, out)
	}
	// The first file of the archive is the directory that OpenWrt builds in.
	const unpacked = "git -c tar.tar.gz.command='gzip -cn' archive --format=tar.gz --prefix=ds4relay-%/ v% >t.tar.gz && " +
		"tar tzf t.tar.gz | head -n 1 && sha256sum <t.tar.gz"
	want, err := run("git tag " + tag + " && " + strings.ReplaceAll(unpacked, "%", tag[1:]))
	if err != nil {
		t.Fatal(err, want)
	}
	first, sum, _ := strings.Cut(strings.TrimSuffix(want, "  -\n"), "\n")
	if first != "ds4relay-"+tag[1:]+"/" {
		t.Errorf("the archive begins with %s", first)
	}
	if out, err := run("echo more >>scripts/common.sh && scripts/feed-hash"); err != nil || out != "PKG_HASH:="+sum+"\n" {
		t.Errorf("%v %s, want %s", err, out, sum)
	}
}
