package proxy

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/ds4relay/ds4relay/internal/config"
)

// ownAddresses returns this machine's addresses except loopback.
func ownAddresses(t testing.TB) []string {
	t.Helper()
	list, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	var own []string
	for _, a := range list {
		if addr := netip.MustParsePrefix(a.String()).Addr(); addr.IsGlobalUnicast() {
			own = append(own, addr.String())
		}
	}
	return own
}

func TestUnfit(t *testing.T) {
	reserve := newReserve()
	defer reserve.close()
	own := func(a netip.Addr) (bool, error) { return ownAddress(reserve, a) }
	type answer struct {
		addr         string
		unfit, local string // why it is not used: by default, and with target_local
	}
	cases := []answer{
		{"203.0.113.7", "", ""}, {"2001:db8:fdd2::210", "", ""}, {"10.1.2.3", "", ""}, {"fd00:1234::7", "", ""},
		{"::ffff:203.0.113.7", "", ""}, {"64:ff9b::203.0.113.7", "", ""},
		{"127.0.0.1", "loopback", ""}, {"127.255.0.3", "loopback", ""}, {"::1", "loopback", ""},
		{"::ffff:127.0.0.1", "loopback", ""}, {"64:ff9b::127.0.0.1", "loopback", ""}, {"::127.0.0.1", "loopback", ""},
		{"169.254.169.254", "link-local", "link-local"}, {"::ffff:169.254.169.254", "link-local", "link-local"},
		{"fe80::1", "link-local", "link-local"}, {"fe80::1%lo", "link-local", "link-local"},
		{"0.0.0.0", "no host", "no host"}, {"0.1.2.3", "no host", "no host"}, {"::", "no host", "no host"},
		{"::ffff:0.0.0.0", "no host", "no host"}, {"224.0.0.1", "multicast", "multicast"},
		{"239.1.2.3", "multicast", "multicast"}, {"ff02::1", "multicast", "multicast"},
		{"255.255.255.255", "broadcast", "broadcast"}, {"::ffff:255.255.255.255", "broadcast", "broadcast"},
	}
	for _, a := range ownAddresses(t) {
		cases = append(cases, answer{a, "of this machine", ""})
	}
	for _, c := range cases {
		for local, want := range map[bool]string{false: c.unfit, true: c.local} {
			why, err := unfit(netip.MustParseAddr(c.addr), local, own)
			if err != nil || want == "" && why != "" || !strings.Contains(why, want) {
				t.Errorf("%s, local %v: %q, %v; want %q", c.addr, local, why, err, want)
			}
		}
	}
}

// TestOwnAddress compares ownAddress with the kernel: secondary addresses, local routes, and a setting that lets a
// socket bind to any address.
func TestOwnAddress(t *testing.T) {
	n := newNamespaces(t, "own")[0]
	n.ip("link add d0 type veth peer name d1")
	n.ip("addr add 192.0.2.1/24 dev d0")
	n.ip("addr add 192.0.2.2/24 dev d0")
	n.ip("addr add 2001:db8::1/64 dev d0 nodad")
	n.ip("link set d0 up")
	n.ip("link set d1 up")
	n.ip("route add local 198.51.100.0/24 dev lo")
	reserve := newReserve()
	defer reserve.close()
	own := []string{"127.0.0.1", "192.0.2.1", "192.0.2.2", "192.0.2.255", "198.51.100.7", "2001:db8::1", "::1"}
	for _, nonlocal := range []string{"0", "1"} {
		n.set("net/ipv4/ip_nonlocal_bind", nonlocal)
		n.set("net/ipv6/ip_nonlocal_bind", nonlocal)
		if nonlocal == "1" { // the kernel chooses another source for these
			own = []string{"192.0.2.1", "198.51.100.7", "2001:db8::1"}
		}
		n.do(func() {
			for _, a := range own {
				if is, err := ownAddress(reserve, netip.MustParseAddr(a)); !is || err != nil {
					t.Errorf("%s (ip_nonlocal_bind %s): %v, %v", a, nonlocal, is, err)
				}
			}
			for _, a := range []string{"192.0.2.3", "203.0.113.1", "2001:db8::2", "2001:db8:2::1"} {
				if is, err := ownAddress(reserve, netip.MustParseAddr(a)); is || err != nil {
					t.Errorf("%s, which is another's (ip_nonlocal_bind %s): %v, %v", a, nonlocal, is, err)
				}
			}
		})
	}
}

