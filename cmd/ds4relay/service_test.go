//go:build !lab

package main

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/kernel/fake"
	"github.com/ds4relay/ds4relay/internal/reconcile"
	"github.com/ds4relay/ds4relay/internal/state"
)

// TestService: the command that OpenWrt's init script calls follows changes of the configuration. It offers rules that
// differ from those that the firewall has, and nothing if there is a mistake.
func TestService(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may bring relays up")
	}
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(path(name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// netifd, which does nothing for ds4_home.
	write("ubus", `#!/bin/sh
[ ! -e `+path("broken")+` ] || exit 1
echo '{"interface":[
{"interface":"lan","up":true,"l3_device":"br-lan","ipv4-address":[{"address":"192.168.1.1","mask":24}]},
{"interface":"ds4_home","up":true,"dynamic":true,"proto":"none","device":"wrap1"}]}'
`)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	k := fake.New("eth0")
	rules := path("run/firewall.sh")
	const relay = "config relay 'home'\n\toption role 'router'\n\toption ipaddr '198.51.100.144'\n" +
		"\toption ip6addr '2001:db8:fdd2::/64'\n\toption peeraddr '2001:db8:6ef9::/64'\n" +
		"\toption device 'wrap1'\n\toption tunlink 'eth0'\n"
	const forward = "config forward 'web'\n\toption proto 'tcp'\n\toption src_dport '443'\n" +
		"\toption dest_ip '192.168.1.210'\n"
	const mistake = "mistake\n"
	for i, step := range []struct {
		when, file string
		broken     bool   // ubus
		status     int    // of the program
		offered    string // part of the offered rules
		nothing    bool   // is offered
	}{
		{when: "no relay is enabled", file: relay + "\toption enabled '0'\n", nothing: true},
		{when: "the first relay", file: relay + forward, offered: "'192.168.1.210'"},
		{when: "the same once more", file: relay + forward, nothing: true},
		{when: "a mistake", file: relay + forward + mistake, status: exitUsage, nothing: true},
		{when: "another host", file: relay + strings.Replace(forward, ".210", ".211", 1), offered: "'192.168.1.211'"},
		{when: "netifd does not answer", file: relay + forward, broken: true, status: exitFailed, nothing: true},
		{when: "netifd answers again", file: relay + forward, offered: "'192.168.1.210'"},
		{when: "the last relay goes", file: relay + "\toption enabled '0'\n"},
	} {
		write("config", step.file)
		if i > 2 {
			write("run/firewall.sh.new", "of a script that was ended\n")
		}
		if step.broken {
			write("broken", "")
		}
		var said bytes.Buffer
		a := &app{stdout: &said, stderr: &said, env: os.Getenv, apply: func(reconcile.Kernel) reconcile.Kernel {
			return k
		}}
		status := a.main([]string{"-c", path("config"), "--run", path("run"), "-q", "service", rules})
		os.Remove(path("broken"))
		text, err := os.ReadFile(rules + ".new")
		ok := status == step.status && os.IsNotExist(err) == step.nothing
		if !ok || !strings.Contains(string(text), step.offered) {
			t.Errorf("%s: exit status %d, want %d; offered (%v):\n%s\nit said %s",
				step.when, status, step.status, err, text, said.String())
		}
		if err == nil { // like the init script
			if err := os.Rename(rules+".new", rules); err != nil {
				t.Fatal(err)
			}
		}
	}
	if text, err := os.ReadFile(rules); err != nil || len(text) > 0 {
		t.Errorf("without a relay there are rules: %v %s", err, text)
	}
}

// TestKillSwitchBeforeNetwork: the command that OpenWrt runs before the network starts turns on the kill switch from
// the file alone, and does nothing if a relay is up.
func TestKillSwitchBeforeNetwork(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may bring relays up")
	}
	dir := t.TempDir()
	t.Setenv("PATH", dir) // netifd does not run yet
	const relay = "config relay 'home'\n\toption role 'router'\n\toption ipaddr '198.51.100.144'\n" +
		"\toption ip6addr '2001:db8:fdd2::/64'\n\toption peeraddr 'vps.example.org'\n\toption tunlink 'eth0'\n" +
		"\toption egress 'all'\n"
	const forward = "config forward 'web'\n\toption proto 'all'\n\toption dest_ip '192.168.1.210'\n"
	const on = "\toption killswitch '1'\n"
	for _, c := range []struct {
		when, file string
		before     bool // a relay is up
		status     int
		rules      int
	}{
		{when: "no kill switch", file: relay + forward},
		{when: "a kill switch", file: relay + on + forward, rules: 1},
		{when: "of a relay that is disabled", file: relay + on + "\toption enabled '0'\n" + forward},
		{when: "a mistake", file: relay + on + forward + "mistake\n", status: exitUsage},
		{when: "a relay that is up", file: relay + on + forward, before: true, rules: 1},
	} {
		config := filepath.Join(dir, "config")
		if err := os.WriteFile(config, []byte(c.file), 0o600); err != nil {
			t.Fatal(err)
		}
		k := fake.New("eth0")
		run := func(args ...string) (int, string) {
			var said bytes.Buffer
			a := &app{stdout: &said, stderr: &said, env: os.Getenv, apply: func(reconcile.Kernel) reconcile.Kernel {
				return k
			}}
			return a.main(append([]string{"-c", config, "--run", filepath.Join(dir, "run"), "-q"}, args...)),
				said.String()
		}
		observed := func() state.Observed {
			o, err := k.Observe(state.State{})
			if err != nil {
				t.Fatal(err)
			}
			return o
		}
		if c.before {
			k.Names = map[string][]netip.Addr{"vps.example.org": {netip.MustParseAddr("2001:db8:6ef9::1")}}
			if status, said := run("up"); status != 0 {
				t.Fatal(said)
			}
		}
		links := len(observed().Links)
		status, said := run("killswitch")
		o := observed()
		unreachable := 0
		for _, rule := range o.Rules {
			if rule.Unreachable && rule.From.IsValid() {
				unreachable++
			}
		}
		if status != c.status || unreachable != c.rules || o.KillSwitch() != (c.rules > 0) || len(o.Links) != links ||
			(said == "") != (status == 0) {
			t.Errorf("%s: exit status %d, %d rules, table %v, tunnels %d, it said %s", c.when, status, unreachable,
				o.KillSwitch(), len(o.Links), said)
		}
	}
}
