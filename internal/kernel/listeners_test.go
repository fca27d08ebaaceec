//go:build !openwrt

package kernel

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/pushed"
)

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
	facts, err := PushFacts()
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
	} {
		port := netip.MustParseAddrPort(test.at.String()).Port()
		listener := pushed.Listener{Addr: test.addr, Set: config.PortSet{Proto: test.proto, First: port, Last: port}}
		if got := slices.Contains(facts.Listeners, listener); got != test.want {
			t.Errorf("%v is there: %v, want %v", listener, got, test.want)
		}
	}
}
