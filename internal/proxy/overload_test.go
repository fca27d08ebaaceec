package proxy

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/config"
)

// childSetup configures a server in its own process.
type childSetup struct {
	Files    uint64 // limit of descriptors; 0: the test's
	Loops    int    // 0: the default
	Nobody   bool   // runs as an unprivileged user …
	FewPipes bool   // … that has used up its pipes
	Proxies  []*config.Proxy
}

// childVar is the environment variable that gives TestChild its setup.
const childVar = "DS4RELAY_TEST_CHILD"

// child is a server in its own process.
type child struct {
	t   testing.TB
	pid int
	in  io.WriteCloser
	out *bufio.Scanner
}

func startChild(t testing.TB, setup childSetup) *child {
	t.Helper()
	text, err := json.Marshal(setup)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestChild$", "-test.timeout=30m")
	cmd.Env = append(os.Environ(), childVar+"="+string(text))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{t, cmd.Process.Pid, in, bufio.NewScanner(out)}
	t.Cleanup(func() {
		in.Close()
		for c.out.Scan() {
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server's process: %v", err)
		}
	})
	c.status()
	return c
}

// childStatus is a child's answer.
type childStatus struct {
	Proxies []Status
	Files   int
	Pipes   int // of all loops
}

func (c *child) status() childStatus {
	c.t.Helper()
	return c.tell("")
}

// tell asks for the child's status. If timeout is not empty, the child applies it as idle timeout first.
func (c *child) tell(timeout string) childStatus {
	c.t.Helper()
	io.WriteString(c.in, timeout+"\n")
	for c.out.Scan() {
		if text, ok := strings.CutPrefix(c.out.Text(), "STATUS "); ok {
			var s childStatus
			if err := json.Unmarshal([]byte(text), &s); err != nil {
				c.t.Fatal(err)
			}
			return s
		}
		c.t.Log(c.out.Text())
	}
	c.t.Fatal("the server's process has ended")
	panic(nil)
}

// memory returns the child's private memory in bytes.
func (c *child) memory() int {
	c.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.pid))
	if err != nil {
		c.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
			if err != nil {
				c.t.Fatal(err)
			}
			return n << 10
		}
	}
	c.t.Fatal("RssAnon is missing")
	panic(nil)
}

