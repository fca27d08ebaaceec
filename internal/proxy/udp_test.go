package proxy

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/config"
)

// udp returns a proxy for a target, on a free port.
func udp(t testing.TB, target string) *config.Proxy {
	t.Helper()
	p := tcp(t, target)
	p.Proto, p.Listen, p.IdleTimeout = config.UDP, []config.Listen{freePort(t)}, 3*time.Minute
	return p
}

func listenPacket(t testing.TB, address string) *net.UDPConn {
	t.Helper()
	network := "udp4"
	if strings.HasPrefix(address, "[") {
		network = "udp6"
	}
	c, err := net.ListenPacket(network, address)
	if err != nil {
		t.Fatal(err)
	}
	enlarge(t, c.(*net.UDPConn))
	return c.(*net.UDPConn)
}

// enlarge makes room for datagrams that are not read yet, as much as this user may, and returns how many bytes the
// kernel counts at most, its own overhead included (SO_RCVBUF in socket(7)).
func enlarge(t testing.TB, c *net.UDPConn) (size int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20) != nil {
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20)
		}
		size, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
	}); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return size
}

// datagram is a datagram that a target has received.
type datagram struct {
	from netip.AddrPort
	data []byte
}

// packetTarget passes each datagram to serve and sends back the result, unless it is nil.
func packetTarget(t testing.TB, address string, serve func(datagram) []byte) string {
	t.Helper()
	c := listenPacket(t, address)
	var all sync.WaitGroup
	t.Cleanup(func() {
		c.Close()
		all.Wait()
	})
	all.Add(1)
	go func() {
		defer all.Done()
		block := make([]byte, maxDatagram)
		for {
			n, from, err := c.ReadFromUDPAddrPort(block)
			if err != nil {
				return
			}
			if answer := serve(datagram{from, bytes.Clone(block[:n])}); answer != nil {
				c.WriteToUDPAddrPort(answer, from)
			}
		}
	}()
	return c.LocalAddr().String()
}

func repeat(d datagram) []byte {
	if d.data == nil {
		return []byte{}
	}
	return d.data
}

