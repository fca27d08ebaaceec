package reconcile

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/ds4relay/ds4relay/internal/alive"
	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel"
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
func (k *watched) NoteApplied(kernel.Applied) error {
	return errors.New("a look changes nothing")
}
func (k *watched) Applied() kernel.Applied       { return k.applied }
func (k *watched) NoteWatched(alive.Watch) error { return errors.New("a look changes nothing") }
func (k *watched) Watched() alive.Watch          { return alive.Watch{} }
func (k *watched) Served(string) (string, error) { return "", nil }
func (k *watched) NoteServed(_, _ string) error  { return errors.New("a look changes nothing") }
func (k *watched) NoteSysctls() error            { return nil }

func (k *watched) NotePeers(map[string]netip.Addr) error {
	return errors.New("a look changes nothing")
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