// TestChild is the process that startChild runs.
func TestChild(t *testing.T) {
	text := os.Getenv(childVar)
	if text == "" {
		t.Skip("is for other tests to run")
	}
	var setup childSetup
	if err := json.Unmarshal([]byte(text), &setup); err != nil {
		t.Fatal(err)
	}
	if setup.Files > 0 {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE,
			&syscall.Rlimit{Cur: setup.Files, Max: setup.Files}); err != nil {
			t.Fatal(err)
		}
	}
	if setup.Nobody {
		if err := syscall.Setuid(65534); err != nil {
			t.Fatal(err)
		}
	}
	if setup.FewPipes {
		usePipesUp(t)
	}
	s, err := New(Options{Loops: setup.Loops})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(setup.Proxies); err != nil {
		t.Fatal(err)
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if timeout, err := time.ParseDuration(in.Text()); err == nil {
			changed := *setup.Proxies[0]
			changed.IdleTimeout = timeout
			if err := s.Apply([]*config.Proxy{&changed}); err != nil {
				t.Fatal(err)
			}
		}
		status := childStatus{Proxies: s.Status()}
		for _, l := range s.loops {
			l.call(func() { status.Pipes += l.pipes.count })
		}
		if list, err := os.ReadDir("/proc/self/fd"); err == nil {
			status.Files = len(list)
		}
		text, err := json.Marshal(status)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("STATUS %s\n", text)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// usePipesUp opens pipes until the user's limit (pipe-user-pages-soft, pipe(7)) is used up and new ones have the
// minimum size.
func usePipesUp(t testing.TB) {
	t.Helper()
	for range 4096 {
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		size, err := unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, 1<<20)
		if err != nil {
			size, err = unix.FcntlInt(uintptr(fds[0]), unix.F_GETPIPE_SZ, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		if size <= 2*os.Getpagesize() {
			return
		}
	}
	t.Fatal("pipes do not get smaller")
}

// TestFewPipes: if the kernel gives only small pipes, data is copied.
func TestFewPipes(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("takes root, to become another user")
	}
	p := tcp(t, target(t, "[::1]:0", echo))
	c := startChild(t, childSetup{Nobody: true, FewPipes: true, Proxies: []*config.Proxy{p}})
	client := dialTCP(t, p)
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	go func() {
		client.Write(big)
		client.CloseWrite()
	}()
	pipes := 0
	got := make([]byte, 0, len(big))
	block := make([]byte, 1<<20)
	for {
		n, err := client.Read(block)
		got = append(got, block[:n]...)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		pipes = max(pipes, c.status().Pipes)
	}
	if !bytes.Equal(got, big) {
		t.Errorf("%d bytes of %d came back as they were sent", len(got), len(big))
	}
	if pipes != 0 {
		t.Errorf("it has %d pipes", pipes)
	}
}

// TestSlowReaders: with clients that do not read, the first ones queue more data than those that come when there are
// many.
func TestSlowReaders(t *testing.T) {
	const many = fewConnections + 20
	p := tcp(t, target(t, "[::1]:0", func(c *net.TCPConn) {
		block := make([]byte, 1<<20)
		for {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	}))
	s := start(t, Options{Loops: 1}, p)
	l := s.loops[0]
	for n := range many {
		dialTCP(t, p)
		if n != 0 && n != many-1 {
			continue
		}
		eventually(t, "a pipe for each", func() bool {
			held, large, limited, wrong := 0, 0, 0, ""
			l.call(func() {
				for _, e := range l.entries {
					side, ok := e.handler.(*side)
					if !ok || side != &side.conn.client || !side.conn.down.hasPipe {
						continue
					}
					held++
					if size, err := unix.FcntlInt(uintptr(side.conn.down.pipe.read), unix.F_GETPIPE_SZ,
						0); err != nil || size == largePipe {
						large++
					}
					if room, err := unix.GetsockoptInt(side.fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT); err != nil ||
						room == unsentLimit {
						limited++
					}
				}
			})
			if want := min(n+1, largePipes); held == n+1 && large != want {
				wrong = fmt.Sprintf("%d large pipes, not %d", large, want)
			}
			if n == 0 && limited > 0 || held == many && limited == 0 {
				wrong = fmt.Sprintf("%d of %d sockets have a limit", limited, held)
			}
			if wrong != "" {
				t.Fatal(wrong)
			}
			return held == n+1
		})
	}
}

// TestOutOfFiles: without free descriptors each client is served or refused, and none waits. Once there are some again,
// all are served.
func TestOutOfFiles(t *testing.T) {
	// It matters whether an even or odd number is left, and whether several loops run out at the same time.
	for _, setup := range []childSetup{{Files: 64}, {Files: 65}, {Files: 80, Loops: 4}, {Files: 81, Loops: 4}} {
		t.Run(fmt.Sprintf("%d descriptors, %d loops", setup.Files, setup.Loops), func(t *testing.T) {
			testOutOfFiles(t, setup)
		})
	}
}

func testOutOfFiles(t *testing.T, setup childSetup) {
	p := tcp(t, target(t, "[::1]:0", echo))
	setup.Proxies = []*config.Proxy{p}
	c := startChild(t, setup)
	const clients = 100
	open := make(chan net.Conn, clients)
	var mu sync.Mutex
	served, turnedAway := 0, 0
	var all sync.WaitGroup
	for n := range clients {
		all.Add(1)
		go func() {
			defer all.Done()
			time.Sleep(time.Duration(n/50) * 60 * time.Millisecond) // some after the loops have paused
			conn, err := net.DialTimeout("tcp", p.Listen[0].String(), patience)
			if err == nil {
				conn.SetDeadline(time.Now().Add(patience))
				err = echoes(conn, "hello")
				open <- conn
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				served++
			case strings.Contains(err.Error(), "reset") || errors.Is(err, syscall.EPIPE):
				turnedAway++
			default:
				t.Errorf("neither served nor refused: %v", err)
			}
		}()
	}
	all.Wait()
	close(open)
	var status Status
	eventually(t, "the count of those that are served", func() bool {
		status = c.status().Proxies[0]
		return status.Sessions == int64(served)
	})
	if served < 10 || turnedAway < 10 {
		t.Errorf("%d served, %d refused; %+v", served, turnedAway, status)
	}
	if n := status.Refused["out of descriptors"]; n != uint64(turnedAway) ||
		!strings.Contains(status.LastError, "too many open files") {
		t.Errorf("%d refused; %+v", turnedAway, status)
	}
	for conn := range open {
		conn.Close()
	}
	eventually(t, "the sessions' end", func() bool { return c.status().Proxies[0].Sessions == 0 })
	for range 10 {
		if err := echoes(dialTCP(t, p), "again"); err != nil {
			t.Error(err)
		}
	}
}

// TestOutOfFilesUDP is the same for datagrams.
func TestOutOfFilesUDP(t *testing.T) {
	p := udp(t, packetTarget(t, "[::1]:0", repeat))
	c := startChild(t, childSetup{Files: 64, Proxies: []*config.Proxy{p}})
	for i := range 100 {
		io.WriteString(dialUDP(t, p), "hello")
		eventually(t, "a session or a refusal", func() bool {
			status := c.status().Proxies[0]
			return status.Total-status.Refused["out of descriptors"] > 0 && status.Total == uint64(i+1)
		})
	}
	eventually(t, "a refusal", func() bool { return c.status().Proxies[0].Refused["out of descriptors"] > 0 })
	if got := c.status().Proxies[0].LastError; !strings.Contains(got, "too many open files") {
		t.Errorf("last error %q", got)
	}
	c.tell("1s")
	eventually(t, "the sessions' end", func() bool { return c.status().Proxies[0].Sessions == 0 })
	for range 10 {
		if err := returns(dialUDP(t, p), []byte("again")); err != nil {
			t.Error(err)
		}
	}
}

// TestIdleConnections: twenty thousand idle connections (or as many as the limit of descriptors allows, if it cannot be
// raised) take little memory of the process, and all still work.
func TestIdleConnections(t *testing.T) {
	const wanted, each = 20000, 8 << 10
	const others = 500 // descriptors for other purposes
	files := raiseFiles(t, 2*(wanted+others))
	connections := min(wanted, int(files)/2-others)
	if connections < wanted/10 || available(t) < 1<<30 {
		t.Skipf("takes %d descriptors (there are %d) and 1 GiB of memory", 2*(wanted+others), files)
	}
	taken := make(chan int, connections)
	destination := sink(t, taken)
	p := tcp(t, destination.String())
	p.MaxSessions, p.Keepalive = connections, time.Hour
	c := startChild(t, childSetup{Proxies: []*config.Proxy{p}})
	before := c.memory()
	filesBefore := c.status().Files
	clients := make([]int, connections)
	defer func() {
		for _, fd := range clients {
			if fd > 0 {
				unix.Close(fd)
			}
		}
	}()
	to := &unix.SockaddrInet4{Addr: p.Listen[0].Addr.As4(), Port: int(p.Listen[0].First)}
	for i := range clients {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		clients[i] = fd
		if err := unix.Connect(fd, to); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	targets := make([]int, 0, connections)
	defer func() {
		for _, fd := range targets {
			unix.Close(fd)
		}
	}()
	for range connections {
		targets = append(targets, soon(t, taken))
	}
	if n := c.status().Proxies[0].Sessions; n != int64(connections) {
		t.Fatalf("%d sessions", n)
	}
	used := c.memory() - before
	t.Logf("%d connections take %d bytes each", connections, used/connections)
	if used > connections*each {
		t.Errorf("%d connections take %d bytes each, more than %d", connections, used/connections, each)
	}
	// Each client's data reaches one target connection, and no two clients share one.
	for i, fd := range clients {
		if _, err := unix.Write(fd, []byte(fmt.Sprintf("%08d", i))); err != nil {
			t.Fatal(err)
		}
	}
	seen := make([]bool, connections)
	for _, fd := range targets {
		text := make([]byte, 8)
		n, err := unix.Read(fd, text)
		i, bad := strconv.Atoi(string(text[:max(n, 0)]))
		if err != nil || bad != nil || seen[i] {
			t.Fatalf("%q, %v", text, err)
		}
		seen[i] = true
	}
	for i, fd := range clients {
		unix.Close(fd)
		clients[i] = 0
	}
	for _, fd := range targets {
		unix.Close(fd)
	}
	targets = nil
	eventually(t, "the sessions' end", func() bool { return c.status().Proxies[0].Sessions == 0 })
	if n := c.status().Files; n > filesBefore {
		t.Errorf("%d descriptors are open, %d before", n, filesBefore)
	}
}

// raiseFiles raises this process's limit of descriptors for the test and returns the limit.
func raiseFiles(t testing.TB, files uint64) uint64 {
	t.Helper()
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if before.Cur >= files {
		return before.Cur
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE,
		&syscall.Rlimit{Cur: files, Max: max(files, before.Max)}); err != nil {
		return before.Cur
	}
	t.Cleanup(func() { syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before) })
	return files
}

// available returns the machine's free memory in bytes.
func available(t testing.TB) int {
	t.Helper()
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "MemAvailable:"); ok {
			n, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
			return n << 10
		}
	}
	return 0
}

