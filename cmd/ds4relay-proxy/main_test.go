package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/proxyd"
	"github.com/ds4relay/ds4relay/internal/testport"
)

// TestMain runs the program instead of the tests if a test has started it.
func TestMain(m *testing.M) {
	if os.Getenv("DS4RELAY_PROXY_TEST") != "" {
		os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// patience is how long a test waits at most.
const patience = 30 * time.Second

func command(dir string, args ...string) *exec.Cmd {
	c := exec.Command(os.Args[0],
		append([]string{"-c", filepath.Join(dir, "config"), "--run", filepath.Join(dir, "run")}, args...)...)
	c.Env = append(os.Environ(), "DS4RELAY_PROXY_TEST=1")
	return c
}

func configure(t *testing.T, dir, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "config"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s does not come", what)
		}
	}
}

// echoes sends bytes over a connection and expects them back.
func echoes(conn net.Conn, text string) error {
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, text); err != nil {
		return err
	}
	got := make([]byte, len(text))
	_, err := io.ReadFull(conn, got)
	return err
}

// TestSuccessor: procd starts the next instance and ends the former one at the same moment. Clients notice nothing, not
// even when procd sends the former one SIGTERM again at each reload. The former one ends with its last session; the
// last instance ends after SIGTERM.
func TestSuccessor(t *testing.T) {
	dir := t.TempDir()
	target, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	go func() {
		for {
			c, err := target.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	address := fmt.Sprintf("127.0.0.1:%d", testport.Free(t))
	configure(t, dir, fmt.Sprintf("config proxy 'web'\n\tlist listen '%s'\n\toption target '%s'\n", address,
		target.Addr()))

	start := func(successor string) *exec.Cmd {
		t.Helper()
		c := command(dir, "--take-over", "--successor", successor)
		c.Stderr = os.Stderr
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			c.Process.Kill()
			c.Wait()
		})
		return c
	}
	shows := func(what string) func() bool {
		return func() bool {
			out, _ := command(dir, "--status").Output()
			return strings.Contains(string(out), what)
		}
	}
	former := start("60")
	eventually(t, "the start", shows("proxy web: running"))
	held, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := echoes(held, "before"); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var all sync.WaitGroup
	until := func(step func() error) {
		all.Add(1)
		go func() {
			defer all.Done()
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := step(); err != nil {
					t.Error(err)
					return
				}
			}
		}()
	}
	until(func() error {
		c, err := net.DialTimeout("tcp", address, patience)
		if err == nil {
			err = echoes(c, "hello")
			c.Close()
		}
		if err != nil {
			return fmt.Errorf("a new client: %w", err)
		}
		return nil
	})
	// Status requests during the hand-over do not disturb it.
	for range 8 {
		until(func() error {
			if _, err := proxyd.Ask(filepath.Join(dir, "run")); err != nil {
				return fmt.Errorf("status: %w", err)
			}
			return nil
		})
	}
	former.Process.Signal(syscall.SIGTERM)
	next := start("60")
	eventually(t, "the next instance", shows("proxy web: draining"))
	close(stop)
	all.Wait()
	for range 2 {
		if err := echoes(held, "after"); err != nil {
			t.Fatalf("a connection that was there before: %v", err)
		}
		former.Process.Signal(syscall.SIGTERM)
		time.Sleep(3 * time.Second) // without a successor, sessions would end after 5 seconds
	}
	if err := echoes(held, "after"); err != nil {
		t.Errorf("a connection that was there before, after reloads: %v", err)
	}
	held.Close()
	if err := former.Wait(); err != nil {
		t.Errorf("the former instance: %v", err)
	}
	// There is no successor to the last instance.
	if held, err = net.Dial("tcp", address); err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := echoes(held, "before"); err != nil {
		t.Fatal(err)
	}
	next.Process.Signal(syscall.SIGTERM)
	last := start("1")
	eventually(t, "the last instance", shows("proxy web: draining"))
	for _, instance := range []*exec.Cmd{next, last} {
		instance.Process.Signal(syscall.SIGTERM)
	}
	if err := last.Wait(); err != nil {
		t.Errorf("the last instance: %v", err)
	}
	if err := echoes(held, "after"); err != nil {
		t.Errorf("a connection of an instance before, while all ends: %v", err)
	}
	if err := next.Wait(); err != nil {
		t.Errorf("the instance before: %v", err)
	}
	if err := echoes(held, "after"); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after the end: %v, want a reset", err)
	}
	if c, err := net.Dial("tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after the end: %v, %v", c, err)
	}
}

func TestCommand(t *testing.T) {
	dir := t.TempDir()
	configure(t, dir, "config proxy 'web'\n\tlist listen '0.0.0.0:443'\n\toption target '192.0.2.1'\n")
	path := filepath.Join(dir, "config")
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--help"}, 0, "usage: ds4relay-proxy"},
		{[]string{"--version"}, 0, "ds4relay-proxy dev (commit "},
		{[]string{"now"}, exitUsage, "usage: ds4relay-proxy"},
		{[]string{"--status"}, exitDiffers, "proxy web: not running"},
		{[]string{"--status", "--json"}, exitDiffers, `"running": false`},
		{[]string{"--reload"}, exitFailed, "do not run"},
		{[]string{"-c", path + "x", "--status"}, exitUsage, "no such file"},
	} {
		var out bytes.Buffer
		code := run(append([]string{"-c", path, "--run", filepath.Join(dir, "run")}, c.args...), &out, &out)
		if code != c.code || !strings.Contains(out.String(), c.says) {
			t.Errorf("%v: exit status %d, want %d\n%s", c.args, code, c.code, out.String())
		}
	}
}
