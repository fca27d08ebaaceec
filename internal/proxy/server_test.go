package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/testport"
)

// patience is how long a test waits at most. A result never depends on how long the wait took.
const patience = 20 * time.Second

// start runs a server until the test ends.
func start(t testing.TB, o Options, proxies ...*config.Proxy) *Server {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.Apply(proxies); err != nil {
		t.Fatal(err)
	}
	return s
}

// tcp returns a proxy for a target, on a free port.
func tcp(t testing.TB, target string) *config.Proxy {
	t.Helper()
	p := &config.Proxy{Section: "test", Proto: config.TCP, Listen: []config.Listen{freePort(t)}, MaxSessions: 1000,
		ConnectTimeout: patience, Keepalive: time.Minute}
	if addr, err := netip.ParseAddrPort(target); err == nil {
		p.Target = config.Target{Addr: addr.Addr(), Port: addr.Port()}
	} else {
		host, port, _ := strings.Cut(target, ":")
		var n uint16
		fmt.Sscan(port, &n)
		p.Target = config.Target{Name: host, Port: n}
	}
	return p
}

// freePort returns a free port of 127.0.0.1.
func freePort(t testing.TB) config.Listen { return freeOn(t, "127.0.0.1") }

// freeOn returns a free port of an address.
func freeOn(t testing.TB, address string) config.Listen {
	t.Helper()
	port := testport.Free(t)
	return config.Listen{Addr: netip.MustParseAddr(address), First: port, Last: port}
}

// target listens and passes each connection to serve.
func target(t testing.TB, address string, serve func(*net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		all.Wait()
	})
	all.Add(1)
	go func() {
		defer all.Done()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Add(1)
			go func() {
				defer all.Done()
				defer c.Close()
				c.SetDeadline(time.Now().Add(patience))
				serve(c.(*net.TCPConn))
			}()
		}
	}()
	return l.Addr().String()
}

func echo(c *net.TCPConn) {
	io.Copy(c, c)
}

func dialTCP(t testing.TB, p *config.Proxy) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", p.Listen[0].String(), patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// eventually waits until the condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s does not come", what)
		}
	}
}

// refused returns nil if the connection is reset before any data.
func refused(c net.Conn) error {
	n, err := c.Read(make([]byte, 1))
	if n == 0 && errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	return fmt.Errorf("read %d bytes, %v; want a reset", n, err)
}

// refuses returns nil if a new connection is reset, possibly before Dial has returned.
func refuses(p *config.Proxy) error {
	c, err := net.DialTimeout("tcp", p.Listen[0].String(), patience)
	if errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	return refused(c)
}

// echoes returns nil if the text comes back.
func echoes(c net.Conn, text string) error {
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		return fmt.Errorf("sent %q, got %q, %v", text, got, err)
	}
	return nil
}

func TestEcho(t *testing.T) {
	p := tcp(t, target(t, "[::1]:0", echo))
	s := start(t, Options{}, p)
	c := dialTCP(t, p)
	if err := echoes(c, "hello"); err != nil {
		t.Fatal(err)
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	go func() {
		c.Write(big)
		c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, big) {
		t.Errorf("%d bytes of %d came back, %v", len(got), len(big), err)
	}
	eventually(t, "the session's end", func() bool { return s.Status()[0].Sessions == 0 })
	status := s.Status()[0]
	if want := uint64(len(big) + 5); status.Total != 1 || status.BytesUp != want || status.BytesDown != want {
		t.Errorf("%+v", status)
	}
}

// TestUrgent: data after urgent data is forwarded without waiting for more. (The urgent byte itself is not, since
// nobody reads it.)
func TestUrgent(t *testing.T) {
	heard := make(chan string, 1)
	size := make(chan int, 1)
	p := tcp(t, target(t, "[::1]:0", func(c *net.TCPConn) {
		got := make([]byte, <-size)
		n, _ := io.ReadFull(c, got)
		heard <- string(got[:n])
	}))
	start(t, Options{}, p)
	for i := range 20 { // all three must have arrived when the proxy reads
		first := strings.Repeat("abc", 1+i%2*20000)
		size <- len(first) + 2
		c := dialTCP(t, p)
		raw, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) {
			for _, part := range []struct {
				text  string
				flags int
			}{{first, unix.MSG_MORE}, {"!", unix.MSG_OOB}, {"de", 0}} {
				if err := unix.Sendto(int(fd), []byte(part.text), part.flags, nil); err != nil {
					t.Error(err)
				}
			}
		})
		if got := <-heard; got != first+"de" {
			t.Fatalf("the target heard %d bytes of %d", len(got), len(first)+2)
		}
		c.Close()
	}
}

