//go:build !openwrt

package main

import (
	"os"
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
