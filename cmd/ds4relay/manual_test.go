//go:build !openwrt && !lab

package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the manual page and docs/commands.md anew")

// TestTable: the manual explains exactly the commands of the general help.
func TestTable(t *testing.T) {
	shown := 0
	for _, c := range commands() {
		if _, ok := manual[c.name]; ok == c.internal {
			t.Errorf("%s: internal: %v, in the manual: %v", c.name, c.internal, ok)
		}
		if named := regexp.MustCompile(`(?m)^  ` + c.name + ` `).MatchString(usage()); named == c.internal {
			t.Errorf("%s: internal: %v, in the general help: %v", c.name, c.internal, named)
		}
		if !c.internal {
			shown++
		}
	}
	if len(manual) != shown {
		t.Errorf("the manual has %d commands, the table %d", len(manual), shown)
	}
	for line := range strings.Lines(usage()) {
		if n := len([]rune(line)); n > 121 {
			t.Errorf("%d characters: %s", n, line)
		}
	}
}

// TestExamples: the command lines of the examples are valid.
func TestExamples(t *testing.T) {
	for name, d := range manual {
		for _, e := range d.examples {
			line, _, _ := strings.Cut(e.line, " >")
			words := strings.Fields(line)
			if words[0] != "ds4relay" {
				continue
			}
			f := (&app{}).flags()
			if err := f.Parse(words[1:]); err != nil {
				t.Errorf("%s: %v", e.line, err)
				continue
			}
			c := find(f.Arg(0))
			if c == nil || c.name != name {
				t.Errorf("an example of %s: %s", name, e.line)
				continue
			}
			flags, _ := c.flags(&app{})
			if rest, err := parse(flags, f.Args()[1:]); err != nil || len(rest) > 0 && c.args == "" {
				t.Errorf("%s: %q, %v", e.line, rest, err)
			}
		}
	}
}

// TestManual: the commands in ds4relay(8) and docs/commands.md match the table.
func TestManual(t *testing.T) {
	for path, c := range map[string]struct{ head, end, body string }{
		"files/debian/usr/share/man/man8/ds4relay.8": {
			`.\" the commands, out of the table` + "\n", `.\" end` + "\n", manPage()},
		"docs/commands.md": {
			"<!-- the commands, out of the table -->\n", "<!-- end -->\n", commandsPage()},
	} {
		path = filepath.Join(root, path)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		before, rest, ok := strings.Cut(string(data), c.head)
		_, after, ok2 := strings.Cut(rest, c.end)
		if !ok || !ok2 {
			t.Fatalf("%s has no place for the commands: a line %q and a line %q", path, c.head, c.end)
		}
		text := before + c.head + c.body + c.end + after
		if *update {
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		} else if text != string(data) {
			t.Errorf("%s is out of date: go test ./cmd/ds4relay -run TestManual -update", path)
		}
	}
}

// roff formats text for a manual page; commands are bold.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "…", "...").Replace(text)
	return regexp.MustCompile("`([^`]*)`").ReplaceAllString(text, `\fB$1\fR`)
}

