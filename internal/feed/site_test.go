package feed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestPackages checks a release: what its signatures are good for, with the programs of those who install from it.
// scripts/test-packages makes DS4RELAY_RELEASE: packages, site, keys, and othersite, which other keys have signed.
func TestPackages(t *testing.T) {
	release := os.Getenv("DS4RELAY_RELEASE")
	if release == "" {
		t.Skip("no DS4RELAY_RELEASE: scripts/test-packages makes it")
	}
	t.Run("apt", func(t *testing.T) { testApt(t, release) })
	t.Run("opkg", func(t *testing.T) { testOpkg(t, release) })
	t.Run("apk", func(t *testing.T) { testAPK(t, release) })
	t.Run("sums", func(t *testing.T) { testSums(t, release) })
	t.Run("add-feed", func(t *testing.T) { testAddFeed(t, release) })
}

// command runs a program, and returns its output.
func command(env []string, name string, args ...string) (string, error) {
	ctx, stop := context.WithTimeout(context.Background(), 5*time.Minute)
	defer stop()
	c := exec.CommandContext(ctx, name, args...)
	c.Env = append(os.Environ(), env...)
	out, err := c.CombinedOutput()
	return string(out), err
}

// copied is a copy of a folder that a test may alter.
func copied(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// alter changes a byte in the middle of each file that matches.
func alter(t *testing.T, pattern string) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %v, %d files", pattern, err, len(files))
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 1
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// testApt: real apt takes the package from the repository, over http, and nothing that somebody has altered.
func testApt(t *testing.T, release string) {
	const pool, suite = "debian/pool/main/d/ds4relay/", "debian/dists/stable/"
	for _, c := range []struct {
		what           string
		alter          func(site string)
		update, wanted string // what apt says if it refuses the index, and the package
	}{
		{"as published", func(string) {}, "", ""},
		{"the package is altered", func(site string) { alter(t, site+"/"+pool+"*.deb") }, "", "Hash Sum mismatch"},
		{"the index is altered", func(site string) { alter(t, site+"/"+suite+"main/*/Packages*") }, "Hash Sum mismatch", ""},
		{"the list of the indexes is altered", func(site string) {
			for _, name := range []string{"InRelease", "Release"} {
				replace(t, filepath.Join(site, suite, name), "Suite: stable", "Suite: stabel")
			}
		}, "signature", ""},
		{"the signatures are gone", func(site string) {
			os.Remove(filepath.Join(site, suite, "InRelease"))
			os.Remove(filepath.Join(site, suite, "Release.gpg"))
		}, "is not signed", ""},
		{"somebody else has signed it", func(site string) {
			os.RemoveAll(filepath.Join(site, suite))
			if err := os.CopyFS(filepath.Join(site, suite), os.DirFS(filepath.Join(release, "othersite", suite))); err != nil {
				t.Fatal(err)
			}
		}, "is not signed", ""},
	} {
		site := copied(t, filepath.Join(release, "site"))
		sources := filepath.Join(site, "debian/ds4relay.sources")
		c.alter(site)
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: http.FileServer(http.Dir(site)), ReadHeaderTimeout: time.Minute}
		go server.Serve(listener)
		t.Cleanup(func() { server.Close() })
		url := "http://" + listener.Addr().String()
		replace(t, sources, "https://ds4relay.github.io/ds4relay", url)

		apt := newApt(t, sources)
		out, err := command(apt, "apt-get", "-o", "APT::Update::Error-Mode=any", "update")
		if refused := err != nil; refused != (c.update != "") || !strings.Contains(out, c.update) {
			t.Errorf("%s: apt-get update: %v\n%s\nwant %q", c.what, err, out, c.update)
		}
		if c.update != "" {
			continue
		}
		download := t.TempDir()
		out, err = command(apt, "sh", "-c", "cd "+download+" && apt-get -y download ds4relay")
		if refused := err != nil; refused != (c.wanted != "") || !strings.Contains(out, c.wanted) {
			t.Errorf("%s: apt-get download: %v\n%s\nwant %q", c.what, err, out, c.wanted)
		}
		if files, _ := filepath.Glob(download + "/*.deb"); len(files) != 1 && c.wanted == "" {
			t.Errorf("%s: files: %q", c.what, files)
		}
	}
}

// newApt makes the configuration of an apt that has only these sources, and changes nothing of the machine's own. It
// returns its environment.
func newApt(t *testing.T, sources string) []string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"etc/apt.conf.d", "etc/preferences.d", "etc/trusted.gpg.d", "state/lists/partial",
		"cache/archives/partial", "log"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	config := fmt.Sprintf(`Dir::Etc %q;
Dir::Etc::sourcelist "-";
Dir::Etc::sourceparts %q;
Dir::State %q;
Dir::State::status %q;
Dir::Cache %q;
Dir::Log %q;
APT::Architecture "amd64";
APT::Architectures "amd64";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::http::Proxy "DIRECT";
Acquire::Retries "0";
`, dir+"/etc", dir+"/sources", dir+"/state", dir+"/status", dir+"/cache", dir+"/log")
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("apt.conf", config)
	write("status", "")
	if err := os.Mkdir(dir+"/sources", 0o755); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(sources)
	if err != nil {
		t.Fatal(err)
	}
	write("sources/ds4relay.sources", string(text))
	return []string{"APT_CONFIG=" + dir + "/apt.conf", "LC_ALL=C"}
}

