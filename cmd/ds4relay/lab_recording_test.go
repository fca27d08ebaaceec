//go:build lab && bench

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/lab"
)

// The size of the recorded terminal, in characters.
const (
	recordedColumns = 88 // a QR code needs one more
	recordedRows    = 28
)

// recording is what the terminals of a recording have shown, as an asciicast of version 2.
type recording struct {
	start time.Time
	mu    sync.Mutex
	shown bytes.Buffer
	lines bytes.Buffer
}

// Write records output of a terminal.
func (r *recording) Write(data []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shown.Write(data)
	line, err := json.Marshal([]any{time.Since(r.start).Seconds(), "o", string(data)})
	r.lines.Write(append(line, '\n'))
	return len(data), err
}

// after waits for a text behind the first n bytes, and returns its parts in parentheses and where it ends.
func (r *recording) after(t *testing.T, n int, pattern string) (parts []string, end int) {
	t.Helper()
	text := ""
	for limit := time.Now().Add(24 * patience); time.Now().Before(limit); time.Sleep(10 * time.Millisecond) {
		r.mu.Lock()
		text = r.shown.String()[n:]
		r.mu.Unlock()
		if at := regexp.MustCompile(pattern).FindStringSubmatchIndex(text); at != nil {
			for i := 2; i < len(at); i += 2 {
				parts = append(parts, text[at[i]:at[i+1]])
			}
			return parts, n + at[1]
		}
	}
	t.Fatalf("the terminal does not show %s: %s", pattern, text)
	return nil, 0
}

// write saves the recording.
func (r *recording) write(t *testing.T, path string) {
	t.Helper()
	header := fmt.Sprintf(`{"version": 2, "width": %d, "height": %d}`+"\n", recordedColumns, recordedRows)
	if err := os.WriteFile(path, append([]byte(header), r.lines.Bytes()...), 0o644); err != nil {
		t.Fatal(err)
	}
}

// person sits at a terminal with a shell.
type person struct {
	*recording
	keyboard *os.File
	seen     int // bytes of the recording
}

// newPerson starts a shell in a room, on a terminal of its own.
func newPerson(t *testing.T, r *recording, where *room, name string) *person {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: recordedColumns,
			Row: recordedRows})
	}
	if err != nil {
		t.Fatal(err)
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	p := &person{r, master, r.shown.Len()}
	shell := where.host.Command("nsenter", "--target", where.pid, "--mount", "sh")
	shell.Stdin, shell.Stdout, shell.Stderr = terminal, terminal, terminal
	shell.Env = append(os.Environ(), "TERM=xterm-256color", "PS1=\x1b[1mroot@"+name+":~#\x1b[0m ")
	shell.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	go io.Copy(r, master) // until the shell has ended
	return p
}

// sees waits for a text that comes after what was seen before, and returns its parts in parentheses.
func (p *person) sees(t *testing.T, pattern string) (parts []string) {
	t.Helper()
	parts, p.seen = p.after(t, p.seen, pattern)
	return parts
}

// types gives an answer or a command, key by key. Before it the person reads for a moment.
func (p *person) types(text string) {
	time.Sleep(1500 * time.Millisecond)
	for _, key := range text {
		io.WriteString(p.keyboard, string(key))
		time.Sleep(60 * time.Millisecond)
	}
	p.pastes("\n")
}

func (p *person) pastes(text string) {
	time.Sleep(500 * time.Millisecond)
	io.WriteString(p.keyboard, text)
}

// TestRecording sets up a VPS and lets a home join it as people do, at terminals, and writes down what they see.
func TestRecording(t *testing.T) {
	path := os.Getenv("DS4RELAY_RECORDING")
	if path == "" {
		t.Skip("DS4RELAY_RECORDING names no file; run this with make recording")
	}
	if err := installed(); err != nil {
		t.Fatal(err)
	}
	n, err := lab.New(lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	web, err := n.Host.Listen("tcp4", ":80")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { web.Close() })
	go http.Serve(web, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		client, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintf(w, "Hello %s, this is the server at home.\n", client)
	}))
	vps, home := newPairable(t, n, "")

	r := &recording{start: time.Now()}
	p := newPerson(t, r, vps, "vps")
	p.sees(t, "vps:~#.* ")
	p.types("ds4relay setup")
	p.sees(t, regexp.QuoteMeta("(Y/n) "))
	p.types("y")
	invitation := p.sees(t, `(ds4relay1\.\S+)\s`)[0]
	p.sees(t, "vps:~#.* ")
	p.types("exit")

	p = newPerson(t, r, home, "router")
	p.sees(t, "router:~#.* ")
	p.types("ds4relay join")
	p.sees(t, "Paste the invitation.*\n")
	p.pastes(invitation + "\n")
	p.sees(t, regexp.QuoteMeta("(y/N) "))
	p.types("y")
	p.sees(t, regexp.QuoteMeta("(empty: later): "))
	p.types(home4)
	p.sees(t, regexp.QuoteMeta("tcp:443: "))
	p.types("tcp:80")
	p.sees(t, "router:~#.* ")
	p.types("exit")

	p = newPerson(t, r, newRoom(t, n.Client, ":"), "client")
	p.sees(t, "client:~#.* ")
	p.types("curl http://" + public + "/")
	p.sees(t, "Hello "+regexp.QuoteMeta(client4))
	p.sees(t, "client:~#.* ")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.write(t, path)
}
