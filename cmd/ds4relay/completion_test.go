//go:build !openwrt && !lab

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// completionScript is the script that the package installs for a shell.
func completionScript(t *testing.T, shell string) string {
	t.Helper()
	var out bytes.Buffer
	status := newApp(&out, &out).main([]string{"completion", shell})
	if status != 0 || strings.Contains(out.String(), "@\n") {
		t.Fatalf("completion %s: exit status %d\n%s", shell, status, out.String())
	}
	path := filepath.Join(t.TempDir(), "_ds4relay")
	if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// needShell skips a test if the shell is not installed.
func needShell(t *testing.T, shell string) {
	t.Helper()
	if _, err := exec.LookPath(shell); err != nil {
		t.Skip(err)
	}
}

// TestCompletion types command lines and compares what the shells offer: commands, options, and relays of the file.
func TestCompletion(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	text := "config relay 'home'\n\toption role 'vps'\n\nconfig 'relay' \"cabin\"\n\nconfig forward 'web'\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	// The last word is to be completed.
	lines := []struct{ line, want string }{
		{"ds4relay st", "status"},
		{"ds4relay -c FILE sta", "status"},
		{"ds4relay --ver", "--version"},
		{"ds4relay -c FILE up ", "cabin home"},
		{"ds4relay -c FILE --run /run -q status ca", "cabin"},
		{"ds4relay -c FILE up --f", "--force"},
		{"ds4relay help tr", "trace"},
		{"ds4relay status --wa", "--watch"},
		{"ds4relay trace ", ""},
		{"ds4relay netif", ""},
	}
	for shell, offered := range map[string]func(t *testing.T, script, line string) []byte{
		"bash": func(t *testing.T, script, line string) []byte {
			const complete = `. "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _ds4relay; printf '%s\n' ` +
				`"${COMPREPLY[@]}"`
			cmd := exec.Command("bash", append([]string{"-c", complete, script}, strings.Split(line, " ")...)...)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			return out
		},
		"fish": func(t *testing.T, script, line string) []byte {
			cmd := exec.Command("fish", "--no-config", "-c", `source $argv[1]; complete -C $argv[2]`, script, line)
			cmd.Env = append(os.Environ(), "HOME="+filepath.Dir(script))
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			return out
		},
	} {
		t.Run(shell, func(t *testing.T) {
			needShell(t, shell)
			script := completionScript(t, shell)
			for _, c := range lines {
				var words []string
				for line := range strings.Lines(string(offered(t, script, strings.ReplaceAll(c.line, "FILE", file)))) {
					word, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
					if word != "" {
						words = append(words, word)
					}
				}
				slices.Sort(words)
				if got := strings.Join(words, " "); got != c.want {
					t.Errorf("%q: offered are %q, want %q", c.line, got, c.want)
				}
			}
		})
	}
	t.Run("zsh", func(t *testing.T) {
		needShell(t, "zsh")
		if out, err := exec.Command("zsh", "-n", completionScript(t, "zsh")).CombinedOutput(); err != nil ||
			len(out) > 0 {
			t.Errorf("%v: %s", err, out)
		}
	})
	if status := newApp(&bytes.Buffer{}, &bytes.Buffer{}).main([]string{"completion", "csh"}); status != exitUsage {
		t.Errorf("completion csh: exit status %d", status)
	}
}