// sink listens, and passes on its connections' descriptors.
func sink(t testing.TB, taken chan<- int) netip.AddrPort {
	t.Helper()
	spare := newReserve()
	defer spare.close()
	fd, err := listenTCP(spare, socketKey{config.TCP, netip.MustParseAddrPort("[::1]:0")})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	stop := make(chan struct{})
	t.Cleanup(func() {
		close(stop)
		all.Wait()
		unix.Close(fd)
	})
	all.Add(1)
	go func() {
		defer all.Done()
		for {
			select {
			case <-stop:
				return
			default:
			}
			conn, _, err := accept(fd)
			if err != nil {
				unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 50)
				continue
			}
			if err := unix.SetNonblock(conn, false); err != nil {
				t.Error(err)
			}
			taken <- conn
		}
	}()
	return localAddr(fd)
}

// TestSlowTarget: if the target does not read, the proxy stops reading from the client.
func TestSlowTarget(t *testing.T) {
	const much = 256 << 20
	read := make(chan struct{})
	received := make(chan int64, 1)
	p := tcp(t, target(t, "[::1]:0", func(c *net.TCPConn) {
		<-read
		n, _ := io.Copy(io.Discard, c)
		received <- n
	}))
	start(t, Options{}, p)
	c := dialTCP(t, p)
	block := make([]byte, 1<<20)
	sent := int64(0)
	for sent < much {
		c.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := c.Write(block)
		sent += int64(n)
		if err != nil {
			break
		}
	}
	if sent >= much/4 {
		t.Errorf("the client could send %d bytes that nobody read", sent)
	}
	// Other clients are served meanwhile.
	close(read)
	c.CloseWrite()
	if n := soon(t, received); n != sent {
		t.Errorf("%d bytes of %d arrived", n, sent)
	}
}