func dialUDP(t testing.TB, p *config.Proxy) *net.UDPConn {
	t.Helper()
	c, err := net.Dial("udp", p.Listen[0].String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	c.(*net.UDPConn).SetReadBuffer(4 << 20)
	return c.(*net.UDPConn)
}

// returns returns nil if the datagram comes back unchanged.
func returns(c net.Conn, data []byte) error {
	if _, err := c.Write(data); err != nil {
		return err
	}
	got := make([]byte, maxDatagram)
	n, err := c.Read(got)
	if err != nil || !bytes.Equal(got[:n], data) {
		return fmt.Errorf("sent %d bytes (%.20q), got %d (%.20q), %v", len(data), data, n, got[:n], err)
	}
	return nil
}

// soon receives from a channel within patience.
func soon[T any](t testing.TB, from <-chan T) T {
	t.Helper()
	select {
	case got := <-from:
		return got
	case <-time.After(patience):
		t.Fatal("what has to come does not")
		panic(nil)
	}
}

// counts waits for the only proxy's figures: a datagram may arrive before it is counted.
func counts(t testing.TB, s *Server, want Status) {
	t.Helper()
	var got Status
	defer func() {
		if t.Failed() {
			t.Logf("the figures are %+v", got)
		}
	}()
	eventually(t, fmt.Sprintf("status %+v", want), func() bool {
		got = s.Status()[0]
		figures := got
		figures.Name, figures.Proxy, figures.Targets, figures.LastError, figures.ErrorTime = "", "", nil, "", nil
		return reflect.DeepEqual(figures, want)
	})
}

// nothing returns nil if no datagram arrives for a while.
func nothing(c net.Conn) error {
	c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	defer c.SetReadDeadline(time.Now().Add(patience))
	got := make([]byte, maxDatagram)
	n, err := c.Read(got)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return fmt.Errorf("%.20q comes, %v; want nothing", got[:n], err)
}

// TestDatagramSizes: datagrams of every size arrive whole, in both directions and families, including empty ones.
func TestDatagramSizes(t *testing.T) {
	for _, way := range []struct {
		listen, target string
		largest        int
	}{
		{"127.0.0.1", "127.0.0.1:0", 65507}, {"127.0.0.1", "[::1]:0", 65507},
		{"::1", "127.0.0.1:0", 65507}, {"::1", "[::1]:0", 65527},
	} {
		t.Run(way.listen+" "+way.target, func(t *testing.T) {
			p := udp(t, packetTarget(t, way.target, repeat))
			p.Listen[0] = freeOn(t, way.listen)
			s := start(t, Options{}, p)
			c := dialUDP(t, p)
			data := make([]byte, way.largest)
			rand.NewChaCha8([32]byte{1}).Read(data)
			total := 0
			for _, size := range []int{0, 1, 511, 1232, 1472, 1473, 4096, 16384, 32768, 65000, way.largest - 1,
				way.largest} {
				if err := returns(c, data[:size]); err != nil {
					t.Errorf("%d bytes: %v", size, err)
				}
				total += size
			}
			counts(t, s, Status{Sessions: 1, Total: 1, BytesUp: uint64(total), BytesDown: uint64(total)})
		})
	}
	t.Run("more than IPv4 can", func(t *testing.T) {
		p := udp(t, packetTarget(t, "127.0.0.1:0", repeat))
		p.Listen[0] = freeOn(t, "::1")
		s := start(t, Options{}, p)
		c := dialUDP(t, p)
		if _, err := c.Write(make([]byte, 65527)); err != nil {
			t.Fatal(err)
		}
		if err := returns(c, []byte("the next one")); err != nil {
			t.Error(err)
		}
		if status := s.Status()[0]; status.Dropped != 1 || len(status.Refused) != 0 ||
			!strings.Contains(status.LastError, "message too long") {
			t.Errorf("%+v", status)
		}
	})
}

// TestManyClients: each client gets its own answers only, and has its own port to the target.
func TestManyClients(t *testing.T) {
	const clients, rounds = 200, 50
	var mu sync.Mutex
	ports := map[string]string{} // by client
	p := udp(t, packetTarget(t, "[::1]:0", func(d datagram) []byte {
		mu.Lock()
		defer mu.Unlock()
		client := string(d.data[:4])
		if before, ok := ports[client]; ok && before != d.from.String() {
			t.Errorf("client %x comes from %s and %s", client, before, d.from)
		}
		ports[client] = d.from.String()
		return append([]byte("re "), d.data...)
	}))
	s := start(t, Options{}, p)
	var all sync.WaitGroup
	for i := range clients {
		c := dialUDP(t, p)
		all.Add(1)
		go func() {
			defer all.Done()
			rng := rand.New(rand.NewPCG(uint64(i), 0))
			got := make([]byte, maxDatagram)
			for round := range rounds {
				data := binary.BigEndian.AppendUint32(nil, uint32(i))
				data = binary.BigEndian.AppendUint32(data, uint32(round))
				for range rng.IntN(1300) {
					data = append(data, byte(rng.Uint32()))
				}
				if _, err := c.Write(data); err != nil {
					t.Error(err)
					return
				}
				n, err := c.Read(got)
				if err != nil || !bytes.Equal(got[:n], append([]byte("re "), data...)) {
					t.Errorf("client %d, round %d: %d bytes that are not the answer, %v", i, round, n, err)
					return
				}
			}
		}()
	}
	all.Wait()
	mu.Lock()
	defer mu.Unlock()
	distinct := map[string]bool{}
	for _, port := range ports {
		distinct[port] = true
	}
	if status := s.Status()[0]; len(distinct) != clients || status.Sessions != clients || status.Total != clients ||
		status.Dropped != 0 {
		t.Errorf("%d ports, %+v", len(distinct), status)
	}
}

// segmented makes a socket split what is written to it.
func segmented(t testing.TB, c *net.UDPConn, size int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, size) })
	if err != nil {
		t.Fatal(err)
	}
}