// replace replaces a text in a file.
func replace(t *testing.T, path, from, to string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil || !bytes.Contains(data, []byte(from)) {
		t.Fatalf("%s: %v; no %q", path, err, from)
	}
	if err := os.WriteFile(path, bytes.ReplaceAll(data, []byte(from), []byte(to)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// testOpkg: signify reads the signatures of usign's format, and the indexes say what the packages are.
func testOpkg(t *testing.T, release string) {
	feeds, _ := filepath.Glob(filepath.Join(release, "site/openwrt/ipk/*"))
	if len(feeds) == 0 {
		t.Fatal("no feed")
	}
	verify := func(feed string) (string, error) {
		return command(nil, "signify-openbsd", "-V", "-p", filepath.Join(release, "site/openwrt/ds4relay.pub"), "-x",
			filepath.Join(feed, "Packages.sig"), "-m", filepath.Join(feed, "Packages"))
	}
	for _, feed := range feeds {
		if out, err := verify(feed); err != nil {
			t.Errorf("%s: %v\n%s", feed, err, out)
		}
		index, err := os.ReadFile(filepath.Join(feed, "Packages"))
		if err != nil {
			t.Fatal(err)
		}
		again, err := Opkg(feed)
		if err != nil || !bytes.Equal(again, index) || !bytes.Contains(index, []byte("Package: luci-app-ds4relay\n")) {
			t.Errorf("%s: %v\n%s", feed, err, index)
		}
		unzipped, err := command(nil, "gunzip", "-c", filepath.Join(feed, "Packages.gz"))
		if err != nil || unzipped != string(index) {
			t.Errorf("%s: Packages.gz: %v", feed, err)
		}
	}
	altered := copied(t, feeds[0])
	if out, err := verify(altered); err != nil {
		t.Errorf("a copy: %v\n%s", err, out)
	}
	alter(t, altered+"/Packages")
	if out, err := verify(altered); err == nil {
		t.Errorf("an altered index: %s", out)
	}
	if _, err := verify(strings.Replace(feeds[0], "/site/", "/othersite/", 1)); err == nil {
		t.Error("somebody else's index counts as signed")
	}
}

// testAPK: OpenSSL reads the signature, and the index says what the packages are.
func testAPK(t *testing.T, release string) {
	feeds, _ := filepath.Glob(filepath.Join(release, "site/openwrt/apk/*"))
	if len(feeds) == 0 {
		t.Fatal("no feed")
	}
	verify := func(signed []byte) error {
		dir := t.TempDir()
		signature, err := member(bytes.NewReader(signed), ".SIGN.RSA256.ds4relay.rsa.pub")
		if err != nil {
			return err
		}
		// The rest begins where the second gzipped part does.
		start := bytes.LastIndex(signed, signed[:4])
		if err := errors.Join(os.WriteFile(dir+"/signature", signature, 0o600),
			os.WriteFile(dir+"/index", signed[start:], 0o600)); err != nil {
			return err
		}
		out, err := command(nil, "openssl", "dgst", "-sha256", "-verify", filepath.Join(release,
			"site/openwrt/ds4relay.rsa.pub"), "-signature", dir+"/signature", dir+"/index")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	for _, feed := range feeds {
		signed, err := os.ReadFile(filepath.Join(feed, "APKINDEX.tar.gz"))
		if err != nil {
			t.Fatal(err)
		}
		if err := verify(signed); err != nil {
			t.Errorf("%s: %v", feed, err)
		}
		index, err := member(bytes.NewReader(signed), "APKINDEX")
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range regexp.MustCompile(`(?m)^P:(.*)\nV:(.*)$`).FindAllStringSubmatch(string(index), -1) {
			if _, err := os.Stat(filepath.Join(feed, found[1]+"-"+found[2]+".apk")); err != nil {
				t.Errorf("%s: %v", feed, err) // apk asks for this name
			}
		}
		if !bytes.Contains(index, []byte("P:luci-app-ds4relay\n")) {
			t.Errorf("%s: %s", feed, index)
		}
		signed[len(signed)-1] ^= 1
		if verify(signed) == nil {
			t.Errorf("%s: an altered index counts as signed", feed)
		}
	}
	other, err := os.ReadFile(filepath.Join(strings.Replace(feeds[0], "/site/", "/othersite/", 1), "APKINDEX.tar.gz"))
	if err != nil || verify(other) == nil {
		t.Errorf("somebody else's index counts as signed: %v", err)
	}
}

// testSums: the sums are those of the packages, and both signatures are good.
func testSums(t *testing.T, release string) {
	packages := filepath.Join(release, "packages")
	sums, keys := filepath.Join(packages, "SHA256SUMS"), filepath.Join(release, "keys")
	if out, err := command(nil, "sh", "-c", "cd "+packages+" && sha256sum -c --strict SHA256SUMS && "+
		"[ $(ls *.deb *.ipk *.apk | wc -l) = $(wc -l <SHA256SUMS) ]"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	keyring := t.TempDir() + "/keyring"
	check := func(file string) error {
		out, err := command(nil, "gpgv", "--keyring", keyring, sums+".asc", file)
		out2, err2 := command(nil, "signify-openbsd", "-V", "-p", keys+"/ds4relay.pub", "-x", sums+".sig", "-m", file)
		if (err == nil) != (err2 == nil) {
			t.Errorf("the signatures disagree: %v, %v\n%s%s", err, err2, out, out2)
		}
		return err
	}
	if out, err := command([]string{"GNUPGHOME=" + t.TempDir()}, "gpg", "--batch", "-o", keyring, "--dearmor",
		keys+"/ds4relay.asc"); err != nil {
		t.Fatal(err, out)
	}
	if err := check(sums); err != nil {
		t.Error(err)
	}
	altered := filepath.Join(copied(t, packages), "SHA256SUMS")
	alter(t, altered)
	if check(altered) == nil {
		t.Error("altered sums count as signed")
	}
}

// testAddFeed: the script adds feed and key to what is there, once, and takes both away; elsewhere it changes nothing.
func testAddFeed(t *testing.T, release string) {
	script := filepath.Join(release, "site/openwrt/add-feed")
	tools := t.TempDir() // opkg-key belongs to OpenWrt, and calls usign, whose names of keys are those of signify's
	key := "#!/bin/sh\n[ -d $OPKG_KEYS ] || exit 1\ncase $1 in add) cp $2 $OPKG_KEYS/0102 ;; remove) rm -f $OPKG_KEYS/0102 ;; esac\n"
	if err := os.WriteFile(tools+"/opkg-key", []byte(key), 0o700); err != nil {
		t.Fatal(err)
	}
	const site, others = "https://ds4relay.github.io/ds4relay/openwrt/", "# my own\nsrc/gz mine https://example.org/mine\n"
	for _, c := range []struct{ manager, feeds, line, key, public string }{
		{"opkg", "etc/opkg/customfeeds.conf", "src/gz ds4relay " + site + "ipk/mips_24kc\n", "etc/opkg/keys/0102", "ds4relay.pub"},
		{"apk", "etc/apk/repositories.d/customfeeds.list", site + "apk\n", "etc/apk/keys/ds4relay.rsa.pub", "ds4relay.rsa.pub"},
	} {
		root := t.TempDir()
		for _, dir := range []string{"tmp", "usr/bin", "etc/opkg/keys", "etc/apk/repositories.d"} {
			if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		write := func(name, text string) {
			if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		run := func(args ...string) (string, error) {
			return command([]string{"IPKG_INSTROOT=" + root, "PATH=" + tools + ":" + os.Getenv("PATH")}, "sh",
				append([]string{script}, args...)...)
		}
		write("usr/bin/"+c.manager, "")
		write(c.feeds, others)
		before := files(t, root)
		if out, err := run(); err == nil || !strings.Contains(out, "is this OpenWrt?") || files(t, root) != before {
			t.Errorf("%s, no OpenWrt: %v\n%s%s", c.manager, err, out, files(t, root))
		}
		write("etc/openwrt_release", "DISTRIB_ID='OpenWrt'\nDISTRIB_ARCH='mips_24kc'\n")
		if out, err := run("delete"); err == nil || !strings.Contains(out, "want nothing, or remove") {
			t.Errorf("%s, a wrong word: %v\n%s", c.manager, err, out)
		}
		before = files(t, root)
		public, err := os.ReadFile(filepath.Join(release, "site/openwrt", c.public))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			out, err := run()
			if err != nil || !strings.Contains(out, c.manager+" update && ") {
				t.Errorf("%s: %v\n%s", c.manager, err, out)
			}
			for name, want := range map[string]string{c.feeds: others + c.line, c.key: string(public)} {
				if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(got) != want {
					t.Errorf("%s: %s: %v\n%s\nwant\n%s", c.manager, name, err, got, want)
				}
			}
		}
		if out, err := run("remove"); err != nil || strings.ReplaceAll(files(t, root), "etc/apk/keys/\n", "") != before {
			t.Errorf("%s remove: %v\n%s%s\nwant\n%s", c.manager, err, out, files(t, root), before)
		}
	}
}

// files lists a tree with what is in its files.
func files(t *testing.T, root string) string {
	t.Helper()
	var list strings.Builder
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, path)
		if entry.IsDir() {
			fmt.Fprintf(&list, "%s/\n", name)
			return nil
		}
		data, err := os.ReadFile(path)
		fmt.Fprintf(&list, "%s: %q\n", name, data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list.String()
}