// TestHalfClose: each side may send FIN and still receive.
func TestHalfClose(t *testing.T) {
	p := tcp(t, target(t, "[::1]:0", func(c *net.TCPConn) {
		question, err := io.ReadAll(c) // until the client's FIN
		if err == nil {
			fmt.Fprintf(c, "you said %s", question)
		}
	}))
	start(t, Options{}, p)
	c := dialTCP(t, p)
	io.WriteString(c, "hi")
	c.CloseWrite()
	if answer, err := io.ReadAll(c); string(answer) != "you said hi" || err != nil {
		t.Errorf("%q, %v", answer, err)
	}

	heard := make(chan string, 1)
	p = tcp(t, target(t, "[::1]:0", func(c *net.TCPConn) {
		io.WriteString(c, "bye")
		c.CloseWrite()
		rest, _ := io.ReadAll(c)
		heard <- string(rest)
	}))
	start(t, Options{}, p)
	c = dialTCP(t, p)
	if greeting, err := io.ReadAll(c); string(greeting) != "bye" || err != nil {
		t.Errorf("%q, %v", greeting, err)
	}
	io.WriteString(c, "still here")
	c.Close()
	if got := <-heard; got != "still here" {
		t.Errorf("the target heard %q", got)
	}
}

// TestReset: a reset of one side reaches the other, after the data that was sent before.
func TestReset(t *testing.T) {
	saw := make(chan error, 1)
	p := tcp(t, target(t, "[::1]:0", func(c *net.TCPConn) {
		_, err := io.ReadAll(c)
		saw <- err
	}))
	start(t, Options{}, p)
	c := dialTCP(t, p)
	io.WriteString(c, "some bytes")
	c.SetLinger(0)
	c.Close()
	if err := <-saw; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the target saw %v, want a reset", err)
	}

	for _, half := range []bool{false, true} {
		p = tcp(t, target(t, "[::1]:0", func(c *net.TCPConn) {
			c.Read(make([]byte, 1))
			c.Write(bytes.Repeat([]byte("x"), 100000))
			c.SetLinger(0)
		}))
		s := start(t, Options{}, p)
		c = dialTCP(t, p)
		io.WriteString(c, "?")
		if half {
			c.CloseWrite()
		}
		if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client saw %v, want a reset (half closed: %v)", err, half)
		}
		eventually(t, "the session's end", func() bool { return s.Status()[0].Sessions == 0 })
	}
}

// TestLateReset: data that the target sent before it reset the connection arrives, as it does without a proxy.
func TestLateReset(t *testing.T) {
	const size = 100000
	p := tcp(t, target(t, "[::1]:0", func(c *net.TCPConn) {
		// Closing with unread data resets the connection (RFC 2525 section 2.17). A web server that refuses an upload
		// does this.
		c.Write(bytes.Repeat([]byte("x"), size))
		time.Sleep(50 * time.Millisecond)
	}))
	start(t, Options{}, p)
	c := dialTCP(t, p)
	io.WriteString(c, "unread")
	n, err := io.ReadFull(c, make([]byte, size))
	if err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestTargetDown(t *testing.T) {
	nobody := freePort(t)
	p := tcp(t, nobody.String())
	s := start(t, Options{}, p)
	if err := refuses(p); err != nil {
		t.Error(err)
	}
	eventually(t, "the refusal's count", func() bool { return s.Status()[0].Refused["target unreachable"] == 1 })
	if got := s.Status()[0].LastError; !strings.Contains(got, "connect to "+nobody.String()) ||
		!strings.Contains(got, "refused") {
		t.Errorf("last error %q", got)
	}
	// It recovers by itself.
	target(t, nobody.String(), echo)
	if err := echoes(dialTCP(t, p), "again"); err != nil {
		t.Error(err)
	}
}

// TestConnectTimeout: the proxy gives up on a target that does not answer.
func TestConnectTimeout(t *testing.T) {
	p := tcp(t, silent(t).String())
	p.ConnectTimeout = time.Second
	s := start(t, Options{}, p)
	if err := refuses(p); err != nil {
		t.Error(err)
	}
	if got := s.Status()[0].LastError; !strings.Contains(got, "no answer within 1s") {
		t.Errorf("last error %q", got)
	}
}

// silent returns an address that does not answer: a listening socket whose queue is full.
func silent(t testing.TB) netip.AddrPort {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}),
		syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	addr := localAddr(fd)
	for full := 0; full < 2; { // a queue of 0 holds one connection; when no other gets in, it is full
		c, err := net.DialTimeout("tcp", addr.String(), 300*time.Millisecond)
		if err != nil {
			full++
			continue
		}
		t.Cleanup(func() { c.Close() })
	}
	return addr
}