// TestKeepalive: keepalive is set on both sides, also after a reload.
func TestKeepalive(t *testing.T) {
	p := tcp(t, target(t, "[::1]:0", echo))
	p.Keepalive = 100 * time.Second
	s := start(t, Options{}, p)
	for _, keepalive := range []time.Duration{100 * time.Second, 0, time.Minute} {
		changed := *p
		changed.Keepalive = keepalive
		if err := s.Apply([]*config.Proxy{&changed}); err != nil {
			t.Fatal(err)
		}
		c := dialTCP(t, p)
		if err := echoes(c, "hello"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the end of its youth", func() bool {
			young := 0
			for _, l := range s.loops {
				l.call(func() { young += len(l.young) })
			}
			return young == 0
		})
		sides := 0
		for _, l := range s.loops {
			l.call(func() {
				for fd := range l.entries {
					if _, ok := l.entries[fd].handler.(*side); !ok {
						continue
					}
					sides++
					get := func(level, option int) int {
						n, err := unix.GetsockoptInt(fd, level, option)
						if err != nil {
							t.Error(err)
						}
						return n
					}
					seconds := int(keepalive / time.Second)
					on := get(unix.SOL_SOCKET, unix.SO_KEEPALIVE) == 1
					idle, interval, count := get(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE),
						get(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL), get(unix.IPPROTO_TCP, unix.TCP_KEEPCNT)
					if on != (seconds > 0) || on && (idle != seconds || interval != seconds/4 || count != 4) {
						t.Errorf("keepalive %d: %v, idle %d, interval %d, count %d", seconds, on, idle, interval, count)
					}
					if get(unix.IPPROTO_TCP, unix.TCP_NODELAY) != 1 {
						t.Error("small packets are delayed")
					}
				}
			})
		}
		if sides != 2 {
			t.Errorf("%d sockets", sides)
		}
		c.Close()
		eventually(t, "the session's end", func() bool { return s.Status()[0].Sessions == 0 })
	}
}
