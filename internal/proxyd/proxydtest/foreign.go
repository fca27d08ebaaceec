// Package proxydtest contains tests for all programs that have `proxy --status`.
package proxydtest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// Exit statuses of the programs.
const (
	failed  = 1
	usage   = 2
	differs = 3
)

// ForeignText tests that text from the control socket, a file or the command line cannot control a terminal, and that
// its size is limited. run calls the program; status and check are its arguments for the proxies' status and for
// checking a file.
func ForeignText(t *testing.T, run func(args []string, out *bytes.Buffer) int, status, check []string) {
	t.Helper()
	const escapes = "\x1b[2J\x1b]0;owned\x07\u009b31m\u202e\r\xff"
	dir := t.TempDir()
	path := filepath.Join(dir, "config")
	if err := os.WriteFile(path,
		[]byte("config proxy 'web'\n\tlist listen '127.0.0.1:1'\n\toption target '[2001:db8::1]:1'\n"),
		0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "run-proxy"), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "run-proxy", "control"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	quoted, err := json.Marshal(strings.ToValidUTF8(escapes, ""))
	if err != nil {
		t.Fatal(err)
	}
	text := string(quoted)
	hostile := `{"report":{"pid":1,"version":` + text + `,"proxies":[{"name":` + text + `,"proxy":` + text +
		`,"targets":[` + text + `],"last_error":` + text + `}]}}`
	answers := make(chan func(io.Writer), 1)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = bufio.NewReader(conn).ReadString('\n')
			(<-answers)(conn)
			conn.Close()
		}
	}()
	say := func(what string) func(io.Writer) { return func(w io.Writer) { _, _ = io.WriteString(w, what+"\n") } }
	endless := func(w io.Writer) {
		for {
			if _, err := w.Write(bytes.Repeat([]byte("x"), 1<<20)); err != nil {
				return
			}
		}
	}
	bad := filepath.Join(dir, "bad")
	if err := os.WriteFile(bad, []byte("config proxy 'web'\n\toption target '"+escapes+"'\n"+escapes+"\n"),
		0o644); err != nil {
		t.Fatal(err)
	}
	show := append([]string{"-c", path, "--run", filepath.Join(dir, "run")}, status...)
	many := `{"report":{"proxies":[` + strings.Repeat("{},", 100000) + `{}]}}`
	for name, c := range map[string]struct {
		args   []string
		answer func(io.Writer)
		status int
	}{
		"a hostile answer":   {show, say(hostile), differs},
		"a hostile error":    {show, say(`{"error":` + text + `}`), failed},
		"an endless answer":  {show, endless, failed},
		"many small objects": {show, say(many), failed},
		"a hostile file":     {append([]string{"-c", bad}, check...), nil, usage},
		"a hostile name":     {append([]string{"-c", dir + escapes}, check...), nil, usage},
	} {
		if c.answer != nil {
			answers <- c.answer
		}
		var out bytes.Buffer
		status := run(c.args, &out)
		if status != c.status || out.Len() == 0 {
			t.Errorf("%s: status %d, %q", name, status, out.String())
		}
		for _, r := range out.String() {
			if r != '\n' && r != '\t' && !strconv.IsGraphic(r) || r == utf8.RuneError {
				t.Errorf("%s: prints %q", name, out.String())
				break
			}
		}
	}
}