// TestHappyEyeballs: a name's addresses that do not answer, or refuse, do not keep a client from the one that does. The
// next client is connected to that one first.
func TestHappyEyeballs(t *testing.T) {
	good := netip.MustParseAddrPort(target(t, "127.0.0.9:0", echo))
	bad := silent(t)
	for name, first := range map[string]netip.Addr{"refuses": netip.MustParseAddr("127.0.0.7"), "is silent": bad.Addr(),
		"has no route": netip.MustParseAddr("2001:db8::1")} {
		t.Run(name, func(t *testing.T) {
			p := tcp(t, "home.example.net:1")
			p.TargetLocal = true
			p.Target.Port = good.Port()
			if first == bad.Addr() {
				// The silent address has its own port.
				p.Target.Port = bad.Port()
				target(t, netip.AddrPortFrom(good.Addr(), bad.Port()).String(), echo)
			}
			s := start(t, Options{Lookup: func(_ context.Context, name string, version int) ([]netip.Addr, error) {
				if version == 6 {
					if first.Is6() {
						return []netip.Addr{first}, nil
					}
					return nil, errors.New("no such address")
				}
				if first.Is4() {
					return []netip.Addr{first, good.Addr()}, nil
				}
				return []netip.Addr{good.Addr()}, nil
			}}, p)
			eventually(t, "the look-up", func() bool { return len(s.Status()[0].Targets) == 2 })
			if err := echoes(dialTCP(t, p), "hello"); err != nil {
				t.Fatal(err)
			}
			if got := s.Status()[0].Targets[0]; got != good.Addr().String() {
				t.Errorf("%s comes first now, want %s", got, good.Addr())
			}
		})
	}
}

// TestNameMoves: the name is looked up again, and sooner if its address does not answer.
func TestNameMoves(t *testing.T) {
	port := netip.MustParseAddrPort(target(t, "127.0.0.9:0", echo)).Port()
	var mu sync.Mutex
	now := netip.MustParseAddr("127.0.0.8")
	p := tcp(t, "home.example.net:1")
	p.TargetLocal = true
	p.Target.Port = port
	s := start(t, Options{Lookup: func(_ context.Context, _ string, version int) ([]netip.Addr, error) {
		mu.Lock()
		defer mu.Unlock()
		if version == 6 {
			return nil, errors.New("none")
		}
		return []netip.Addr{now}, nil
	}}, p)
	eventually(t, "the look-up", func() bool { return len(s.Status()[0].Targets) == 1 })
	if err := refuses(p); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	now = netip.MustParseAddr("127.0.0.9")
	mu.Unlock()
	eventually(t, "the new address", func() bool { return s.Status()[0].Targets[0] == "127.0.0.9" })
	if err := echoes(dialTCP(t, p), "moved"); err != nil {
		t.Error(err)
	}
}

