package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"github.com/ds4relay/ds4relay/internal/config"
)

// namespace is a test's own network namespace.
type namespace struct {
	t    testing.TB
	name string
}

// newNamespaces makes namespaces with loopback up.
func newNamespaces(t testing.TB, names ...string) []namespace {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("takes root, for network namespaces")
	}
	var list []namespace
	for _, name := range names {
		n := namespace{t, fmt.Sprintf("ds4p%d%s", os.Getpid(), name)}
		run(t, "ip netns add "+n.name)
		t.Cleanup(func() { run(t, "ip netns del "+n.name) })
		n.ip("link set lo up")
		list = append(list, n)
	}
	return list
}

func run(t testing.TB, command string) {
	t.Helper()
	words := strings.Fields(command)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// ip runs ip(8).
func (n namespace) ip(format string, args ...any) {
	n.t.Helper()
	run(n.t, "ip -n "+n.name+" "+fmt.Sprintf(format, args...))
}

// set writes a sysctl.
func (n namespace) set(key, value string) {
	n.t.Helper()
	n.do(func() {
		if err := os.WriteFile("/proc/sys/"+key, []byte(value), 0); err != nil {
			n.t.Error(err)
		}
	})
}

// do calls f in the namespace. Sockets that f opens and processes that it starts belong to the namespace.
func (n namespace) do(f func()) {
	n.t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		handle, err := netns.GetFromName(n.name)
		if err == nil {
			err = netns.Set(handle)
			handle.Close()
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		n.t.Fatal(err)
	}
}

// listen opens a UDP socket.
func (n namespace) listen(address string) *net.UDPConn {
	n.t.Helper()
	var c *net.UDPConn
	n.do(func() { c = listenPacket(n.t, address) })
	n.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// server runs proxies in the namespace.
func (n namespace) server(proxies ...*config.Proxy) *child {
	n.t.Helper()
	var c *child
	n.do(func() { c = startChild(n.t, childSetup{Proxies: proxies}) })
	return c
}

// udpProxy returns a proxy that listens on port 7000 of an address.
func udpProxy(listen, target string) *config.Proxy {
	to := netip.MustParseAddrPort(target)
	return &config.Proxy{Section: "test", Proto: config.UDP,
		Listen: []config.Listen{{Addr: netip.MustParseAddr(listen), First: 7000, Last: 7000}},
		Target: config.Target{Addr: to.Addr(), Port: to.Port()}, MaxSessions: 1000, IdleTimeout: time.Minute}
}

// await reads a datagram and compares it with text.
func await(t testing.TB, c *net.UDPConn, text string) netip.AddrPort {
	t.Helper()
	block := make([]byte, maxDatagram)
	n, from, err := c.ReadFromUDPAddrPort(block)
	if err != nil || string(block[:n]) != text {
		t.Fatalf("%.30q comes, %v; want %.30q", block[:n], err, text)
	}
	return netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}

// TestLateAnswers: datagrams that the target sends to an ended session reach nobody, even if ports are so scarce that
// new sessions reuse those of old ones.
func TestLateAnswers(t *testing.T) {
	n := newNamespaces(t, "a")[0]
	n.set("net/ipv4/ip_local_port_range", "40000 40003")
	target := n.listen("[::1]:7001")
	p := udpProxy("127.0.0.1", "[::1]:7001")
	p.MaxSessions = 1
	s := n.server(p)
	proxy := netip.MustParseAddrPort("127.0.0.1:7000")
	var before netip.AddrPort
	for i := range 20 {
		client := n.listen(fmt.Sprintf("127.0.0.1:%d", 30000+i))
		question, answer := fmt.Sprint("question ", i), fmt.Sprint("answer ", i)
		var from netip.AddrPort
		eventually(t, question, func() bool { // an evicted session may still have its port
			client.WriteToUDPAddrPort([]byte(question), proxy)
			block := make([]byte, 100)
			target.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			length, port, err := target.ReadFromUDPAddrPort(block)
			from = port
			return err == nil && string(block[:length]) == question
		})
		if before.IsValid() {
			target.WriteToUDPAddrPort([]byte("late"), before)
		}
		target.WriteToUDPAddrPort([]byte(answer), from)
		await(t, client, answer)
		before = from
	}
	eventually(t, "one session, the others evicted", func() bool {
		status := s.status().Proxies[0]
		return status.Sessions == 1 && status.Evicted == status.Total-1
	})
}

// TestWildcardSource6 is TestWildcardSource with IPv6 addresses, including a link-local one.
func TestWildcardSource6(t *testing.T) {
	n := newNamespaces(t, "a")[0]
	for i := range 3 {
		n.ip("addr add 2001:db8::%d/128 dev lo nodad", i+1)
	}
	n.ip("link add v0 type veth peer name v1")
	n.ip("link set v0 up addrgenmode none")
	n.ip("link set v1 up addrgenmode none")
	n.ip("addr add fe80::1/64 dev v0 nodad")
	n.server(udpProxy("::", packetTargetIn(n, "127.0.0.1:7001").String()))
	for _, from := range []string{"2001:db8::1", "2001:db8::3"} {
		c := n.listen("[" + from + "]:0")
		for i, to := range []string{"2001:db8::2", "::1", "2001:db8::3", "2001:db8::2", "fe80::1%v0"} {
			text := fmt.Sprint("question ", i)
			to := netip.AddrPortFrom(netip.MustParseAddr(to), 7000)
			if to.Addr().IsLinkLocalUnicast() {
				c = n.listen("[fe80::1%v0]:0")
			}
			eventually(t, text, func() bool { // it takes a moment until a device is up
				if _, err := c.WriteToUDPAddrPort([]byte(text), to); err != nil {
					return false
				}
				block := make([]byte, 100)
				c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
				length, answered, err := c.ReadFromUDPAddrPort(block)
				if err == nil && answered.Addr().WithZone("") != to.Addr().WithZone("") {
					t.Errorf("%s answers for %s", answered, to)
				}
				return err == nil && string(block[:length]) == text
			})
		}
	}
}

// packetTargetIn echoes datagrams.
func packetTargetIn(n namespace, address string) netip.AddrPort {
	n.t.Helper()
	var to string
	n.do(func() { to = packetTarget(n.t, address, repeat) })
	return netip.MustParseAddrPort(to)
}

// TestFragments: a datagram above the path MTU arrives. Over IPv4 it arrives at once, although the proxy cannot know
// the MTU: a router fragments it. Over IPv6 the sender fragments after the router has reported the MTU.
func TestFragments(t *testing.T) {
	spaces := newNamespaces(t, "vps", "router", "home")
	vps, router, home := spaces[0], spaces[1], spaces[2]
	vps.ip("link add e0 type veth peer name e0 netns %s", router.name)
	router.ip("link add e1 mtu 1300 type veth peer name e0 mtu 1300 netns %s", home.name)
	for _, link := range []struct {
		n       namespace
		device  string
		network int
		host    int
	}{{vps, "e0", 1, 1}, {router, "e0", 1, 2}, {router, "e1", 2, 2}, {home, "e0", 2, 1}} {
		link.n.ip("link set %s up", link.device)
		link.n.ip("addr add 192.0.2.%d/25 dev %s", (link.network-1)*128+link.host, link.device)
		link.n.ip("addr add 2001:db8:%d::%d/64 dev %s nodad", link.network, link.host, link.device)
	}
	for _, n := range []struct {
		namespace
		network int
	}{{vps, 1}, {home, 2}} {
		n.ip("route add default via 192.0.2.%d", (n.network-1)*128+2)
		n.ip("route add default via 2001:db8:%d::2", n.network)
	}
	router.set("net/ipv4/ip_forward", "1")
	router.set("net/ipv6/conf/all/forwarding", "1")
	v4 := udpProxy("127.0.0.1", packetTargetIn(home, "192.0.2.129:7001").String())
	v6 := udpProxy("::1", packetTargetIn(home, "[2001:db8:2::1]:7001").String())
	v6.Section = "v6"
	s := vps.server(v4, v6)
	text := strings.Repeat("0123456789", 140)
	c := vps.listen("127.0.0.1:0")
	eventually(t, "the way", func() bool { // it takes a moment until a device is up
		c.WriteToUDPAddrPort([]byte("hello"), netip.MustParseAddrPort("127.0.0.1:7000"))
		c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		_, err := c.Read(make([]byte, 100))
		return err == nil
	})
	for err := error(nil); err == nil; { // discard further answers
		c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		_, err = c.Read(make([]byte, 100))
	}
	c.SetDeadline(time.Now().Add(patience))
	c.WriteToUDPAddrPort([]byte(text), netip.MustParseAddrPort("127.0.0.1:7000"))
	await(t, c, text)
	// The same if the client hands the kernel several datagrams at once, which do not fit as one.
	vps.ip("link set e0 mtu 1300")
	segmented(t, c, len(text))
	c.WriteToUDPAddrPort([]byte(strings.Repeat(text, 10)+"rest"), netip.MustParseAddrPort("127.0.0.1:7000"))
	for range 10 {
		await(t, c, text)
	}
	await(t, c, "rest")
	vps.ip("link set e0 mtu 1500")
	c = vps.listen("[::1]:0")
	large := strings.Repeat("x", 65000)
	c.WriteToUDPAddrPort([]byte("lost"+text), netip.MustParseAddrPort("[::1]:7000"))
	eventually(t, "the datagram behind the one that told the MTU", func() bool {
		c.WriteToUDPAddrPort([]byte(large), netip.MustParseAddrPort("[::1]:7000"))
		c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		block := make([]byte, maxDatagram)
		n, err := c.Read(block)
		return err == nil && string(block[:n]) == large
	})
	for _, status := range s.status().Proxies {
		if len(status.Refused) > 0 || status.Dropped > 0 || status.LastError != "" {
			t.Errorf("%+v", status)
		}
	}
}
