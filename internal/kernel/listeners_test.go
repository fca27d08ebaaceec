//go:build !openwrt

package kernel

import (
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/pushed"
	"github.com/ds4relay/ds4relay/internal/state"
)

// TestListeners: what only this machine reaches does not count, nor a socket that a program has for a moment, as to ask
// a DNS server.
func TestListeners(t *testing.T) {
	tcp, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", "[::]:0")
	if err != nil {
		t.Skip(err)
	}
	defer udp.Close()
	inside, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	passing, err := net.ListenPacket("udp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	list, err := listeners(func() { passing.Close() })
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		at    net.Addr
		proto uint8
		addr  netip.Addr
		want  bool
	}{
		{tcp.Addr(), config.TCP, netip.IPv4Unspecified(), true},
		{udp.LocalAddr(), config.UDP, netip.IPv6Unspecified(), true},
		{inside.Addr(), config.TCP, netip.MustParseAddr("127.0.0.1"), false},
		{passing.LocalAddr(), config.UDP, netip.IPv4Unspecified(), false},
	} {
		port := netip.MustParseAddrPort(test.at.String()).Port()
		listener := pushed.Listener{Addr: test.addr, Set: config.PortSet{Proto: test.proto, First: port, Last: port}}
		if got := slices.Contains(list, listener); got != test.want {
			t.Errorf("%v is there: %v, want %v", listener, got, test.want)
		}
	}
}

// TestPushFacts: in a namespace of its own, the VPS of a cloud has routes in a table of another program.
func TestPushFacts(t *testing.T) {
	runtime.LockOSThread() // for good: the thread ends with the test, and the namespace with it
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skip("no namespace for the network: ", err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	network := func(text string) *net.IPNet {
		_, network, err := net.ParseCIDR(text)
		must(err)
		return network
	}
	link, err := netlink.LinkByName("lo") // stands in for the card: not every kernel here has others
	must(err)
	card, err := netlink.ParseAddr("10.0.0.5/24")
	must(err)
	must(netlink.AddrAdd(link, card))
	must(netlink.LinkSetUp(link))
	index := link.Attrs().Index
	for _, route := range []netlink.Route{
		{LinkIndex: index, Dst: network("0.0.0.0/0"), Scope: netlink.SCOPE_LINK},
		{LinkIndex: index, Dst: network("192.168.178.0/24"), Table: 52, Scope: netlink.SCOPE_LINK},
		{Type: unix.RTN_UNREACHABLE, Dst: network("192.168.0.0/16"), Table: 52},
		{LinkIndex: index, Dst: network("192.168.9.9/32"), Table: 42, Scope: netlink.SCOPE_LINK, Protocol: state.Protocol},
	} {
		must(netlink.RouteAdd(&route))
	}
	public := netip.MustParseAddr("198.51.100.144")
	facts, err := PushFacts([]*config.Relay{{Name: "home", Role: config.VPS, IPAddr: public}})
	must(err)
	want := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("127.0.0.0/8"),
		netip.MustParsePrefix("192.168.178.0/24")}
	if !slices.Equal(facts.Networks, want) {
		t.Errorf("the VPS's networks are %v, want %v", facts.Networks, want)
	}
	if got := facts.Cards[public]; got != netip.MustParseAddr("10.0.0.5") {
		t.Errorf("%s is on the card %s", public, got)
	}
}
