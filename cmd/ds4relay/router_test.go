package main

import (
	"os/exec"
	"strings"
	"testing"
)

// TestRouterHasNoDBus: the program for routers is built without what only other hosts have.
func TestRouterHasNoDBus(t *testing.T) {
	for tags, want := range map[string]bool{"": true, "openwrt": false} {
		out, err := exec.Command("go", "list", "-deps", "-tags", tags, ".").Output()
		if err != nil {
			t.Fatal(err)
		}
		if has := strings.Contains(string(out), "godbus/dbus"); has != want {
			t.Errorf("built with tags %q: D-Bus is in it: %v, want %v", tags, has, want)
		}
	}
}
