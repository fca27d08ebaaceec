//go:build !openwrt && !lab

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestManual: the manual page and the completion of shells know every command that the usage has.
func TestManual(t *testing.T) {
	manual, err := os.ReadFile("../../files/debian/usr/share/man/man8/ds4relay.8")
	if err != nil {
		t.Fatal(err)
	}
	completion, err := os.ReadFile("../../files/debian/usr/share/bash-completion/completions/ds4relay")
	if err != nil {
		t.Fatal(err)
	}
	words := regexp.MustCompile(`commands="(.*)"`).FindSubmatch(completion)
	if words == nil {
		t.Fatal("the completion has no list of commands")
	}
	known := strings.Fields(string(words[1]))
	for _, m := range regexp.MustCompile(`(?m)^  ([a-z]+)( |$)`).FindAllStringSubmatch(usage, -1) {
		command := m[1]
		if command == "on" { // of OpenWrt
			continue
		}
		if !regexp.MustCompile(`(?m)^\.TP\n\.BR? ` + command + `\b`).Match(manual) {
			t.Errorf("ds4relay(8) has no command %s", command)
		}
		if !slices.Contains(known, command) {
			t.Errorf("the completion has no command %s", command)
		}
	}
}

// TestCheckSays: what check says of correct files, of an ssh session that would be cut, and of -c behind the command.
func TestCheckSays(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	proxy := file("proxy", "config proxy\n\tlist listen '0.0.0.0:443'\n\toption target '[2001:db8::1]:443'\n")
	all := file("all", "config relay 'home'\n"+strings.Join(required, "\n")+"\nconfig forward\n\toption proto all\n\toption dest_ip 192.168.1.210\n")
	for _, c := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"check", proxy}, 0, proxy + ": correct (relays: 0, forwards: 0, proxies: 1)\n"},
		{[]string{"-c", all, "check"}, 0, "which this ssh session uses"},
		{[]string{"check", all}, 0, all + ": correct (relays: 1, forwards: 1)\n"},
		{[]string{"check", "-c", all}, exitUsage, "-c stands before the command: ds4relay -c … check\n"},
		{[]string{"check", "-x"}, exitUsage, "flag provided but not defined: -x; see: ds4relay help\n"},
	} {
		var out bytes.Buffer
		a := &app{stdout: &out, stderr: &out, env: func(string) string { return "203.0.113.9 40000 198.51.100.144 22" }}
		if status := a.main(c.args); status != c.status || !strings.Contains(out.String(), c.says) {
			t.Errorf("%q: status %d, %q; wanted %d, %q", c.args, status, out.String(), c.status, c.says)
		}
	}
}