// TestSegments: datagrams that a client or target hands to the kernel at once (UDP_SEGMENT) arrive one by one.
func TestSegments(t *testing.T) {
	for _, header := range []int{0, 2} {
		t.Run(fmt.Sprint("proxy_protocol ", header), func(t *testing.T) {
			const size, count = 1000, 40
			came := make(chan []byte, 2*count)
			p := udp(t, packetTarget(t, "[::1]:0", func(d datagram) []byte {
				if header != 0 {
					_, rest, err := parseDatagram(d.data)
					if err != nil {
						t.Error(err)
						return nil
					}
					d.data = rest
				}
				came <- d.data
				return d.data
			}))
			p.ProxyProtocol = header
			s := start(t, Options{}, p)
			c := dialUDP(t, p)
			data := make([]byte, count*size-300)
			rand.NewChaCha8([32]byte{2}).Read(data)
			segmented(t, c, size)
			if _, err := c.Write(data); err != nil {
				t.Fatal(err)
			}
			block := make([]byte, maxDatagram)
			for begin := 0; begin < len(data); begin += size {
				want := data[begin:min(begin+size, len(data))]
				if got := soon(t, came); !bytes.Equal(got, want) {
					t.Fatalf("%d bytes come at %d, want %d", len(got), begin, len(want))
				}
				n, err := c.Read(block)
				if err != nil || !bytes.Equal(block[:n], want) {
					t.Fatalf("%d bytes come back at %d, %v; want %d", n, begin, err, len(want))
				}
			}
			counts(t, s, Status{Sessions: 1, Total: 1, BytesUp: uint64(len(data)), BytesDown: uint64(len(data))})
		})
	}
}

