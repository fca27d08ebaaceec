//go:build !lab

package main

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/message/messagetest"
)

// TestRouterHasNoDBus: the program for routers does not contain packages for other hosts.
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

// TestAnswerFitsUbus: whatever configuration a browser sends to be checked, the answer fits into a ubus message.
func TestAnswerFitsUbus(t *testing.T) {
	const most = 1 << 20 // bytes of a message
	for name, text := range map[string]string{
		"many mistakes":   strings.Repeat("x\n", 100000),
		"many warnings":   strings.Repeat("config x\n", 20000),
		"a long word":     strings.Repeat("\x01", 250000),
		"a long value":    "config relay x\n option ipaddr '" + strings.Repeat("\x01", 250000) + "'\n",
		"a wrong letter":  strings.Repeat("ä", 100000),
		"nothing at all":  "\n",
		"many long words": strings.Repeat(strings.Repeat("y", 1000)+"\n", 250),
	} {
		answer, err := (&app{path: "/etc/config/ds4relay"}).checkText(text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, p := range slices.Concat(answer.(checked).Errors, answer.(checked).Warnings) {
			messagetest.Check(t, &message.Text{Code: p.Code, Args: p.Args}, p.Message)
		}
		data, err := json.Marshal(answer)
		if err != nil || len(data) > most/2 {
			t.Errorf("%s: %d bytes, %v", name, len(data), err)
		}
	}
}
