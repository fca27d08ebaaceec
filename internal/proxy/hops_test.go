package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
)

// handful is how many sessions one client may cause in a loop: one for each proxy, and some that another thread
// accepted at the same time. A busy machine has seen two of these; without an end there would be hundreds.
const handful = 8

// ring returns proxies of which each leads to the next and the last to the first. They use names, so that the
// configuration cannot detect the loop.
func ring(t testing.TB, proto uint8, n int, listen netip.Addr) []*config.Proxy {
	t.Helper()
	var proxies []*config.Proxy
	for i := range n {
		p := tcp(t, "127.0.0.1:1")
		if proto == config.UDP {
			p = udp(t, "127.0.0.1:1")
		}
		p.Section, p.Listen[0].Addr, p.MaxSessions = fmt.Sprint("p", i), listen, 500
		proxies = append(proxies, p)
	}
	for i, p := range proxies {
		p.Target.Port = proxies[(i+1)%n].Listen[0].First
	}
	return proxies
}

// sessionsMade waits until there are no new sessions, and returns how many there were and how many were refused as
// looped.
func sessionsMade(t testing.TB, s *Server) (total int, looped uint64) {
	t.Helper()
	before := -1
	eventually(t, "the last session", func() bool {
		total, looped = 0, 0
		for _, status := range s.Status() {
			total += int(status.Total)
			looped += status.Refused["loop"]
		}
		same := total == before
		before = total
		if !same {
			time.Sleep(200 * time.Millisecond)
		}
		return same || total > 10*handful
	})
	return total, looped
}

// TestLoopTCP: a client that returns to a proxy that it has passed is refused, also through other proxies.
func TestLoopTCP(t *testing.T) {
	for n := 1; n <= 3; n++ {
		for _, listen := range []string{"127.0.0.1", "0.0.0.0"} {
			t.Run(fmt.Sprint(n, " ", listen), func(t *testing.T) {
				proxies := ring(t, config.TCP, n, netip.MustParseAddr(listen))
				s := start(t, Options{Loops: 4}, proxies...)
				if err := refuses(proxies[0]); err != nil {
					t.Error(err)
				}
				total, looped := sessionsMade(t, s)
				if total > handful {
					t.Errorf("%d sessions of one client", total)
				}
				if n > 1 && looped == 0 {
					t.Errorf("nothing tells of the loop: %+v", s.Status())
				}
			})
		}
	}
}

// TestLoopUDP is the same for datagrams.
func TestLoopUDP(t *testing.T) {
	for n := 1; n <= 3; n++ {
		for _, listen := range []string{"127.0.0.1", "0.0.0.0"} {
			t.Run(fmt.Sprint(n, " ", listen), func(t *testing.T) {
				proxies := ring(t, config.UDP, n, netip.MustParseAddr(listen))
				s := start(t, Options{Loops: 4}, proxies...)
				c, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", proxies[0].Listen[0].First))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				for range 10 {
					io.WriteString(c, "hello")
				}
				eventually(t, "the refusal", func() bool {
					for _, status := range s.Status() {
						if len(status.Refused) > 0 {
							return true
						}
					}
					return false
				})
				sessionsMade(t, s)
				if open := s.Sessions(); open > n {
					t.Errorf("%d sessions of one client", open)
				}
			})
		}
	}
}

// TestLoopAddress: a loop through another address of the machine, to a listener on all addresses, is found too.
func TestLoopAddress(t *testing.T) {
	for _, address := range append(ownAddresses(t), "127.0.0.9") {
		for _, proto := range []uint8{config.TCP, config.UDP} {
			all, first := netip.IPv4Unspecified(), netip.MustParseAddr("127.0.0.1")
			if netip.MustParseAddr(address).Is6() {
				all, first = netip.IPv6Unspecified(), netip.IPv6Loopback()
			}
			proxies := ring(t, proto, 2, all)
			for _, p := range proxies {
				p.Target.Addr = netip.MustParseAddr(address)
			}
			proxies[1].Target.Port = proxies[1].Listen[0].First // itself
			s := start(t, Options{Loops: 4}, proxies...)
			network := config.ProtoName(proto)
			if c, err := net.Dial(network, netip.AddrPortFrom(first, proxies[0].Listen[0].First).String()); err == nil {
				defer c.Close()
				io.WriteString(c, "hello")
			}
			eventually(t, "the refusal", func() bool {
				_, looped := sessionsMade(t, s)
				return looped > 0 || s.Status()[1].Refused["target unreachable"] > 0 // on loopback: earlier
			})
			if total, _ := sessionsMade(t, s); total > handful {
				t.Errorf("%s by %s: %d sessions of one client", network, address, total)
			}
		}
	}
}

