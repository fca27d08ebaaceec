//go:build !openwrt && !lab

// These tests build the program, which takes long in the lab's virtual machine.

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/doctor"
	"github.com/ds4relay/ds4relay/internal/proxyd"
	"github.com/ds4relay/ds4relay/internal/testport"
)

// serviceTime limits how long the tests wait for the service; no result depends on the time used.
const serviceTime = 30 * time.Second

// manager replaces systemd: it receives the service's notifications, and keeps its sockets.
type manager struct {
	t       *testing.T
	dir     string
	program string
	conn    *net.UnixConn

	mu    sync.Mutex
	said  []string
	main  int
	mains []int // former and current main processes; all are children of this process
	store map[string]*os.File
}

func newManager(t *testing.T) *manager {
	m := &manager{t: t, dir: t.TempDir(), store: map[string]*os.File{}}
	m.program = filepath.Join(m.dir, "ds4relay")
	var err error
	if m.conn, err = net.ListenUnixgram("unixgram",
		&net.UnixAddr{Name: filepath.Join(m.dir, "notify"), Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.conn.Close()
		m.discard()
	})
	go m.listen()
	return m
}

func (m *manager) listen() {
	text, rights := make([]byte, 4096), make([]byte, 4096)
	for {
		n, oob, _, _, err := m.conn.ReadMsgUnix(text, rights)
		if err != nil {
			return
		}
		m.mu.Lock()
		lines := strings.Split(string(text[:n]), "\n")
		m.said = append(m.said, lines...)
		name := ""
		for _, line := range lines {
			key, value, _ := strings.Cut(line, "=")
			switch key {
			case "MAINPID":
				m.main, _ = strconv.Atoi(value)
				m.mains = append(m.mains, m.main)
			case "FDNAME":
				name = value
			}
		}
		if messages, err := unix.ParseSocketControlMessage(rights[:oob]); err == nil && len(messages) > 0 {
			fds, _ := unix.ParseUnixRights(&messages[0])
			if before := m.store[name]; before != nil {
				before.Close()
			}
			m.store[name] = os.NewFile(uintptr(fds[0]), name)
			for _, fd := range fds[1:] { // UDP sockets; one is enough here
				unix.Close(fd)
			}
		} else if name != "" {
			m.store[name].Close()
			delete(m.store, name)
		}
		m.mu.Unlock()
	}
}

// hears waits until the service has sent a notification.
func (m *manager) hears(line string) {
	m.t.Helper()
	m.eventually(line, func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		for i, said := range m.said {
			if said == line {
				m.said = m.said[i+1:]
				return true
			}
		}
		return false
	})
}

func (m *manager) eventually(what string, holds func() bool) {
	m.t.Helper()
	for end := time.Now().Add(serviceTime); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			m.t.Fatalf("%s does not come", what)
		}
	}
}

// install replaces the program by another version, like dpkg does.
func (m *manager) install(version string) {
	m.t.Helper()
	fresh := m.program + ".dpkg-new"
	out, err := exec.Command("go", "build", "-ldflags", "-X main.version="+version, "-o", fresh, ".").CombinedOutput()
	if err == nil {
		err = os.Rename(fresh, m.program)
	}
	if err != nil {
		m.t.Fatalf("%v\n%s", err, out)
	}
}

func (m *manager) configure(text string) {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.dir, "config"), []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

func (m *manager) command(args ...string) *exec.Cmd {
	args = append([]string{"-c", filepath.Join(m.dir, "config"), "--run", filepath.Join(m.dir, "run"), "proxy"},
		args...)
	return exec.Command(m.program, args...)
}