// TestAnswersRefused: a name does not lead clients to this machine's own services, by TCP or UDP. Status and log (once)
// say why, the name's other addresses are used, and the option allows it.
func TestAnswersRefused(t *testing.T) {
	for _, proto := range []uint8{config.TCP, config.UDP} {
		t.Run(config.ProtoName(proto), func(t *testing.T) {
			var served string
			make := tcp
			if proto == config.TCP {
				served = target(t, "127.0.0.1:0", echo)
			} else {
				served, make = packetTarget(t, "127.0.0.1:0", repeat), udp
			}
			serves := func(p *config.Proxy) error {
				if proto == config.TCP {
					c, err := net.DialTimeout("tcp", p.Listen[0].String(), patience)
					if err != nil {
						return err
					}
					defer c.Close()
					return echoes(c, "hello")
				}
				c := dialUDP(t, p)
				c.Write([]byte("hello"))
				if nothing(c) == nil {
					return net.ErrClosed
				}
				return nil
			}
			var mu sync.Mutex
			answers := names("127.0.0.1", "::ffff:127.0.0.1")
			var lines []string
			o := Options{Log: func(line string) {
				mu.Lock()
				defer mu.Unlock()
				lines = append(lines, line)
			}, Lookup: func(ctx context.Context, name string, version int) ([]netip.Addr, error) {
				mu.Lock()
				defer mu.Unlock()
				return answers(ctx, name, version)
			}}
			p := make(t, "home.example.net:1")
			p.Target.Port = netip.MustParseAddrPort(served).Port()
			s := start(t, o, p)
			logged := func() int {
				mu.Lock()
				defer mu.Unlock()
				return len(lines)
			}
			eventually(t, "the line of the log", func() bool { return logged() == 1 })
			for range 3 {
				if serves(p) == nil {
					t.Fatal("a client got to this machine's service")
				}
			}
			status := s.Status()[0]
			const want = "127.0.0.1 is a loopback address (option target_local '1' allows it)"
			if len(status.Targets) != 0 || status.Sessions != 0 || status.Refused["target unreachable"] != 3 ||
				!strings.Contains(status.LastError, want) {
				t.Errorf("%+v", status)
			}
			s.services["test"].targets.Load().resolve(t.Context())
			if mu.Lock(); len(lines) != 1 || !strings.Contains(lines[0], want) {
				t.Errorf("%q", lines)
			}
			mu.Unlock()

			allowed := *p
			allowed.TargetLocal = true
			if err := s.Apply([]*config.Proxy{&allowed}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the address", func() bool { return len(s.Status()[0].Targets) == 1 })
			if err := serves(p); err != nil {
				t.Error(err)
			}

			mu.Lock()
			answers = names("127.0.0.1", "203.0.113.7", "::ffff:169.254.169.254")
			mu.Unlock()
			if err := s.Apply([]*config.Proxy{p}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the address that can be used", func() bool {
				targets := s.Status()[0].Targets
				return len(targets) == 1 && targets[0] == "203.0.113.7"
			})
		})
	}
}

// TestLocalhost: the target localhost means this machine.
func TestLocalhost(t *testing.T) {
	p := tcp(t, target(t, "127.0.0.1:0", echo))
	p.Target.Addr, p.Target.Name = netip.Addr{}, "localhost"
	start(t, Options{Lookup: names("127.0.0.1")}, p)
	eventually(t, "a session", func() bool {
		c, err := net.Dial("tcp", p.Listen[0].String())
		if err != nil {
			return false
		}
		defer c.Close()
		return echoes(c, "hello") == nil
	})
}