// TestLoopFlood: clients that leave at once do not start a loop that continues without them.
func TestLoopFlood(t *testing.T) {
	const clients = 200
	proxies := ring(t, config.TCP, 2, netip.MustParseAddr("127.0.0.1"))
	s := start(t, Options{Loops: 4}, proxies...)
	for range clients {
		c, err := net.Dial("tcp", proxies[0].Listen[0].String())
		if err != nil {
			continue // refused already
		}
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	last := -1
	eventually(t, "the last session", func() bool {
		total := 0
		for _, status := range s.Status() {
			total += int(status.Total)
		}
		ended := s.Sessions() == 0 && total == last
		if last = total; !ended {
			time.Sleep(200 * time.Millisecond)
		}
		return ended || total > clients*handful
	})
	if last > clients*handful {
		t.Errorf("%d sessions of %d clients", last, clients)
	}
}

// TestChain: proxies that lead to other proxies of the same server are no loop, whatever connections there were before.
func TestChain(t *testing.T) {
	last := tcp(t, target(t, "127.0.0.1:0", echo))
	middle, first := tcp(t, last.Listen[0].String()), tcp(t, "127.0.0.1:1")
	first.Target.Port = middle.Listen[0].First
	last.Section, middle.Section, first.Section = "last", "middle", "first"
	lastUDP := udp(t, packetTarget(t, "127.0.0.1:0", repeat))
	firstUDP := udp(t, lastUDP.Listen[0].String())
	lastUDP.Section, firstUDP.Section = "last udp", "first udp"
	s := start(t, Options{Loops: 4}, last, middle, first, lastUDP, firstUDP)
	for i := range 50 {
		if err := echoes(dialTCP(t, first), "hello"); err != nil {
			t.Fatalf("client %d: %v", i, err)
		}
		if err := echoes(dialTCP(t, middle), "hello"); err != nil {
			t.Fatalf("client %d of the middle: %v", i, err)
		}
		if err := returns(dialUDP(t, firstUDP), []byte("hello")); err != nil {
			t.Fatalf("client %d of udp: %v", i, err)
		}
	}
	for _, status := range s.Status() {
		if len(status.Refused) > 0 {
			t.Errorf("%+v", status)
		}
	}
	if len(s.hops.ways) == 0 {
		t.Error("no way is known: the test is about nothing")
	}
}

// TestWaysEnd: the number of ways of closed connections is limited.
func TestWaysEnd(t *testing.T) {
	h := newHops()
	for i := range 3 * endedWays {
		w := &way{flow: flow{ports: uint32(i)}}
		h.ways[w.flow] = w
		h.close(w)
		again := &way{flow: flow{ports: uint32(i)}} // a new connection with the same addresses
		if i%2 == 0 {
			h.ways[again.flow] = again
		}
	}
	if open := 3 * endedWays / 2; len(h.ended) != endedWays || len(h.ways) > open+endedWays {
		t.Errorf("%d of closed sockets, %d in all", len(h.ended), len(h.ways))
	}
}

// names returns a lookup with the same answers for every name.
func names(answers ...string) lookup {
	return func(_ context.Context, _ string, version int) ([]netip.Addr, error) {
		var list []netip.Addr
		for _, a := range answers {
			if a := netip.MustParseAddr(a); a.Is4() == (version == 4) {
				list = append(list, a)
			}
		}
		if len(list) == 0 {
			return nil, errors.New("no such address")
		}
		return list, nil
	}
}

// TestNameToListener: a name that leads to the proxy's own listener causes no session, not even with target_local. The
// name's other address is used.
func TestNameToListener(t *testing.T) {
	good := target(t, "127.0.0.9:0", echo)
	port := netip.MustParseAddrPort(good).Port()
	p := tcp(t, "home.example.net:1")
	p.Target.Port, p.TargetLocal = port, true
	p.Listen[0] = config.Listen{Addr: netip.MustParseAddr("127.0.0.1"), First: port, Last: port}
	s := start(t, Options{Lookup: names("127.0.0.1", "127.0.0.9")}, p)
	eventually(t, "the look-up", func() bool { return len(s.Status()[0].Targets) == 2 })
	if err := echoes(dialTCP(t, p), "hello"); err != nil {
		t.Error(err)
	}
	if status := s.Status()[0]; status.Total != 1 {
		t.Errorf("%+v", status)
	}
}

// TestLoopTranslated: a loop through a public address that leads back to another address of this machine, as with a
// cloud that translates it, is found.
func TestLoopTranslated(t *testing.T) {
	n := newNamespaces(t, "cloud")[0]
	n.ip("addr add 10.0.0.5/32 dev lo")
	n.ip("route add default dev lo")
	run(t, "ip netns exec "+n.name+" nft add table ip t; add chain ip t o { type nat hook output priority -100 ; } ; "+
		"add rule ip t o ip daddr 198.51.100.144 dnat to 10.0.0.5")
	public := netip.MustParseAddr("198.51.100.144")
	for _, listen := range []string{"0.0.0.0", "10.0.0.5"} {
		for _, proto := range []uint8{config.TCP, config.UDP} {
			proxies := ring(t, proto, 2, netip.MustParseAddr(listen))
			for _, p := range proxies {
				p.Target.Addr, p.Public = public, []netip.Addr{public}
			}
			s := n.server(proxies...)
			n.do(func() {
				to := fmt.Sprintf("10.0.0.5:%d", proxies[0].Listen[0].First)
				if c, err := net.Dial(config.ProtoName(proto), to); err == nil { // else it was refused already
					t.Cleanup(func() { c.Close() })
					io.WriteString(c, "hello")
				}
			})
			total, last := 0, -1
			eventually(t, "the refusal", func() bool {
				time.Sleep(200 * time.Millisecond)
				looped := uint64(0)
				last, total = total, 0
				for _, status := range s.status().Proxies {
					total, looped = total+int(status.Total), looped+status.Refused["loop"]
				}
				return looped > 0 && total == last || total > 10*handful
			})
			if total > handful {
				t.Errorf("%s at %s: %d sessions of one client", config.ProtoName(proto), listen, total)
			}
		}
	}
}

// TestNameToPublic: a name that leads to this VPS's public address is not used, whatever its network card has.
func TestNameToPublic(t *testing.T) {
	p := tcp(t, "home.example.net:1")
	p.Public = []netip.Addr{netip.MustParseAddr("198.51.100.144")}
	s := start(t, Options{Lookup: names("198.51.100.144", "203.0.113.5")}, p)
	eventually(t, "the look-up", func() bool { return len(s.Status()[0].Targets) > 0 })
	if at := s.Status()[0].Targets; len(at) != 1 || at[0] != "203.0.113.5" {
		t.Errorf("the name leads to %s", at)
	}
}