// start runs the service with the kept sockets, and stops it at the end of the test.
func (m *manager) start() *exec.Cmd {
	m.t.Helper()
	service := m.command()
	m.mu.Lock()
	for _, file := range m.store {
		service.ExtraFiles = append(service.ExtraFiles, file)
	}
	m.mu.Unlock()
	// Only the process itself knows LISTEN_PID.
	service.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`}, service.Args...)
	service.Path = "/bin/sh"
	service.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(m.dir, "notify"), "WATCHDOG_USEC=200000",
		fmt.Sprintf("LISTEN_FDS=%d", len(service.ExtraFiles)))
	service.Stderr = &bytes.Buffer{}
	if err := service.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		service.Process.Kill()
		service.Wait()
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, pid := range m.mains {
			syscall.Kill(pid, syscall.SIGKILL)
			unix.Wait4(pid, nil, 0, nil)
		}
		m.mains = nil
	})
	m.hears("READY=1")
	return service
}

// discard closes the kept sockets, like systemd when it stops a service.
func (m *manager) discard() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, file := range m.store {
		file.Close()
	}
	clear(m.store)
}

// ask runs `ds4relay proxy` with arguments, expects an exit status, and returns the output.
func (m *manager) ask(status int, args ...string) string {
	m.t.Helper()
	command := m.command(args...)
	out, err := command.CombinedOutput()
	if command.ProcessState == nil || command.ProcessState.ExitCode() != status {
		m.t.Errorf("proxy %v: %v, want exit status %d\n%s", args, err, status, out)
	}
	return string(out)
}

func (m *manager) entries() []proxyd.Entry {
	m.t.Helper()
	var entries []proxyd.Entry
	out, _ := m.command("--status", "--json").Output()
	if err := json.Unmarshal(out, &entries); err != nil {
		m.t.Fatalf("%v\n%s", err, out)
	}
	return entries
}

func freeAddress(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", testport.Free(t))
}

// echoing starts an echo server for TCP and UDP, and returns its address.
func echoing(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp6", fmt.Sprintf("[::1]:%d", testport.Free(t)))
	if err != nil {
		t.Fatal(err)
	}
	datagrams, err := net.ListenPacket("udp6", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Close()
		datagrams.Close()
	})
	go func() {
		buffer := make([]byte, 1500)
		for {
			n, from, err := datagrams.ReadFrom(buffer)
			if err != nil {
				return
			}
			datagrams.WriteTo(buffer[:n], from)
		}
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

// echoes sends bytes over a connection and reads them back.
func echoes(conn net.Conn, bytes []byte) error {
	conn.SetDeadline(time.Now().Add(serviceTime))
	if _, err := conn.Write(bytes); err != nil {
		return err
	}
	got := make([]byte, len(bytes))
	_, err := io.ReadFull(conn, got)
	if err == nil && string(got) != string(bytes) {
		err = fmt.Errorf("other bytes came back")
	}
	return err
}

func connect(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, serviceTime)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// load runs clients that keep connecting, one connection that keeps carrying bytes, and one client with datagrams. end
// fails the test if one of them was refused or cut.
func load(t *testing.T, address string) (end func()) {
	t.Helper()
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
	for range 4 {
		until(func() error {
			conn, err := net.DialTimeout("tcp", address, serviceTime)
			if err != nil {
				return fmt.Errorf("a new client: %w", err)
			}
			defer conn.Close()
			if err := echoes(conn, []byte("hello")); err != nil {
				return fmt.Errorf("a new client: %w", err)
			}
			return nil
		})
	}
	datagrams, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	until(func() error {
		if err := echoes(datagrams, []byte("a datagram")); err != nil {
			return fmt.Errorf("a datagram: %w", err)
		}
		return nil
	})
	stream, block := connect(t, address), bytes.Repeat([]byte("0123456789abcdef"), 8<<10)
	until(func() error {
		if err := echoes(stream, block); err != nil {
			return fmt.Errorf("the stream: %w", err)
		}
		return nil
	})
	return func() {
		t.Helper()
		close(stop)
		all.Wait()
		stream.Close()
		datagrams.Close()
	}
}

const proxySection = "config proxy '%s'\n\tlist listen '%s'\n\toption target '%s'\n"

// TestProxyService: changes of the configuration and of the program's version do not affect clients.
func TestProxyService(t *testing.T) {
	m := newManager(t)
	target, address, other := echoing(t), freeAddress(t), freeAddress(t)
	web := fmt.Sprintf(proxySection, "web", address, target) + fmt.Sprintf(proxySection, "quic", address, target) +
		"\toption proto 'udp'\n\toption idle_timeout '3'\n" +
		fmt.Sprintf(proxySection, "range", "127.0.0.77:20000-20299", target) // more sockets than fit into one message
	more := web + fmt.Sprintf(proxySection, "more", other, target)

	m.install("1.0")
	m.configure(web)
	if out := m.ask(exitDiffers, "--status"); !strings.Contains(out, "proxy web: not running") {
		t.Errorf("status before: %s", out)
	}
	diagnosed := func(state doctor.State, evidence string) {
		t.Helper()
		a := &app{path: filepath.Join(m.dir, "config"), run: filepath.Join(m.dir, "run")}
		if found := a.proxyFindings(nil); len(found) != 1 || found[0].State != state ||
			!strings.Contains(found[0].Evidence, evidence) {
			t.Errorf("the doctor says %+v, want %s: %s", found, state, evidence)
		}
	}
	diagnosed(doctor.Failed, `proxy "quic" does not run`)
	m.start()
	diagnosed(doctor.OK, "proxies: 3")
	m.hears("STATUS=proxies: 3, sessions: 0")
	m.hears("WATCHDOG=1")
	if out := m.ask(exitFailed); !strings.Contains(out, "run already") {
		t.Errorf("a second one: %s", out)
	}
	m.ask(0, "--status")

	end := load(t, address)
	for i := range 20 {
		m.configure([]string{more, web}[i%2])
		m.ask(0, "--reload")
		m.hears("RELOADING=1")
		m.hears("READY=1")
	}
	m.configure(web + "config proxy 'bad'\n")
	if out := m.ask(exitUsage, "--reload"); !strings.Contains(out, `config:12: proxy "bad"`) {
		t.Errorf("reload with a mistake: %s", out)
	}
	if out := m.ask(exitFailed, "--upgrade"); !strings.Contains(out, "has ended without taking over") {
		t.Errorf("upgrade with a mistake: %s", out)
	}
	m.configure(more)
	if out := m.ask(exitDiffers, "--status"); !strings.Contains(out, "proxy more: not running") {
		t.Errorf("status before a reload: %s", out)
	}
	if os.Geteuid() == 0 {
		open := 0o755 | os.ModeDir
		for dir := m.dir; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
			os.Chmod(dir, open)
		}
		command := m.command("--status")
		command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, _ := command.CombinedOutput(); !strings.Contains(string(out), "proxy web: running") {
			t.Errorf("status as nobody: %s", out)
		}
		command = m.command("--reload")
		command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, err := command.CombinedOutput(); err == nil || !strings.Contains(string(out), "reload is for root") {
			t.Errorf("reload as nobody: %v %s", err, out)
		}
	}

	held := connect(t, address)
	if err := echoes(held, []byte("before")); err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"1.1", "1.2"} {
		m.install(version)
		m.ask(0, "--upgrade")
		m.hears("READY=1")
		entries := m.entries()
		if entries[0].Version != version || entries[0].PID != m.main {
			t.Errorf("after the upgrade to %s: %+v", version, entries[0])
		}
	}
	if out := m.ask(0, "--status"); !strings.Contains(out, "proxy web: draining") ||
		!strings.Contains(out, "version 1.0)") {
		t.Errorf("status over the upgrade: %s", out)
	}
	m.ask(0, "--reload")
	second := connect(t, other)
	if err := echoes(second, []byte("hello")); err != nil {
		t.Errorf("what was configured before the upgrade: %v", err)
	}
	second.Close()
	last := connect(t, "127.0.0.77:20299")
	if err := echoes(last, []byte("hello")); err != nil {
		t.Errorf("the last port of a range: %v", err)
	}
	last.Close()
	end()
	if err := echoes(held, []byte("after")); err != nil {
		t.Errorf("a connection through two upgrades: %v", err)
	}
	held.Close()
	m.eventually("the end of the former processes", func() bool { return len(m.entries()) == 4 })

	// Sessions continue for a moment after the end.
	held = connect(t, address)
	if err := echoes(held, []byte("before")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(m.main, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	m.hears("STOPPING=1")
	if err := echoes(held, []byte("after")); err != nil {
		t.Errorf("a connection after SIGTERM: %v", err)
	}
	held.Close()
	var status unix.WaitStatus
	if _, err := unix.Wait4(m.main, &status, 0, nil); err != nil || status.ExitStatus() != 0 {
		t.Errorf("the service has ended with %v, %v", status.ExitStatus(), err)
	}
	m.mains = m.mains[:len(m.mains)-1]
	if out := m.ask(exitFailed, "--reload"); !strings.Contains(out, "do not run") {
		t.Errorf("reload after the end: %s", out)
	}
}

// TestProxyRestart: the sockets stay open during a crash; new clients wait meanwhile.
func TestProxyRestart(t *testing.T) {
	m := newManager(t)
	target, address, other := echoing(t), freeAddress(t), freeAddress(t)
	web := fmt.Sprintf(proxySection, "web", address, target) + fmt.Sprintf(proxySection, "quic", address, target) +
		"\toption proto 'udp'\n"
	m.install("1.0")
	m.configure(web + fmt.Sprintf(proxySection, "more", other, target))
	service := m.start()
	stored := func(n int) func() bool {
		return func() bool {
			m.mu.Lock()
			defer m.mu.Unlock()
			return len(m.store) == n
		}
	}
	m.eventually("the sockets", stored(3))
	m.configure(web)
	m.ask(0, "--reload")
	m.eventually("the end of a socket that is not wanted any more", stored(2))
	if conn, err := net.Dial("tcp", other); err == nil {
		conn.Close()
		t.Error("the socket that is not wanted any more is open")
	}
	service.Process.Kill()
	service.Wait()
	early := connect(t, address)
	datagram, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer datagram.Close()
	datagram.SetDeadline(time.Now().Add(serviceTime))
	if _, err := datagram.Write([]byte("early")); err != nil {
		t.Fatal(err)
	}
	m.start()
	if err := echoes(early, []byte("I was early")); err != nil {
		t.Error(err)
	}
	if _, err := datagram.Read(make([]byte, 5)); err != nil {
		t.Errorf("the answer to an early datagram: %v", err)
	}
}

// TestProxyStop: a second signal does not wait for sessions.
func TestProxyStop(t *testing.T) {
	m := newManager(t)
	target, address := echoing(t), freeAddress(t)
	m.install("1.0")
	m.configure(fmt.Sprintf(proxySection, "web", address, target))
	service := m.start()
	held := connect(t, address)
	if err := echoes(held, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	service.Process.Signal(syscall.SIGTERM)
	m.hears("STOPPING=1")
	m.discard()
	m.eventually("the end of the socket", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	if err := echoes(held, []byte("hello")); err != nil {
		t.Errorf("after the first signal: %v", err)
	}
	service.Process.Signal(syscall.SIGTERM)
	if err := service.Wait(); err != nil {
		t.Errorf("the service has ended with %v", err)
	}
	if err := echoes(held, []byte("hello")); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after the second signal: %v, want a reset", err)
	}
	// A configuration without proxies is no failure.
	m.configure("")
	service = m.start()
	if err := service.Wait(); err != nil {
		t.Errorf("without proxies: %v", err)
	}
}