// manPage returns a paragraph with a heading for each command.
func manPage() string {
	var b strings.Builder
	for _, c := range commands() {
		if c.internal {
			continue
		}
		f, _ := c.flags(&app{})
		heading := "`" + c.name + "`"
		for _, o := range options(f) {
			heading += " [" + strings.TrimSpace("`"+o.name+"` "+italic(o.value)) + "]"
		}
		heading += " " + regexp.MustCompile(`[A-Z][A-Z0-9]+`).ReplaceAllStringFunc(c.args, italic)
		fmt.Fprintf(&b, ".TP\n%s\n", strings.TrimSpace(strings.ReplaceAll(roff(heading), `\e`, `\`)))
		b.WriteString(roff(wrap(sentence(c.summary), 118)))
		for _, paragraph := range strings.Split(wrap(manual[c.name].text, 118), "\n\n") {
			b.WriteString(".IP\n" + strings.TrimRight(roff(paragraph), "\n") + "\n")
		}
		if list := options(f); len(list) > 0 {
			b.WriteString(".RS\n")
			for _, o := range list {
				option := strings.TrimSpace("`" + o.name + "` " + italic(o.value))
				fmt.Fprintf(&b, ".TP\n%s\n%s\n", strings.ReplaceAll(roff(option), `\e`, `\`), roff(o.usage))
			}
			b.WriteString(".RE\n")
		}
		for _, e := range manual[c.name].examples {
			fmt.Fprintf(&b, ".IP\n%s:\n%s\n", roff("`"+e.line+"`"), roff(e.meaning))
		}
	}
	return b.String()
}

func italic(word string) string {
	if word == "" {
		return ""
	}
	return `\fI` + word + `\fR`
}

// commandsPage returns a list of the commands, and a section for each.
func commandsPage() string {
	var b strings.Builder
	general := (&app{}).flags()
	fmt.Fprintf(&b, "    %s\n\n| command | is there to |\n| --- | --- |\n", synopsis(general, nil))
	for _, c := range commands() {
		if !c.internal {
			fmt.Fprintf(&b, "| [`%s`](#%s) | %s |\n", c.name, c.name, c.summary)
		}
	}
	b.WriteString("\nBefore each command:\n\n" + optionList(general))
	for _, c := range commands() {
		if c.internal {
			continue
		}
		f, _ := c.flags(&app{})
		fmt.Fprintf(&b, "\n## %s\n\n    %s\n\n%s\n%s", c.name, synopsis(f, &c),
			wrap(sentence(c.summary), 120), wrap(manual[c.name].text, 120))
		if len(manual[c.name].examples) > 0 {
			b.WriteByte('\n')
		}
		for _, e := range manual[c.name].examples {
			fmt.Fprintf(&b, "    %-46s # %s\n", e.line, e.meaning)
		}
		if len(options(f)) > 0 {
			b.WriteString("\n" + optionList(f))
		}
	}
	return b.String()
}

func optionList(f *flag.FlagSet) string {
	var b strings.Builder
	for _, o := range options(f) {
		fmt.Fprintf(&b, "- `%s`: %s\n", strings.TrimSpace(o.name+" "+o.value), o.usage)
	}
	return b.String()
}

// TestHelp: every way to ask for a command's help works, and the nearest command is suggested for a mistyped one.
func TestHelp(t *testing.T) {
	defer func(former ...string) { version, commit = former[0], former[1] }(version, commit)
	version, commit = "1.2.3", "1a2b3c4d5e6f, 2026-11-30"
	for _, c := range []struct {
		args   string
		status int
		says   string
	}{
		{"help", 0, "usage: ds4relay [-c FILE]"},
		{"--help", 0, "usage: ds4relay [-c FILE]"},
		{"", exitUsage, "usage: ds4relay [-c FILE]"},
		{"help trace", 0, "usage: ds4relay trace [-c LINES] [-t SECONDS] [CLIENT]\n"},
		{"trace --help", 0, "usage: ds4relay trace [-c LINES] [-t SECONDS] [CLIENT]\n"},
		{"trace 203.0.113.10 -h", 0, "  -c LINES        end after so many LINES, else 40\n"},
		{"-q trace --help", 0, "It waits for the next connection"},
		{"up --help", 0, "  ds4relay up home            bring up one"},
		{"netifd --help", 0, "usage: ds4relay netifd\n"},
		{"help statsu", exitUsage, `unknown command "statsu"; did you mean: ds4relay status` + "\n"},
		{"dwon", exitUsage, "did you mean: ds4relay down\n"},
		{"pu", exitUsage, "did you mean: ds4relay up\n"},
		{"netif", exitUsage, "see: ds4relay help\n"},
		{"xyz", exitUsage, "see: ds4relay help\n"},
		{"help up down", exitUsage, "help takes one command\n"},
		{"watch now", exitUsage, "watch takes no arguments; see: ds4relay watch --help\n"},
		{"up -x", exitUsage, "flag provided but not defined: -x; see: ds4relay up --help\n"},
		{"--version", 0, "ds4relay 1.2.3 (commit 1a2b3c4d5e6f, 2026-11-30), go"},
		{"version", 0, "ds4relay 1.2.3 (commit 1a2b3c4d5e6f, 2026-11-30), go"},
	} {
		var out, problems bytes.Buffer
		status := newApp(&out, &problems).main(strings.Fields(c.args))
		said := out.String()
		if status != 0 {
			said = problems.String()
		}
		if status != c.status || !strings.Contains(said, c.says) || out.Len() > 0 && problems.Len() > 0 {
			t.Errorf("ds4relay %s: exit status %d\n%s%s\nwanted %d, %s",
				c.args, status, out.String(), problems.String(), c.status, c.says)
		}
	}
}

// TestCheckSays: the output of check for correct files, an ssh session that would be cut, and -c after the command.
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
	all := file("all", "config relay 'home'\n"+strings.Join(required, "\n")+"\nconfig forward\n\toption proto "+
		"all\n\toption dest_ip 192.168.1.210\n")
	disabled := file("disabled", "config relay 'home'\n"+strings.Join(required, "\n")+"\n\toption enabled '0'\n"+
		"config forward\n\toption proto all\n\toption dest_ip 192.168.1.210\n")
	wrong := file("wrong", "config relay 'home'\nx\n"+strings.Join(required, "\n")+"\ny\n")
	full := file("full", strings.Repeat("x\n", 500))
	for _, c := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"check", proxy}, 0, proxy + ": correct (relays: 0, forwards: 0, proxies: 1)\n"},
		{[]string{"-c", all, "check"}, exitFailed, "which this ssh session uses"},
		{[]string{"check", all}, 0, "which this ssh session uses"},
		{[]string{"check", all}, 0, all + ": correct (relays: 1, forwards: 1, warnings: 1)\n"},
		{[]string{"check", wrong}, exitUsage, "wrong: not correct (mistakes: 2, warnings: 0)\n"},
		{[]string{"check", full}, exitUsage, "full: not correct (mistakes: over 100, warnings: 0)\n"},
		{[]string{"-c", all, "check"}, exitFailed, ": correct, but it does not work on this machine (relays: 1, " +
			"forwards: 1"},
		{[]string{"-c", disabled, "check"}, 0, `disabled:5: relay "home": option enabled "0": no relay is enabled`},
		{[]string{"check", "-c", all}, exitUsage, "-c stands before the command: ds4relay -c … check\n"},
		{[]string{"check", "-x"}, exitUsage, "flag provided but not defined: -x; see: ds4relay check --help\n"},
	} {
		var out bytes.Buffer
		a := &app{stdout: &out, stderr: &out, env: func(string) string { return "203.0.113.9 40000 198.51.100.144 22" }}
		if status := a.main(c.args); status != c.status || !strings.Contains(out.String(), c.says) {
			t.Errorf("%q: status %d, %q; wanted %d, %q", c.args, status, out.String(), c.status, c.says)
		}
	}
}
