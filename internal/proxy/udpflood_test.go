package proxy

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
)

// from returns a proxy's client with its own source address.
func from(t testing.TB, address string, p *config.Proxy) *net.UDPConn {
	t.Helper()
	to := netip.AddrPortFrom(p.Listen[0].Addr, p.Listen[0].First)
	c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(address)}, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// strangers sends one datagram from each of many addresses and ports.
func strangers(t testing.TB, p *config.Proxy, count int, text string) {
	t.Helper()
	for i := range count {
		c := from(t, fmt.Sprintf("127.1.%d.%d", i/100, i%100+1), p)
		c.Write([]byte(text))
		c.Close()
	}
}

// came returns how many clients have come to the only proxy.
func came(s *Server) int {
	status := s.Status()[0]
	return int(status.Total + status.Refused["max_sessions"])
}

// ports records from which port a target receives each client's datagrams. The port stays the same while the session
// does.
type ports struct {
	mu   sync.Mutex
	seen map[string]map[netip.AddrPort]bool
}

func (p *ports) add(d datagram) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen == nil {
		p.seen = map[string]map[netip.AddrPort]bool{}
	}
	if p.seen[string(d.data)] == nil {
		p.seen[string(d.data)] = map[netip.AddrPort]bool{}
	}
	p.seen[string(d.data)][d.from] = true
}

func (p *ports) of(client string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.seen[client])
}

// TestFlood: strangers' datagrams do not end the session of a client that receives answers, whether or not the target
// answers the strangers too. New clients are served meanwhile.
func TestFlood(t *testing.T) {
	const sessions, clients, flood = 32, 8, 600
	for _, answers := range []bool{false, true} {
		t.Run(fmt.Sprint("strangers are answered: ", answers), func(t *testing.T) {
			var heard ports
			p := udp(t, packetTarget(t, "[::1]:0", func(d datagram) []byte {
				if bytes.HasPrefix(d.data, []byte("stranger")) && !answers {
					return nil
				}
				heard.add(d)
				return d.data
			}))
			p.MaxSessions, p.MaxPerClient = sessions, 2*clients
			s := start(t, Options{Loops: 4}, p)
			var known []*net.UDPConn
			name := func(i int) []byte { return fmt.Appendf(nil, "client %d", i) }
			for i := range clients {
				c := from(t, "127.0.0.2", p)
				known = append(known, c)
				rounds := 1
				if answers { // the second one proves the address, which strangers cannot do
					rounds = 2
				}
				for range rounds {
					if err := returns(c, name(i)); err != nil {
						t.Fatal(err)
					}
				}
			}
			strangers(t, p, flood, "stranger")
			eventually(t, "the flood", func() bool { return came(s) >= clients+flood })
			if n := s.Status()[0].Sessions; n > sessions {
				t.Errorf("%d sessions", n)
			}
			fresh := from(t, "127.0.0.3", p)
			eventually(t, "an answer to a new client", func() bool { // the client repeats its question, as clients do
				fresh.Write([]byte("a new client"))
				return nothing(fresh) != nil
			})
			for i, c := range known {
				if err := returns(c, name(i)); err != nil {
					t.Error(err)
				}
				if n := heard.of(string(name(i))); n != 1 {
					t.Errorf("client %d had %d sessions", i, n)
				}
			}
		})
	}
}

// TestFloodOfKnown: if all sessions belong to clients that receive answers, a flood takes no more than the strangers'
// share. Then strangers displace each other.
func TestFloodOfKnown(t *testing.T) {
	const sessions, flood = 32, 600
	p := udp(t, packetTarget(t, "[::1]:0", func(d datagram) []byte {
		if bytes.HasPrefix(d.data, []byte("stranger")) {
			return nil
		}
		return d.data
	}))
	p.MaxSessions, p.AccessLog = sessions, true
	lines := make(chan string, 2*flood)
	s := start(t, Options{Loops: 4, Log: func(line string) { lines <- line }}, p)
	for range sessions {
		c := from(t, "127.0.0.2", p)
		for range 2 {
			if err := returns(c, []byte("hello")); err != nil {
				t.Fatal(err)
			}
		}
	}
	strangers(t, p, flood, "stranger")
	eventually(t, "the flood", func() bool { return came(s) >= sessions+flood })
	known, evicted := 0, int(s.Status()[0].Evicted)
	for range evicted {
		line := soon(t, lines)
		if !strings.HasSuffix(line, "(evicted)") {
			t.Error(line)
		}
		if strings.HasPrefix(line, "proxy test: 127.0.0.2:") {
			known++
		}
	}
	if evicted < flood/2 || known > sessions/rankShare {
		t.Errorf("%d sessions were ended, %d of clients that are known", evicted, known)
	}
}

// TestFloodOfOne: an address never has more sessions than max_per_client. Other clients are served, and so are its
// existing sessions.
func TestFloodOfOne(t *testing.T) {
	for _, network := range []string{"127.0.0.", "[::1]"} {
		p := udp(t, packetTarget(t, "[::1]:0", repeat))
		if network == "[::1]" {
			p.Listen[0] = freeOn(t, "::1")
		}
		p.MaxPerClient = 4
		s := start(t, Options{Loops: 4}, p)
		first := dialUDP(t, p)
		for range 2 {
			if err := returns(first, []byte("hello")); err != nil {
				t.Fatal(err)
			}
		}
		for range 200 {
			c := dialUDP(t, p)
			c.Write([]byte("more"))
			c.Close()
		}
		eventually(t, "the refusals", func() bool { return s.Status()[0].Refused["max_per_client"] >= 100 })
		if n := s.Status()[0].Sessions; n != 4 {
			t.Errorf("%d sessions", n)
		}
		if err := returns(first, []byte("hello")); err != nil {
			t.Error(err)
		}
		if network != "[::1]" {
			if err := returns(from(t, "127.0.0.3", p), []byte("another")); err != nil {
				t.Error(err)
			}
		}
	}
}
