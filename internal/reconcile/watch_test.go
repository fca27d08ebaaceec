package reconcile

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/ds4relay/ds4relay/internal/alive"
	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/kernel/fake"
	"github.com/ds4relay/ds4relay/internal/state"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// watched is a kernel with tunnels, and the current addresses of their other ends' names.
type watched struct {
	links   []state.Link
	peers   map[string]netip.Addr
	err     error
	failed  []string
	applied kernel.Applied
	asked   []string // relays whose facts were looked up
}

func (k *watched) Observe(state.State) (state.Observed, error) {
	return state.Observed{State: state.State{Links: k.links}}, nil
}

func (k *watched) Facts(relays []*config.Relay) (state.Facts, error) {
	for _, r := range relays {
		k.asked = append(k.asked, r.Name)
	}
	return state.Facts{Peer: k.peers}, k.err
}

func (k *watched) Apply(state.Step) error         { return errors.New("a look changes nothing") }
func (k *watched) KeepTables([]state.Table) error { return errors.New("a look changes nothing") }
func (k *watched) NoteFailed([]string) error      { return errors.New("a look changes nothing") }
func (k *watched) FailedRelays() []string         { return k.failed }
func (k *watched) Pushed(string) *kernel.Push     { return nil }
func (k *watched) NotePush(*kernel.Push) error    { return errors.New("a look changes nothing") }
func (k *watched) ForgetPush(string) error        { return errors.New("a look changes nothing") }
func (k *watched) NoteApplied(kernel.Applied) error {
	return errors.New("a look changes nothing")
}
func (k *watched) Applied() kernel.Applied       { return k.applied }
func (k *watched) NoteWatched(alive.Watch) error { return errors.New("a look changes nothing") }
func (k *watched) Watched() alive.Watch          { return alive.Watch{} }
func (k *watched) Served(string) (string, error) { return "", nil }
func (k *watched) NoteServed(_, _ string) error  { return errors.New("a look changes nothing") }
func (k *watched) NoteSysctls() error            { return nil }

func (k *watched) NotePeers([]*config.Relay, map[string]netip.Addr) error {
	return errors.New("a look changes nothing")
}

func (k *watched) NextPeer(*config.Relay, netip.Addr) (netip.Addr, error) {
	return netip.Addr{}, errors.New("a look changes nothing")
}
func (k *watched) PathNote(string) state.PathNote { return state.PathNote{} }
func (k *watched) NotePath(string, state.PathNote) error {
	return errors.New("a look changes nothing")
}
func (k *watched) Clear() error                      { return errors.New("a look changes nothing") }
func (k *watched) Lock(func(string)) (func(), error) { return func() {}, nil }

// TestMoved: a relay has moved only if it is up and its name has another address.
func TestMoved(t *testing.T) {
	before, after := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	c := &config.Config{Relays: []*config.Relay{
		{Name: "static", Enabled: true, Peer: before},
		{Name: "same", Enabled: true, PeerName: "same.example.org"},
		{Name: "other", Enabled: true, PeerName: "other.example.org"},
		{Name: "down", Enabled: true, PeerName: "down.example.org"},
		{Name: "disabled", PeerName: "disabled.example.org"},
	}}
	up := func(names ...string) (links []state.Link) {
		for _, name := range names {
			links = append(links, state.Link{Relay: name, Tunnel: transport.IPIP6{Remote: before}})
		}
		return links
	}
	peers := map[string]netip.Addr{"same": before, "other": after, "down": before, "disabled": before}
	for _, test := range []struct {
		name    string
		links   []state.Link
		missing bool
		want    []string
		asked   []string
	}{
		{"a name has another address", up("static", "same", "other"), false, []string{"other"},
			[]string{"same", "other"}},
		{"what is not up stays down", nil, false, nil, nil},
		{"what should be up and is not", up("static", "same"), true, []string{"other", "down"},
			[]string{"same", "other", "down"}},
		{"no names are used", up("static"), false, nil, nil},
	} {
		k := &watched{links: test.links, peers: peers}
		moved, err := (&End{Config: c, Kernel: k}).Moved(test.missing)
		if err != nil || !slices.Equal(moved, test.want) || !slices.Equal(k.asked, test.asked) {
			t.Errorf("%s: moved %q, want %q; asked %q, want %q; %v", test.name, moved, test.want, k.asked,
				test.asked, err)
		}
	}
	k := &watched{links: up("other"), err: errors.New("look up peeraddr other.example.org: no such host")}
	if moved, err := (&End{Config: c, Kernel: k}).Moved(false); err == nil || moved != nil {
		t.Errorf("a name that never was known: %q, %v", moved, err)
	}
}

// TestMovedWireGuard: a router with WireGuard follows the name of its VPS from one version of IP to the other, keeps an
// address that works, and tries the next one if nothing comes from it.
func TestMovedWireGuard(t *testing.T) {
	const name = "vps.example.org"
	four, six := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")
	k := fake.New("eth0", "br-lan")
	m := &End{Kernel: k, Config: parsed(t, "config relay 'home'\n\toption role 'router'\n\toption transport "+
		"'wireguard'\n"+
		"\toption device 'wrap1'\n\toption ipaddr '198.51.100.144'\n\toption peeraddr '"+name+"'\n\toption "+
		"public_key '"+
		transport.Key{7}.String()+"'\n\nconfig forward\n\toption src_dport '80'\n\toption dest_ip '192.168.1.2'\n")}
	const never, lately = 0, 100
	for _, c := range []struct {
		what   string
		names  []netip.Addr
		shaken int64 // the last handshake before a run at 120 s whose probe was lost
		want   netip.Addr
		mtu    int
	}{
		{"up", []netip.Addr{six}, lately, six, 1420},
		{"the same", []netip.Addr{six}, never, six, 1420},
		{"another version", []netip.Addr{four}, lately, four, 1440},
		{"one more", []netip.Addr{six, four}, lately, four, 1440},
		{"nothing comes", []netip.Addr{six, four}, never, six, 1420},
		{"nor from there", []netip.Addr{six, four}, never, four, 1440},
		{"no answer of a name server", nil, lately, four, 1440},
		{"nothing comes, and no answer", nil, never, four, 1440},
	} {
		k.Names = map[string][]netip.Addr{name: c.names}
		record := &alive.Record{Run: 120, Probe: alive.Lost, Tunnel: alive.Tunnel{Keyed: true, Shaken: c.shaken}}
		if err := k.NoteWatched(alive.Watch{Relays: map[string]*alive.Record{"home": record}}); err != nil {
			t.Fatal(err)
		}
		moved, err := m.Moved(true)
		if err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		before, err := k.Observe(state.State{})
		if err != nil {
			t.Fatal(err)
		}
		if len(moved) > 0 {
			if _, err := m.Up(moved, nil, func(state.Step) {}, nil); err != nil {
				t.Fatalf("%s: %v", c.what, err)
			}
		}
		o, err := k.Observe(state.State{})
		if err != nil || len(o.Links) != 1 {
			t.Fatalf("%s: %v, %v", c.what, o.Links, err)
		}
		link := o.Links[0]
		changed := len(before.Links) == 0 || before.Links[0].Remote() != c.want
		if link.Remote() != c.want || link.MTU != c.mtu || len(moved) > 0 != changed {
			t.Errorf("%s: the tunnel goes to %s, MTU %d; want %s, %d; moved %q", c.what, link.Remote(), link.MTU,
				c.want, c.mtu, moved)
		}
	}
}