func TestAllowed(t *testing.T) {
	p := tcp(t, target(t, "[::1]:0", echo))
	p.Clients = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8::/32")}
	s := start(t, Options{}, p)
	if err := refuses(p); err != nil {
		t.Error(err)
	}
	if got := s.Status()[0].Refused["src_ip"]; got != 1 {
		t.Errorf("%d refused", got)
	}
	more := *p
	more.Clients = append([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, p.Clients...)
	if err := s.Apply([]*config.Proxy{&more}); err != nil {
		t.Fatal(err)
	}
	if err := echoes(dialTCP(t, p), "hello"); err != nil {
		t.Error(err)
	}
}

func TestLimits(t *testing.T) {
	for reason, limit := range map[string]func(*config.Proxy){
		"max_sessions":   func(p *config.Proxy) { p.MaxSessions = 2 },
		"max_per_client": func(p *config.Proxy) { p.MaxPerClient = 2 },
	} {
		t.Run(reason, func(t *testing.T) {
			p := tcp(t, target(t, "[::1]:0", echo))
			limit(p)
			s := start(t, Options{}, p)
			a, b := dialTCP(t, p), dialTCP(t, p)
			for _, c := range []net.Conn{a, b} {
				if err := echoes(c, "hello"); err != nil {
					t.Fatal(err)
				}
			}
			if err := refuses(p); err != nil {
				t.Error(err)
			}
			if got := s.Status()[0].Refused[reason]; got != 1 {
				t.Errorf("%d refused", got)
			}
			a.Close()
			eventually(t, "the session's end", func() bool { return s.Status()[0].Sessions == 1 })
			if err := echoes(dialTCP(t, p), "room again"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestPlaceBack tests that a client whose session the proxy ends has its place back when it sees that.
func TestPlaceBack(t *testing.T) {
	p := tcp(t, "127.0.0.1:0")
	p.Target.Port, p.MaxPerClient, p.MaxSessions = freePort(t).First, 1, 1
	s := start(t, Options{}, p)
	const times = 2000
	for range times {
		// The reset may come before dialling is done.
		if c, err := net.DialTimeout("tcp", p.Listen[0].String(), patience); err == nil {
			c.SetDeadline(time.Now().Add(patience))
			_, err := c.Read(make([]byte, 1))
			c.Close()
			if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("not refused: %v", err)
			}
		}
		if n := s.Status()[0].Sessions; n != 0 {
			t.Fatalf("%d sessions after the last one's end", n)
		}
	}
	counts(t, s, Status{Total: times, Refused: map[string]uint64{"target unreachable": times}})
}

func TestClientKey(t *testing.T) {
	c := clients{}
	addr := netip.MustParseAddr
	for i, step := range []struct {
		addr string
		want bool
	}{{"2001:db8::1", true}, {"2001:db8::2", true}, {"2001:db8::3", false}, {"2001:db8:0:1::3", true},
		{"192.0.2.1", true}, {"192.0.2.2", true}} {
		if got := c.enter(addr(step.addr), 2); got != step.want {
			t.Errorf("%d: %s: %v", i, step.addr, got)
		}
	}
	for _, a := range []string{"2001:db8::1", "2001:db8::2", "2001:db8:0:1::3", "192.0.2.1", "192.0.2.2"} {
		c.leave(addr(a))
	}
	if len(c.counts) > 0 {
		t.Errorf("%v is left", c.counts)
	}
}

// TestProxyProtocol: the target learns who the client is.
func TestProxyProtocol(t *testing.T) {
	for version := 1; version <= 2; version++ {
		headers := make(chan *proxyproto.Header, 1)
		p := tcp(t, target(t, "[::1]:0", func(c *net.TCPConn) {
			r := bufio.NewReader(c)
			h, err := proxyproto.Read(r)
			if err != nil {
				t.Error(err)
			}
			headers <- h
			io.Copy(c, r)
		}))
		p.ProxyProtocol = version
		start(t, Options{}, p)
		c := dialTCP(t, p)
		if err := echoes(c, "hello"); err != nil {
			t.Fatal(err)
		}
		h := <-headers
		if int(h.Version) != version || h.SourceAddr.String() != c.LocalAddr().String() ||
			h.DestinationAddr.String() != c.RemoteAddr().String() {
			t.Errorf("version %d, %v → %v; want %v → %v", h.Version, h.SourceAddr, h.DestinationAddr, c.LocalAddr(),
				c.RemoteAddr())
		}
	}
}

func TestPortRange(t *testing.T) {
	a := netip.MustParseAddrPort(target(t, "127.0.0.5:0", func(c *net.TCPConn) { io.WriteString(c, "first") }))
	target(t, netip.AddrPortFrom(a.Addr(), a.Port()+1).String(), func(c *net.TCPConn) { io.WriteString(c, "second") })
	p := tcp(t, a.String())
	p.Listen = []config.Listen{{Addr: netip.MustParseAddr("127.0.0.6"), First: 4400, Last: 4401}}
	p.Target.Each = true
	start(t, Options{}, p)
	for i, want := range []string{"first", "second"} {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.6:%d", 4400+i))
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := io.ReadAll(c); string(got) != want {
			t.Errorf("port %d: %q, want %q", 4400+i, got, want)
		}
		c.Close()
	}
}

func TestIdleTimeout(t *testing.T) {
	p := tcp(t, target(t, "[::1]:0", echo))
	p.IdleTimeout = time.Second
	var mu sync.Mutex
	var lines []string
	p.AccessLog = true
	s := start(t, Options{Log: func(line string) {
		mu.Lock()
		lines = append(lines, line)
		mu.Unlock()
	}}, p)
	c := dialTCP(t, p)
	if err := echoes(c, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := refused(c); err != nil {
		t.Error(err)
	}
	eventually(t, "the line of the access log", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(lines) == 1
	})
	if !strings.Contains(lines[0], "5 bytes up, 5 down (idle)") ||
		!strings.HasPrefix(lines[0], "proxy test: "+c.LocalAddr().String()+" → [::1]:") {
		t.Error(lines[0])
	}
	if n := s.Status()[0].Sessions; n != 0 {
		t.Errorf("%d sessions", n)
	}
}

// TestBackPressure: a client that does not read makes the target wait. The data in between is limited by socket
// buffers.
func TestBackPressure(t *testing.T) {
	const much = 256 << 20
	var sent int64
	stalled := make(chan struct{})
	p := tcp(t, target(t, "[::1]:0", func(c *net.TCPConn) {
		block := make([]byte, 1<<20)
		for sent < much {
			c.SetWriteDeadline(time.Now().Add(time.Second))
			n, err := c.Write(block)
			sent += int64(n)
			if err != nil {
				break
			}
		}
		close(stalled)
		io.Copy(io.Discard, c)
	}))
	start(t, Options{}, p)
	c := dialTCP(t, p)
	<-stalled
	if sent >= much/4 {
		t.Errorf("the target could send %d bytes that nobody read", sent)
	}
	// All of it arrives when the client reads.
	c.CloseWrite()
	if n, err := io.Copy(io.Discard, c); n != sent || err != nil {
		t.Errorf("%d bytes of %d, %v", n, sent, err)
	}
}

// TestReload: sockets that stay are not touched, and sessions continue, also those of a removed proxy.
func TestReload(t *testing.T) {
	first := tcp(t, target(t, "[::1]:0", echo))
	other := tcp(t, target(t, "[::1]:0", echo))
	other.Section = "other"
	s := start(t, Options{}, first)
	old := dialTCP(t, first)
	if err := echoes(old, "hello"); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var all sync.WaitGroup
	all.Add(1)
	go func() { // no client is refused while the configuration changes
		defer all.Done()
		for {
			select {
			case <-stop:
				return
			default:
			}
			c, err := net.Dial("tcp", first.Listen[0].String())
			if err == nil {
				c.SetDeadline(time.Now().Add(patience))
				err = echoes(c, "during")
				c.Close()
			}
			if err != nil {
				t.Errorf("while the configuration changes: %v", err)
				return
			}
		}
	}()
	for i := range 100 {
		changed := *first
		changed.MaxSessions += i
		proxies := []*config.Proxy{&changed}
		if i%2 == 0 {
			proxies = append(proxies, other)
		}
		if err := s.Apply(proxies); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	all.Wait()
	if err := s.Apply(nil); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", first.Listen[0].String()); err == nil {
		c.Close()
		t.Error("a listener that was removed takes connections")
	}
	if err := echoes(old, "draining"); err != nil {
		t.Error(err)
	}
	// The last of the other clients may have left only just now.
	eventually(t, "one session that drains", func() bool {
		status := s.Status()
		return len(status) == 1 && status[0].Draining && status[0].Sessions == 1
	})
	old.Close()
	eventually(t, "the end of draining", func() bool { return len(s.Status()) == 0 })
}

// TestReloadFails: if a socket cannot be opened, nothing changes.
func TestReloadFails(t *testing.T) {
	p := tcp(t, target(t, "[::1]:0", echo))
	s := start(t, Options{}, p)
	taken := netip.MustParseAddrPort(target(t, "127.0.0.1:0", echo))
	changed := *p
	changed.Listen = []config.Listen{freePort(t), {Addr: taken.Addr(), First: taken.Port(), Last: taken.Port()}}
	err := s.Apply([]*config.Proxy{&changed})
	if err == nil || !strings.Contains(err.Error(), "listen on tcp "+taken.String()) ||
		!strings.Contains(err.Error(), "another program listens there") {
		t.Errorf("error %v", err)
	}
	if err := echoes(dialTCP(t, p), "as before"); err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", changed.Listen[0].String()); err == nil {
		c.Close()
		t.Error("the socket that could be had is open")
	}
}

// openFiles counts the descriptors of this process.
func openFiles(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
