//go:build !openwrt

package reconcile

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/kernel/fake"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/state"
)

// pairedConfig is a VPS's file with these further lines and what its home has told.
func pairedConfig(t *testing.T, lines string, home *config.Home) *config.Config {
	t.Helper()
	text := "config relay 'home'\n\toption role 'vps'\n\toption ipaddr '198.51.100.144'\n" +
		"\toption ip6addr '2001:db8:6ef9::/64'\n\toption allow 'tcp:1-65535'\n" + lines
	home.Peer, home.File = netip.MustParseAddr("2001:db8:fd::1"), "pushed"
	c, _, err := config.Parse("F", []byte(text), config.Defaults{Homes: map[string]*config.Home{"home": home}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// forward is one on port 443.
const forward = "config forward 'web'\n\toption proto 'tcp'\n\toption src_dport '443'\n\toption dest_ip '192.168.1.210'\n"

// TestEdited: a push that was stored is no edit of the file, even if nothing has brought it up.
func TestEdited(t *testing.T) {
	up := pairedConfig(t, "", &config.Home{})
	k := fake.New("eth0")
	stored := pairedConfig(t, "", &config.Home{Push: []byte(config.PushHeader + forward)})
	edited := pairedConfig(t, "\toption mtu '1400'\n", &config.Home{})
	if Edited(k, edited) {
		t.Error("the file counts as edited where nothing is up")
	}
	if err := k.NoteApplied(kernel.Applied{File: up.Sum, Relays: []string{"home"}}); err != nil {
		t.Fatal(err)
	}
	for c, want := range map[*config.Config]bool{up: false, stored: false, edited: true} {
		if got := Edited(k, c); got != want {
			t.Errorf("Edited = %v, want %v, with the checksum %x after %x", got, want, c.Sum, up.Sum)
		}
	}
}

// TestAwaitedRelayIsToBeUp: a relay that waits for its home counts as one that is to be up, until it is taken down.
// Only such a relay takes a home.
func TestAwaitedRelayIsToBeUp(t *testing.T) {
	c := pairedConfig(t, "", &config.Home{})
	c.Relays[0].Peer = netip.Addr{}
	if !c.Relays[0].Awaited() {
		t.Fatal("the relay does not wait for its home")
	}
	m := &End{Config: c, Kernel: fake.New("eth0")}
	if _, err := m.Up(nil, nil, func(state.Step) {}, nil); err != nil {
		t.Fatal(err)
	}
	if names, err := Running(m.Kernel); err != nil || !slices.Equal(names, []string{"home"}) {
		t.Errorf("to be up are %q, %v", names, err)
	}
	if _, err := m.Down(nil, func(state.Step) {}, nil); err != nil {
		t.Fatal(err)
	}
	if names, err := Running(m.Kernel); err != nil || len(names) > 0 {
		t.Errorf("to be up after down are %q, %v", names, err)
	}
}

// TestPairedStatus: it says how many forwards of the home there are, or why there is none.
func TestPairedStatus(t *testing.T) {
	push := []byte(config.PushHeader + forward)
	damaged := message.New("it is no file")
	for _, test := range []struct {
		lines string
		home  config.Home
		want  string
	}{
		{"", config.Home{}, "  home            none has enrolled (`ds4relay invite home` prints an invitation)\n"},
		{"", config.Home{Damaged: damaged}, "  home            what is kept of it is damaged: it is no file (to let it " +
			"join again: `ds4relay invite home`)\n"},
		{"", config.Home{Enrolled: 1, From: "2001:db8::9", Damaged: damaged}, ", from 2001:db8::9; what it has pushed is " +
			"left out: it is no file\n"},
		{"", config.Home{Enrolled: 1, From: "2001:db8::9", Push: push}, ", from 2001:db8::9; forwards that it has pushed: " +
			"1\n"},
		{forward, config.Home{Enrolled: 1, From: "2001:db8::9", Push: push}, ", from 2001:db8::9; what it has pushed is " +
			"left out: pushed:2: forward \"web\": the VPS's own file has a forward of that name; remove one of the two, or rename it\n"},
	} {
		c := pairedConfig(t, test.lines, &test.home)
		var b strings.Builder
		(&RelayStatus{Name: "home", Paired: pairedStatus(c.Relays[0])}).printPaired(&b)
		if !strings.HasSuffix(b.String(), test.want) {
			t.Errorf("the status says %s", b.String())
		}
	}
}