// TestDatagramHeader: every datagram tells the target its sender and destination.
func TestDatagramHeader(t *testing.T) {
	for _, listen := range []string{"127.0.0.1", "::1", "0.0.0.0"} {
		came := make(chan []byte, 1)
		p := udp(t, packetTarget(t, "[::1]:0", func(d datagram) []byte {
			came <- d.data
			return nil
		}))
		p.Listen[0], p.ProxyProtocol = freeOn(t, listen), 2
		start(t, Options{}, p)
		to := netip.AddrPortFrom(p.Listen[0].Addr, p.Listen[0].First)
		if to.Addr().IsUnspecified() {
			to = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.77"), to.Port())
		}
		c, err := net.Dial("udp", to.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, text := range []string{"first", "", "third"} {
			io.WriteString(c, text)
			h, rest, err := parseDatagram(soon(t, came))
			if err != nil {
				t.Fatal(err)
			}
			if h.Version != 2 || h.SourceAddr.String() != c.LocalAddr().String() ||
				h.DestinationAddr.String() != to.String() || h.SourceAddr.Network() != "udp" || string(rest) != text {
				t.Errorf("%s → %s: %q; want %s → %s: %q", h.SourceAddr, h.DestinationAddr, rest, c.LocalAddr(),
					to, text)
			}
		}
	}
}

// TestSessionExpires: an idle session ends, and the client's next datagram starts a new one.
func TestSessionExpires(t *testing.T) {
	var mu sync.Mutex
	var from []netip.AddrPort
	p := udp(t, packetTarget(t, "[::1]:0", func(d datagram) []byte {
		mu.Lock()
		defer mu.Unlock()
		from = append(from, d.from)
		return d.data
	}))
	p.IdleTimeout, p.AccessLog = time.Second, true
	lines := make(chan string, 10)
	s := start(t, Options{Log: func(line string) { lines <- line }}, p)
	c := dialUDP(t, p)
	if err := returns(c, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if line := soon(t, lines); !strings.HasPrefix(line, "proxy test: "+c.LocalAddr().String()+" → [::1]:") ||
		!strings.HasSuffix(line, "5 bytes up, 5 down (idle)") {
		t.Error(line)
	}
	if n := s.Status()[0].Sessions; n != 0 {
		t.Errorf("%d sessions", n)
	}
	if err := returns(c, []byte("again")); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(from) != 2 || from[0] == from[1] {
		t.Errorf("the target heard of %v, want two ports", from)
	}
}

// TestEviction: the session that is idle longest makes room, whichever loop it is in. The limit is never exceeded.
func TestEviction(t *testing.T) {
	p := udp(t, packetTarget(t, "[::1]:0", repeat))
	p.MaxSessions, p.AccessLog = 8, true
	lines := make(chan string, 100)
	s := start(t, Options{Loops: 4, Log: func(line string) { lines <- line }}, p)
	var clients []*net.UDPConn
	for range p.MaxSessions {
		clients = append(clients, dialUDP(t, p))
		if err := returns(clients[len(clients)-1], []byte("first")); err != nil {
			t.Fatal(err)
		}
	}
	// The first session is now the latest.
	if err := returns(clients[0], []byte("again")); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := returns(dialUDP(t, p), []byte("more")); err != nil {
			t.Fatal(err)
		}
		if line := soon(t, lines); !strings.HasPrefix(line, "proxy test: "+clients[i+1].LocalAddr().String()+" ") ||
			!strings.HasSuffix(line, "(evicted)") {
			t.Errorf("%s; want that %s made room", line, clients[i+1].LocalAddr())
		}
	}
	counts(t, s, Status{Sessions: 8, Total: 11, BytesUp: 8*5 + 5 + 3*4, BytesDown: 8*5 + 5 + 3*4, Evicted: 3})
	for i, c := range clients {
		if err := returns(c, []byte("all are served")); err != nil {
			t.Errorf("client %d: %v", i, err)
		}
		if n := s.Status()[0].Sessions; n > 8 {
			t.Errorf("%d sessions", n)
		}
	}
}

// TestPerClientUDP: a client with max_per_client sessions gets no more, and keeps those that it has.
func TestPerClientUDP(t *testing.T) {
	p := udp(t, packetTarget(t, "[::1]:0", repeat))
	p.MaxPerClient = 2
	s := start(t, Options{}, p)
	a, b, c := dialUDP(t, p), dialUDP(t, p), dialUDP(t, p)
	for _, c := range []net.Conn{a, b} {
		if err := returns(c, []byte("hello")); err != nil {
			t.Fatal(err)
		}
	}
	io.WriteString(c, "too many")
	if err := nothing(c); err != nil {
		t.Error(err)
	}
	if err := returns(a, []byte("still")); err != nil {
		t.Error(err)
	}
	counts(t, s, Status{Sessions: 2, Total: 2, BytesUp: 15, BytesDown: 15,
		Refused: map[string]uint64{"max_per_client": 1}})
}

func TestAllowedUDP(t *testing.T) {
	p := udp(t, packetTarget(t, "[::1]:0", repeat))
	p.Clients = []netip.Prefix{netip.MustParsePrefix("127.0.0.7/32")}
	s := start(t, Options{}, p)
	c := dialUDP(t, p)
	io.WriteString(c, "not for you")
	if err := nothing(c); err != nil {
		t.Error(err)
	}
	other, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 7)},
		net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.Listen[0].Addr, p.Listen[0].First)))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	other.SetDeadline(time.Now().Add(patience))
	if err := returns(other, []byte("hello")); err != nil {
		t.Error(err)
	}
	counts(t, s, Status{Sessions: 1, Total: 1, BytesUp: 5, BytesDown: 5, Refused: map[string]uint64{"src_ip": 1}})
}

// TestTargetDownUDP: a closed port at the target is counted, ends no session, and needs no action when the target
// returns.
func TestTargetDownUDP(t *testing.T) {
	nobody := freeOn(t, "::1")
	p := udp(t, nobody.String())
	s := start(t, Options{}, p)
	c := dialUDP(t, p)
	io.WriteString(c, "anybody there?")
	eventually(t, "the refusal's count", func() bool { return s.Status()[0].Refused["target unreachable"] == 1 })
	// The datagram after a refused one is not lost.
	for range 10 {
		io.WriteString(c, "hello")
	}
	eventually(t, "the bytes", func() bool { return s.Status()[0].BytesUp == 14+10*5 && s.Status()[0].Dropped == 0 })
	if status := s.Status()[0]; status.Sessions != 1 ||
		!strings.Contains(status.LastError, "send to "+nobody.String()+": connection refused") {
		t.Errorf("%+v", status)
	}
	packetTarget(t, nobody.String(), repeat)
	if err := returns(c, []byte("again")); err != nil {
		t.Error(err)
	}
	if err := returns(dialUDP(t, p), []byte("another client")); err != nil {
		t.Error(err)
	}
}

