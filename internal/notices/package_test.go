package notices

import (
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// unpack has, for each kind of package, the command that extracts it.
var unpack = map[string]string{
	".deb": `dpkg-deb -x "$1" "$2"`,
	".ipk": `tar -xzOf "$1" ./data.tar.gz | tar -xz -C "$2"`,
	".apk": `gunzip -c "$1" | tar -x --ignore-zeros -C "$2"`,
}

// TestPackages: each package with a program has the notices and licence texts of everything linked into it. `make
// test-packages` builds the packages.
func TestPackages(t *testing.T) {
	dir := os.Getenv("DS4RELAY_PACKAGES")
	if dir == "" {
		t.Skip("DS4RELAY_PACKAGES names no directory of packages")
	}
	formats := map[string]int{}
	packages, err := filepath.Glob(filepath.Join(dir, "*.*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range packages {
		command := unpack[filepath.Ext(path)]
		if command == "" {
			continue
		}
		root := t.TempDir()
		unpacking := exec.Command("bash", "-c", "set -o pipefail; "+command, "unpack", path, root)
		if out, err := unpacking.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v %s", path, err, out)
		}
		programs, err := filepath.Glob(filepath.Join(root, "usr/sbin/*"))
		if err != nil {
			t.Fatal(err)
		}
		name, _, _ := strings.Cut(filepath.Base(path), "_")
		for _, program := range programs {
			for _, missing := range lacks(t, program, copyrightFile(t, root, name)) {
				t.Errorf("%s lacks %s", filepath.Base(path), missing)
			}
			formats[filepath.Ext(path)]++
		}
		if len(programs) == 0 && strings.HasPrefix(name, "ds4relay") {
			t.Errorf("%s has no program", filepath.Base(path))
		}
	}
	for format := range unpack {
		if formats[format] == 0 {
			t.Errorf("no package *%s has a program", format)
		}
	}
}

// copyrightFile returns the copyright file of a package.
func copyrightFile(t *testing.T, root, name string) string {
	t.Helper()
	command := exec.Command("gunzip", "-c", filepath.Join(root, "usr/share/licenses", name, "copyright.gz"))
	if _, err := os.Stat(filepath.Join(root, "usr/share/doc")); err == nil {
		command = exec.Command("cat", filepath.Join(root, "usr/share/doc", name, "copyright"))
	}
	text, err := command.Output()
	if err != nil {
		t.Errorf("%s: %v", command, err)
	}
	return string(text)
}

// lacks returns what a copyright file is missing for a program.
func lacks(t *testing.T, program, copyright string) (missing []string) {
	t.Helper()
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	stanzas := strings.Split("\n"+copyright, "\n\n")
	has := func(what, first string, patterns ...string) {
		for _, stanza := range stanzas {
			if stanza = strings.TrimPrefix(stanza, "\n"); strings.HasPrefix(stanza, first) {
				for _, pattern := range patterns {
					if !regexp.MustCompile(pattern).MatchString(stanza) {
						missing = append(missing, fmt.Sprintf("%s in that of %s:\n%s", pattern, what, stanza))
					}
				}
				return
			}
		}
		missing = append(missing, "the notice of "+what)
	}
	has("the format", "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n")
	has("ds4relay", "Files: *\n", "The ds4relay developers", "License: Apache-2.0")
	version, _, _ := strings.Cut(strings.ReplaceAll(info.GoVersion, "-X:", " "), " ")
	has("Go", "Files: go/*\n", "The Go Authors", "License: BSD-3-Clause", regexp.QuoteMeta(version)+`$`)
	for _, m := range info.Deps {
		version := regexp.QuoteMeta(m.Version) + `(\n|$)`
		has(m.Path, "Files: "+m.Path+"/*\n", `\nCopyright: .*\w`, `\nLicense: .*\w`, version)
	}
	for _, m := range regexp.MustCompile(`(?m)^License: (.*)$`).FindAllStringSubmatch(copyright, -1) {
		for name := range strings.SplitSeq(m[1], " and ") {
			has("the licence "+name, "License: "+name+"\n ", `\n .*\n `)
		}
	}
	return missing
}

// TestLacks: lacks notices every stanza that is removed from a copyright file.
func TestLacks(t *testing.T) {
	program := filepath.Join(t.TempDir(), "ds4relay-proxy")
	if out, err := exec.Command("go", "build", "-o", program, "../../cmd/ds4relay-proxy").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	modules, err := Linked(program)
	if err != nil {
		t.Fatal(err)
	}
	for _, debian := range []bool{false, true} {
		var b strings.Builder
		if err := Write(&b, modules, debian); err != nil {
			t.Fatal(err)
		}
		if missing := lacks(t, program, b.String()); len(missing) > 0 {
			t.Errorf("it lacks %s", strings.Join(missing, "\n"))
		}
		stanzas := strings.Split(b.String(), "\n\n")
		if len(stanzas) < 6 {
			t.Errorf("there are %d stanzas:\n%s", len(stanzas), b.String())
		}
		for i, stanza := range stanzas {
			without := append(append([]string{}, stanzas[:i]...), stanzas[i+1:]...)
			if missing := lacks(t, program, strings.Join(without, "\n\n")); len(missing) == 0 {
				t.Errorf("without this nothing is missed: %s", stanza)
			}
		}
	}
}
