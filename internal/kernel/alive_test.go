package kernel

import (
	"net/netip"
	"testing"

	"github.com/ds4relay/ds4relay/internal/alive"
	"github.com/ds4relay/ds4relay/internal/state"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// TestLocated: a new peer begins where it was last, unless the configuration says where it is.
func TestLocated(t *testing.T) {
	record := func(peer transport.Key, endpoint string) *alive.Record {
		return &alive.Record{Tunnel: alive.Tunnel{Peer: peer.String(), Endpoint: endpoint}}
	}
	k := &Kernel{Run: t.TempDir()}
	if err := k.NoteWatched(alive.Watch{Relays: map[string]*alive.Record{"damaged": nil,
		"home": record(transport.Key{1}, "192.0.2.7:40112"), "new": record(transport.Key{2}, ""),
		"a": record(transport.Key{3}, "192.0.2.8:1"), "b": record(transport.Key{3}, "192.0.2.8:2")}}); err != nil {
		t.Fatal(err)
	}
	known := netip.MustParseAddrPort("192.0.2.7:40112")
	given := netip.MustParseAddrPort("[2001:db8::1]:51846")
	for _, c := range []struct {
		what     string
		from, to transport.WireGuard
		want     netip.AddrPort
	}{
		{"a new tunnel", transport.WireGuard{}, transport.WireGuard{Peer: transport.Key{1}}, known},
		{"a peer that was removed", transport.WireGuard{ListenPort: 5},
			transport.WireGuard{Peer: transport.Key{1}}, known},
		{"the peer is there", transport.WireGuard{Peer: transport.Key{1}}, transport.WireGuard{Peer: transport.Key{1}},
			netip.AddrPort{}},
		{"a router", transport.WireGuard{}, transport.WireGuard{Peer: transport.Key{1}, Remote: given}, given},
		{"never heard of", transport.WireGuard{}, transport.WireGuard{Peer: transport.Key{2}}, netip.AddrPort{}},
		{"two with a key", transport.WireGuard{}, transport.WireGuard{Peer: transport.Key{3}}, netip.AddrPort{}},
		{"another key", transport.WireGuard{Peer: transport.Key{1}}, transport.WireGuard{Peer: transport.Key{9}},
			netip.AddrPort{}},
	} {
		if got := k.located(state.SetPeer{From: c.from, To: c.to}); got.To.Remote != c.want {
			t.Errorf("%s: %v, want %v", c.what, got.To.Remote, c.want)
		}
	}
}