// TestFollow: if a name changes, a session moves to the new address when the old one is silent, even if the client
// never pauses. If the old one answers, the session stays.
func TestFollow(t *testing.T) {
	old, err := net.ListenPacket("udp4", "127.0.0.8:0")
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	answer := func(d datagram) []byte { return append([]byte("from the new address: "), d.data...) }
	port := netip.MustParseAddrPort(packetTarget(t, fmt.Sprintf("127.0.0.9:%d", old.LocalAddr().(*net.UDPAddr).Port),
		answer)).Port()
	var mu sync.Mutex
	now := netip.MustParseAddr("127.0.0.8")
	p := udp(t, "home.example.net:1")
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
	c := dialUDP(t, p)
	heard := make([]byte, 100)
	ask := func(text string) string {
		io.WriteString(c, text)
		c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		n, _ := c.Read(heard)
		return string(heard[:n])
	}
	ask("hello")
	old.SetDeadline(time.Now().Add(patience))
	n, from, err := old.ReadFrom(heard)
	if err != nil || string(heard[:n]) != "hello" {
		t.Fatal(string(heard[:n]), err)
	}
	mu.Lock()
	now = netip.MustParseAddr("127.0.0.9")
	mu.Unlock()
	s.services["test"].targets.Load().again()
	eventually(t, "the new address", func() bool { return s.Status()[0].Targets[0] == "127.0.0.9" })
	old.WriteTo([]byte("still here"), from)
	c.SetReadDeadline(time.Now().Add(patience))
	if n, err := c.Read(heard); string(heard[:n]) != "still here" {
		t.Fatal(string(heard[:n]), err)
	}
	if got := ask("hello again"); got != "" {
		t.Errorf("%q comes, although the old address answers", got)
	}
	old.Close()
	eventually(t, "an answer of the new address", func() bool {
		return ask("anybody?") == "from the new address: anybody?"
	})
	if status := s.Status()[0]; status.Sessions != 1 || status.Total != 1 {
		t.Errorf("%+v", status)
	}
}

// TestTooFast: every datagram is forwarded or counted as dropped, also while a loop is busy.
func TestTooFast(t *testing.T) {
	const count, size = 20000, 1000
	p := udp(t, packetTarget(t, "[::1]:0", func(datagram) []byte { return nil }))
	s := start(t, Options{}, p)
	release := make(chan struct{})
	for _, l := range s.loops {
		l.post(func() { <-release })
	}
	c := dialUDP(t, p)
	data := make([]byte, size)
	for range count {
		if _, err := c.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	close(release)
	eventually(t, "all datagrams", func() bool {
		status := s.Status()[0]
		return status.BytesUp/size+status.Dropped == count
	})
	if status := s.Status()[0]; status.Dropped == 0 || status.BytesUp == 0 {
		t.Errorf("%+v", status)
	}
	io.WriteString(c, "and the next")
	eventually(t, "the next", func() bool { return s.Status()[0].BytesUp%size == 12 })
}

// TestWildcardSource: an answer comes from the address that the client sent to.
func TestWildcardSource(t *testing.T) {
	p := udp(t, packetTarget(t, "[::1]:0", repeat))
	p.Listen = []config.Listen{freeOn(t, "0.0.0.0")}
	s := start(t, Options{}, p)
	// One client socket sends to several addresses of the machine; each is its own session.
	c := listenPacket(t, "127.0.0.1:0")
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	block := make([]byte, 100)
	for i := range 20 {
		to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 3, byte(i%5 + 1)}), p.Listen[0].First)
		text := fmt.Sprint("question ", i)
		c.WriteToUDPAddrPort([]byte(text), to)
		n, from, err := c.ReadFromUDPAddrPort(block)
		if err != nil || from != to || string(block[:n]) != text {
			t.Errorf("%q comes from %s, %v; want %q from %s", block[:n], from, err, text, to)
		}
	}
	if n := s.Status()[0].Sessions; n != 5 {
		t.Errorf("%d sessions, want 5", n)
	}
}

