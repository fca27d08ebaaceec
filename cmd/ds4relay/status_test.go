//go:build !openwrt && !lab

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/kernel/fake"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/plain"
	"github.com/ds4relay/ds4relay/internal/reconcile"
	"github.com/ds4relay/ds4relay/internal/state"
)

// dim is a kernel that hides nft tables, as from everybody except root.
type dim struct{ *fake.Kernel }

func (k dim) Observe(want state.State) (state.Observed, error) {
	o, err := k.Kernel.Observe(want)
	o.Tables, o.Unseen = nil, []*message.Text{message.New("nft's tables")}
	return o, err
}

// TestStatus: which relays it shows, how often, and what it prints if something cannot be seen.
func TestStatus(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config")
	relay := func(name, number string) string {
		return "config relay '" + name + "'\n\toption device '" + name + "'\n\toption ipaddr '198.51.100." + number +
			"'\n" + strings.Join(required[1:], "\n") + "\nconfig forward\n\toption relay '" + name + "'\n" +
			"\toption src_dport '80'\n\toption dest_ip '192.168.1." + number + "'\n"
	}
	if err := os.WriteFile(path, []byte(relay("home", "2")+relay("cabin", "3")), 0o644); err != nil {
		t.Fatal(err)
	}
	whole := fake.New("eth0")
	run := func(k reconcile.Kernel, colour bool, args ...string) (int, string) {
		var out bytes.Buffer
		a := &app{stdout: plain.Writer{To: &out, Colour: colour}, stderr: &out, env: func(string) string { return "" },
			apply: func(reconcile.Kernel) reconcile.Kernel { return k }}
		return a.main(append([]string{"-c", path, "--run", filepath.Join(dir, "run")}, args...)), out.String()
	}
	m := &reconcile.End{Config: nil, Kernel: whole}
	a := &app{}
	var err error
	if m.Config, _, err = a.read(path); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Up([]string{"home"}, nil, func(state.Step) {}, nil); err != nil {
		t.Fatal(err)
	}
	const as = "is as the configuration says"
	for _, c := range []struct {
		what   string
		kernel reconcile.Kernel
		args   string
		status int
		has    []string
		lacks  []string
	}{
		{"one of two is up", whole, "", exitDiffers,
			[]string{"relay home (vps): up", "relay cabin (vps): down", "ip link add name cabin"}, []string{as}},
		{"that one", whole, "home", 0, []string{"relay home (vps): up", "The kernel " + as}, []string{"cabin"}},
		{"the other", whole, "cabin", exitDiffers, []string{"relay cabin (vps): down"}, []string{"relay home", as}},
		{"no such relay", whole, "home hom", exitUsage, []string{`unknown relay "hom"`, "home, cabin"},
			[]string{"vps"}},
		{"two times", whole, "home --watch -n 2", 0, []string{"relay home (vps): up"}, []string{"cabin"}},
		{"as JSON", whole, "home --json", 0, []string{`"name": "home"`, `"differs": []`}, []string{"cabin", "Unseen"}},
		{"both", whole, "--json --watch", exitUsage, []string{"not both"}, nil},
		{"never", whole, "-n 3", exitUsage, []string{"with --watch"}, nil},
		{"without root", dim{whole}, "home", exitFailed, []string{"relay home (vps): up",
			"note: the kernel shows nft's tables", "What can be seen without root " + as}, []string{"cabin"}},
		{"without root, the other", dim{whole}, "cabin", exitDiffers,
			[]string{"ip link add name cabin"}, []string{"nft -f", as}},
	} {
		status, out := run(c.kernel, false, append([]string{"status"}, strings.Fields(c.args)...)...)
		if status != c.status {
			t.Errorf("%s: exit status %d, want %d\n%s", c.what, status, c.status, out)
		}
		for _, text := range c.has {
			if !strings.Contains(out, text) {
				t.Errorf("%s: no %q in\n%s", c.what, text, out)
			}
		}
		for _, text := range c.lacks {
			if strings.Contains(out, text) {
				t.Errorf("%s: %q in\n%s", c.what, text, out)
			}
		}
		if n := strings.Count(out, "relay home (vps)"); strings.Contains(c.args, "-n 2") && n != 2 {
			t.Errorf("%s: shown %d times", c.what, n)
		}
	}
	if _, out := run(whole, true, "status", "home"); !strings.Contains(out, "relay home (vps): \x1b[32m✓ up\x1b[0m\n") {
		t.Errorf("on a terminal: %q", out)
	}
}

// TestSteps: up prints one line per step; with -v, which may follow the command, the complete ruleset.
func TestSteps(t *testing.T) {
	table := state.LoadTables{Script: "table ip ds4relay {\n\tchain input {\n\t\tdrop\n\t}\n}\n"}
	for _, c := range []struct {
		app  app
		want string
	}{
		{app{}, "[#] nft -f - # table ip ds4relay: rules 1\n"},
		{app{verbose: true}, "[#] nft -f - <<'EOF'\n" + table.Script + "EOF\n"},
		{app{quiet: true, verbose: true}, ""},
	} {
		var out bytes.Buffer
		c.app.stdout = &out
		c.app.show(table)
		if out.String() != c.want {
			t.Errorf("got %q, want %q", out.String(), c.want)
		}
	}
}
