package openwrt

import (
	"crypto/md5"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// installation is a directory in which a package's script runs under busybox ash, with stand-ins that record their
// calls.
func installation(t *testing.T, script string) (run func(env ...string) (calls string), path func(name string) string) {
	t.Helper()
	dir := t.TempDir()
	path = func(name string) string { return filepath.Join(dir, name) }
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(path(name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join("../../openwrt/scripts", script))
	if err != nil {
		t.Fatal(err)
	}
	write("script", strings.NewReplacer("/lib/functions.sh", path("functions.sh"), "/etc/init.d/rpcd", path("rpcd"),
		"/etc/init.d/prometheus-node-exporter-lua", path("exporter"),
		"/etc/init.d/ds4relay-killswitch", path("killswitch"), "/etc/init.d/ds4relay", path("service"),
		"/etc/ds4relay", path("etc"), "/var/run/config.md5", path("config.md5"), "/etc/uci-defaults", dir,
		"/tmp/luci-indexcache", path("luci-indexcache"), "@PACKAGE@", "luci-i18n-ds4relay-de").Replace(string(text)))
	write("functions.sh", `default_postinst() { echo "default_postinst $pkgname" >>"$CALLS"; }`+"\n")
	for _, program := range []string{"rpcd", "reload_config", "ubus", "killswitch", "service", "exporter"} {
		write(program, "#!/bin/sh\necho \""+program+" $*\" >>\"$CALLS\"\n")
	}
	write("uci", `#!/bin/sh
case "$*" in
"-q show ds4relay") echo "ds4relay.home=relay" ;;
*) echo "uci $*" >>"$CALLS" ;;
esac
`)
	return func(env ...string) string {
		t.Helper()
		cmd := exec.Command("busybox", "ash", path("script"), "configure")
		cmd.Env = append([]string{"PATH=" + dir + ":" + os.Getenv("PATH"), "CALLS=" + path("calls")}, env...)
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s %v: %v %s", script, env, err, out)
		}
		data, err := os.ReadFile(path("calls"))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		os.Remove(path("calls"))
		return string(data)
	}, path
}

// TestInstallNotesOnlyOurs: an installation neither applies nor commits the owner's pending edits; reload_config
// notices later changes of our file.
func TestInstallNotesOnlyOurs(t *testing.T) {
	run, path := installation(t, "postinst")
	// The checksum of network is from before the owner's edit. Ours is that of uci's output.
	const network = "d41d8cd98f00b204e9800998ecf8427e  /var/run/config.check/network\n"
	sum := md5.Sum([]byte("ds4relay.home=relay\n"))
	noted := network + fmt.Sprintf("%x  /var/run/config.check/ds4relay\n", sum)
	if err := os.WriteFile(path("config.md5"), []byte(network), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"the first installation", "an installation once more"} {
		if calls := run(); calls != "rpcd reload\ndefault_postinst ds4relay\n" {
			t.Errorf("%s calls\n%s", when, calls)
		}
		if text, err := os.ReadFile(path("config.md5")); err != nil || string(text) != noted {
			t.Errorf("after %s it is noted (%v):\n%swant\n%s", when, err, text, noted)
		}
		for _, dir := range []string{"etc", "etc/keys"} {
			info, err := os.Stat(path(dir))
			if err != nil || info.Mode() != os.ModeDir|0o700 {
				t.Errorf("after %s: the directory for keys: %v, %v", when, info, err)
			}
			_ = os.Chmod(path(dir), 0o755)
		}
	}
	image := t.TempDir()
	if err := os.MkdirAll(filepath.Join(image, filepath.Dir(path("functions.sh"))), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(path("functions.sh"), filepath.Join(image, path("functions.sh"))); err != nil {
		t.Fatal(err)
	}
	if calls := run("IPKG_INSTROOT=" + image); calls != "default_postinst ds4relay\n" {
		t.Errorf("in an image it calls\n%s", calls)
	}
}

// TestUpgradeEnables: an upgrade enables a new script if the service is enabled.
func TestUpgradeEnables(t *testing.T) {
	run, path := installation(t, "postinst")
	const upgrade, first = "service enabled\nkillswitch enable\n", "rpcd reload\n"
	if calls := run("PKG_UPGRADE=1"); calls != first+upgrade+"default_postinst ds4relay\n" {
		t.Errorf("an upgrade calls\n%s", calls)
	}
	if err := os.WriteFile(path("service"), []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if calls := run("PKG_UPGRADE=1"); calls != first+"default_postinst ds4relay\n" {
		t.Errorf("with the service disabled it calls\n%s", calls)
	}
}

// TestTranslationCommitsOnlyLuCI: installing a translation registers its language, and commits no other edits of the
// owner.
func TestTranslationCommitsOnlyLuCI(t *testing.T) {
	run, path := installation(t, "luci-postinst")
	defaults := path("luci-i18n-ds4relay-de")
	const language = "uci set luci.languages.de='Deutsch (German)'; uci commit luci\n"
	if err := os.WriteFile(defaults, []byte(language), 0o644); err != nil {
		t.Fatal(err)
	}
	if calls := run("IPKG_INSTROOT=/nowhere"); calls != "" {
		t.Errorf("in an image it calls\n%s", calls)
	}
	if calls := run(); calls != "uci set luci.languages.de=Deutsch (German)\nuci commit luci\nrpcd reload\n" {
		t.Errorf("it calls\n%s", calls)
	}
	if _, err := os.Stat(defaults); !os.IsNotExist(err) {
		t.Errorf("what is done stays in uci-defaults: %v", err)
	}
	if calls := run(); calls != "rpcd reload\n" {
		t.Errorf("without a translation it calls\n%s", calls)
	}
}

// TestCollector: the exporter looks for collectors when it starts, so it is restarted, but not in an image.
func TestCollector(t *testing.T) {
	run, _ := installation(t, "collector")
	if calls := run("IPKG_INSTROOT=/image"); calls != "" {
		t.Errorf("in an image: %s", calls)
	}
	if calls := run(); calls != "exporter enabled\nexporter restart\n" {
		t.Errorf("on a router: %s", calls)
	}
}