// TestReloadUDP: sessions survive reloads, also if their listener is removed or comes back.
func TestReloadUDP(t *testing.T) {
	var mu sync.Mutex
	ports := map[netip.AddrPort]bool{}
	p := udp(t, packetTarget(t, "[::1]:0", func(d datagram) []byte {
		mu.Lock()
		defer mu.Unlock()
		ports[d.from] = true
		return d.data
	}))
	s := start(t, Options{}, p)
	apply := func(proxies ...*config.Proxy) {
		t.Helper()
		if err := s.Apply(proxies); err != nil {
			t.Fatal(err)
		}
	}
	c := dialUDP(t, p)
	same := func(text string) {
		t.Helper()
		if err := returns(c, []byte(text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		mu.Lock()
		defer mu.Unlock()
		if len(ports) != 1 {
			t.Errorf("%s: the target heard of %v, want one port", text, ports)
		}
	}
	same("before")
	changed := *p
	changed.MaxSessions++
	apply(&changed)
	same("another option")
	wildcard := *p
	wildcard.Listen = []config.Listen{{Addr: netip.IPv4Unspecified(), First: p.Listen[0].First, Last: p.Listen[0].Last}}
	apply(&wildcard)
	same("a wildcard instead of the address")
	apply(p)
	same("the address again")
	eventually(t, "the wildcard's end, whose session is the address's again", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.draining) == 0
	})
	apply()
	same("removed")
	stranger := dialUDP(t, p)
	io.WriteString(stranger, "hello?")
	if err := nothing(stranger); err != nil {
		t.Error(err)
	}
	status := s.Status()
	if len(status) != 1 || !status[0].Draining || status[0].Sessions != 1 || status[0].Dropped != 1 {
		t.Errorf("%+v", status)
	}
	apply(p)
	same("back")
	mu.Lock()
	ports = map[netip.AddrPort]bool{}
	mu.Unlock()
	quick := *p
	quick.IdleTimeout = time.Second
	apply(&quick)
	apply()
	eventually(t, "the end of draining", func() bool { return len(s.Status()) == 0 })
	// The port is free again.
	eventually(t, "the port", func() bool {
		c, err := net.ListenPacket("udp", p.Listen[0].String())
		if err != nil {
			return false
		}
		c.Close()
		return true
	})
}

// TestDrain waits for TCP connections and not for UDP sessions.
func TestDrain(t *testing.T) {
	p, q := udp(t, packetTarget(t, "[::1]:0", repeat)), tcp(t, target(t, "[::1]:0", echo))
	q.Section = "tcp"
	s := start(t, Options{}, p, q)
	if err := returns(dialUDP(t, p), []byte("hello")); err != nil {
		t.Fatal(err)
	}
	c := dialTCP(t, q)
	if err := echoes(c, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := s.Drain(50 * time.Millisecond); err == nil || err.Error() != "1 connections are still open after 50ms" {
		t.Error(err)
	}
	drained := make(chan error)
	go func() { drained <- s.Drain(time.Hour) }()
	c.Close()
	if err := soon(t, drained); err != nil {
		t.Error(err)
	}
	if n := s.Sessions(); n != 1 {
		t.Errorf("%d sessions", n)
	}
}

// TestTakenUDP: the proxy does not share another program's port, whatever options that program has set.
func TestTakenUDP(t *testing.T) {
	other := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		return err
	}}
	c, err := other.ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	files := openFiles(t)
	p := udp(t, "[::1]:9")
	taken := netip.MustParseAddrPort(c.LocalAddr().String())
	p.Listen = []config.Listen{freePort(t), {Addr: taken.Addr(), First: taken.Port(), Last: taken.Port()}}
	s := start(t, Options{})
	before := openFiles(t)
	if err := s.Apply([]*config.Proxy{p}); err == nil ||
		!strings.Contains(err.Error(), "listen on udp "+taken.String()+": address already in use (another program "+
			"listens there") {
		t.Errorf("error %v", err)
	}
	if n := openFiles(t); n != before {
		t.Errorf("%d descriptors are open, %d before (%d without a server)", n, before, files)
	}
}
