//go:build !openwrt && !lab

package main

import (
	goversion "go/version"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// oldestGo is that of Debian 13, so that a VPS builds ds4relay with its own packages.
const oldestGo = "1.24"

// TestOldestGo: Debian 13's Go builds ds4relay, its dependencies included, and the pages name that version.
func TestOldestGo(t *testing.T) {
	const needs = "{{.Path}} {{with .GoVersion}}{{.}}{{else}}1.0{{end}}"
	list := exec.Command("go", "list", "-m", "-f", needs, "all")
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		name, needed, _ := strings.Cut(strings.TrimSpace(line), " ")
		if goversion.Compare(goversion.Lang("go"+needed), "go"+oldestGo) > 0 {
			t.Errorf("go.mod: %s needs Go %s, more than %s", name, needed, oldestGo)
		}
	}
	said := regexp.MustCompile(`\bGo(?:\]\(https://go\.dev/dl\))? (1\.\d+) (?:or later|oder neuer)`)
	for _, file := range []string{"README.md", "CONTRIBUTING.md", "docs/install.md", "scripts/apt"} {
		text, err := os.ReadFile(root + "/" + file)
		if err != nil {
			t.Fatal(err)
		}
		found := said.FindAllStringSubmatch(string(text), -1)
		if len(found) == 0 {
			t.Errorf("%s does not say which Go is needed", file)
		}
		for _, m := range found {
			if m[1] != oldestGo {
				t.Errorf("%s: Go %s, want %s", file, m[1], oldestGo)
			}
		}
	}
	module, err := os.ReadFile(root + "/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if regexp.MustCompile(`(?m)^toolchain `).Match(module) {
		t.Error("go.mod has a toolchain line, which may make go fetch another Go")
	}
}
