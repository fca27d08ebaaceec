//go:build lab

package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/lab"
	"github.com/ds4relay/ds4relay/internal/reconcile"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(child())
	}
	if os.Getenv(programEnv) != "" {
		main()
	}
	lab.Main(m)
}

const (
	public   = "198.51.100.144"
	client4  = "203.0.113.10"
	home4    = "192.168.1.210"
	home6    = "2001:db8:fdd2::210"
	natted4  = "192.0.2.1" // the home's address after the carrier's NAT
	patience = 5 * time.Second
)

var (
	vpsEndpoint    = netip.MustParseAddr("2001:db8:6ef9:0:198:51:100:144")
	routerEndpoint = netip.MustParseAddr("2001:db8:fdd2:0:198:51:100:144")
)

const vpsRelay = `config relay 'home'
	option role 'vps'
	option ipaddr '198.51.100.144'
	option ip6addr '2001:db8:6ef9::/64'
	option peeraddr '2001:db8:fdd2::/64'
	option tunlink 'eth0'
	option device 'wrap1'
	list keep 'tcp:22'
`

const routerRelay = `config relay 'home'
	option role 'router'
	option ipaddr '198.51.100.144'
	option ip6addr '2001:db8:fdd2::/64'
	option peeraddr '2001:db8:6ef9::/64'
	option tunlink 'wan'
	option device 'wrap1'
`

const forwardAll = `
config forward 'server'
	option proto 'all'
	option dest_ip '192.168.1.210'
`

const forwardWeb = `
config forward 'web'
	list proto 'tcp'
	list proto 'udp'
	option src_dport '8080'
	option dest_ip '192.168.1.211'
	option dest_port '80'
`

// end is one machine with its files.
type end struct {
	t      *testing.T
	host   *lab.Host
	dir    string
	env    map[string]string
	apply  func(reconcile.Kernel) reconcile.Kernel
	config string // its path
	text   string // and what is in it
}

func newEnd(t *testing.T, host *lab.Host, config string) *end {
	t.Helper()
	e := &end{t: t, host: host, dir: t.TempDir(), env: map[string]string{}}
	e.write(config)
	return e
}

func (e *end) write(config string) {
	e.t.Helper()
	e.config = filepath.Join(e.dir, "ds4relay")
	e.text = config
	if os.Getenv(transportEnv) == "wireguard" {
		config = e.overWireGuard(config)
	}
	if err := os.WriteFile(e.config, []byte(config), 0o644); err != nil {
		e.t.Fatal(err)
	}
}

func (e *end) runDir() string { return filepath.Join(e.dir, "run") }

// try calls the program in the end's namespace.
func (e *end) try(args ...string) (code int, stdout, stderr string) {
	e.t.Helper()
	var out, problems bytes.Buffer
	err := e.host.Do(func() error {
		a := &app{stdout: &out, stderr: &problems, env: func(name string) string { return e.env[name] }, apply: e.apply}
		code = a.main(append([]string{"-c", e.config, "--run", e.runDir()}, args...))
		return nil
	})
	if err != nil {
		e.t.Fatal(err)
	}
	return code, out.String(), problems.String()
}

// do is like try for commands that must succeed.
func (e *end) do(args ...string) string {
	e.t.Helper()
	code, stdout, stderr := e.try(args...)
	if code != 0 {
		e.t.Fatalf("%s: ds4relay %s: exit status %d\n%s%s", e.host.Name, strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

func (e *end) snapshot() string {
	e.t.Helper()
	s, err := e.host.Snapshot()
	if err != nil {
		e.t.Fatal(err)
	}
	return s
}

// relay has both ends of a relay.
type relay struct {
	*lab.Net
	vps, router *end
}

func newRelay(t *testing.T, options lab.Options, forwards string) *relay {
	t.Helper()
	n, err := lab.New(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return &relay{n, newEnd(t, n.VPS, vpsRelay+forwards), newEnd(t, n.Router, routerRelay+forwards)}
}

// atOnce tests both ends at the same time; they are independent here, and one alone keeps little more than one CPU
// busy.
func (r *relay) atOnce(t *testing.T, test func(t *testing.T, e *end)) {
	for _, e := range []*end{r.vps, r.router} {
		t.Run(e.host.Name, func(t *testing.T) {
			t.Parallel()
			e.t = t
			test(t, e)
		})
	}
}

func (r *relay) up() {
	r.vps.t.Helper()
	r.vps.do("up")
	r.router.do("up")
}

// serveTCP answers each connection with the client's address and port, and then echoes.
func serveTCP(t *testing.T, h *lab.Host, port int) {
	t.Helper()
	serve(t, h, "tcp4", port)
}

func serve(t *testing.T, h *lab.Host, network string, port int) {
	t.Helper()
	listener, err := h.Listen(network, fmt.Sprintf(":%d", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				fmt.Fprintln(conn, conn.RemoteAddr())
				io.Copy(conn, conn)
			}()
		}
	}()
}

// serveUDP echoes datagrams behind the client's address and a line feed.
func serveUDP(t *testing.T, h *lab.Host, port int) {
	t.Helper()
	conn, err := h.ListenPacket("udp4", fmt.Sprintf(":%d", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go echoUDP(conn)
}

func echoUDP(conn net.PacketConn) {
	buffer := make([]byte, 1<<16)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		conn.WriteTo(append([]byte(from.String()+"\n"), buffer[:n]...), from)
	}
}

// askTCP connects, and returns the address that the server saw and the connection.
func askTCP(h *lab.Host, to string) (string, net.Conn, error) {
	conn, err := h.Dial("tcp4", to, patience)
	if err != nil {
		return "", nil, err
	}
	conn.SetDeadline(time.Now().Add(patience))
	line := make([]byte, 64)
	n, err := conn.Read(line)
	if err != nil {
		conn.Close()
		return "", nil, err
	}
	seen, err := netip.ParseAddrPort(strings.TrimSpace(string(line[:n])))
	if err != nil {
		conn.Close()
		return "", nil, err
	}
	return seen.Addr().Unmap().String(), conn, nil
}

// seenTCP fails the test unless the server at to sees that address.
func seenTCP(t *testing.T, h *lab.Host, to, want string) {
	t.Helper()
	seen, conn, err := askTCP(h, to)
	if err != nil {
		t.Errorf("%s to %s over TCP: %v", h.Name, to, err)
		return
	}
	conn.Close()
	if seen != want {
		t.Errorf("%s to %s over TCP: the server saw %s, want %s", h.Name, to, seen, want)
	}
}

// refusedTCP fails the test if a connection succeeds.
func refusedTCP(t *testing.T, h *lab.Host, to string) {
	t.Helper()
	conn, err := h.Dial("tcp4", to, patience/10)
	if err == nil {
		conn.Close()
		t.Errorf("%s to %s over TCP: connected, want no connection", h.Name, to)
	}
}

// seenUDP sends a datagram of that size and expects it back from the same address, with the address that the server
// saw.
func seenUDP(t *testing.T, h *lab.Host, to, want string, size int) {
	t.Helper()
	conn, err := h.Dial("udp4", to, patience)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	payload := bytes.Repeat([]byte{'x', 'y', 'z'}, size/3+1)[:size]
	buffer := make([]byte, 1<<16)
	var last error
	for range 3 { // the first large one may only teach the sender the path's MTU
		conn.SetDeadline(time.Now().Add(patience / 2))
		if _, last = conn.Write(payload); last != nil {
			continue
		}
		n, err := conn.Read(buffer)
		if last = err; err != nil {
			continue
		}
		from, echo, _ := strings.Cut(string(buffer[:n]), "\n")
		if seen, err := netip.ParseAddrPort(from); err != nil || seen.Addr().String() != want {
			t.Errorf("%s to %s over UDP: the server saw %s, want %s", h.Name, to, from, want)
		}
		if echo != string(payload) {
			t.Errorf("%s to %s over UDP: %d bytes came back, not the %d sent", h.Name, to, len(echo), size)
		}
		return
	}
	t.Errorf("%s to %s over UDP, %d bytes: %v", h.Name, to, size, last)
}

func pings(t *testing.T, h *lab.Host, to string) {
	t.Helper()
	if out, err := h.Run("ping", "-4", "-n", "-c", "1", "-W", "3", to); err != nil {
		t.Errorf("%s: ping %s: %v\n%s", h.Name, to, err, out)
	}
}

// capture collects packets until the returned function is called.
func capture(t *testing.T, h *lab.Host, device string) func() []lab.Packet {
	t.Helper()
	s, err := lab.Capture(h, device)
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	t.Cleanup(func() {
		if !stopped {
			s.Stop()
		}
	})
	return func() []lab.Packet {
		stopped = true
		return s.Stop()
	}
}

// difference shows where two texts differ.
func difference(a, b string) string {
	dir, err := os.MkdirTemp("", "difference")
	if err != nil {
		return err.Error()
	}
	defer os.RemoveAll(dir)
	os.WriteFile(filepath.Join(dir, "want"), []byte(a), 0o600)
	os.WriteFile(filepath.Join(dir, "got"), []byte(b), 0o600)
	cmd := exec.Command("diff", "-u", "want", "got")
	cmd.Dir = dir
	out, _ := cmd.CombinedOutput()
	return string(out)
}

func same(t *testing.T, what, want, got string) {
	t.Helper()
	if want != got {
		t.Errorf("%s differs:\n%s", what, difference(want, got))
	}
}
