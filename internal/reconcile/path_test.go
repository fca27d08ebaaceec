package reconcile

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/state"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// noting is a kernel with one tunnel, and a note about its path.
type noting struct {
	watched
	device string // of the route
	note   state.PathNote
}

func (k *noting) Facts([]*config.Relay) (state.Facts, error) {
	return state.Facts{PathMTU: map[string]int{"home": 1500}, Uplink: map[string]string{"home": k.device}}, nil
}

func (k *noting) PathNote(string) state.PathNote { return k.note }

func (k *noting) NotePath(_ string, note state.PathNote) error {
	k.note = note
	return nil
}

// TestPaths: what is noted holds for the same path only, and a path that carries what its route says has no note.
func TestPaths(t *testing.T) {
	relay := &config.Relay{Name: "home", EncapLimit: transport.NoEncapLimit, Forwards: []*config.Forward{{All: true}}}
	k := &noting{device: "eth0"}
	k.links = []state.Link{{Relay: "home", MTU: 1460, Up: true, Tunnel: transport.IPIP6{
		Local: netip.MustParseAddr("2001:db8::1"), Remote: netip.MustParseAddr("2001:db8::2")}}}
	m := &End{Config: &config.Config{Relays: []*config.Relay{relay}}, Kernel: k}
	now := time.Unix(1_800_000_000, 0)
	measure := func(passes int) (*Path, []string) {
		t.Helper()
		paths, err := m.Paths()
		if err != nil || len(paths) != 1 {
			t.Fatalf("%v, %v", paths, err)
		}
		before := *paths[0]
		paths[0].Passes = passes
		if passes != before.MTU {
			paths[0].Note.Tried = now.Unix()
		}
		changed, err := m.NotePaths(paths)
		if err != nil {
			t.Fatal(err)
		}
		return &before, changed
	}
	if p, changed := measure(1460); p.Route != 1460 || changed != nil || k.note != (state.PathNote{}) {
		t.Errorf("a path that is not narrow: %+v, %v, %+v", p, changed, k.note)
	}
	if _, changed := measure(0); changed != nil || k.note != (state.PathNote{}) {
		t.Errorf("silence: %v, %+v", changed, k.note)
	}
	if _, changed := measure(1360); !slices.Equal(changed, []string{"home"}) || k.note.Passes != 1360 {
		t.Errorf("a narrow path: %v, %+v", changed, k.note)
	}
	k.links[0].MTU = 1360
	if p, changed := measure(1360); p.Note.Tried != now.Unix() || changed != nil || k.note.Passes != 1360 {
		t.Errorf("a narrow path, again: %+v, %v, %+v", p, changed, k.note)
	}
	if again, ok := state.ParsePathNote(k.note.String()); !ok || again != k.note {
		t.Errorf("%q is read as %+v", k.note, again)
	}
	if k.note.Due(now.Add(time.Minute)) || !k.note.Due(now.Add(time.Hour)) || !k.note.Due(now.Add(-time.Minute)) {
		t.Error("larger packets are not tried once an hour")
	}
	k.device = "eth1"
	if p, _ := measure(0); p.Note.Tried != 0 {
		t.Errorf("another path: %+v", p.Note)
	}
	k.device = "eth0"
	if _, changed := measure(1460); !slices.Equal(changed, []string{"home"}) || k.note != (state.PathNote{}) {
		t.Errorf("a path that is wide again: %v, %+v", changed, k.note)
	}
	k.links[0].MTU = 1300
	if paths, err := m.Paths(); len(paths) != 0 || err != nil {
		t.Errorf("an MTU of somebody else: %v, %v", paths, err)
	}
	k.links[0].MTU = 1460
	k.applied = kernel.Applied{File: 1, Relays: []string{"home"}}
	if paths, err := m.Paths(); len(paths) != 0 || err != nil {
		t.Errorf("a file that was edited, and not applied: %v, %v", paths, err)
	}
	m.Config.Sum = 1
	if paths, err := m.Paths(); len(paths) != 1 || err != nil {
		t.Errorf("a file that was applied: %v, %v", paths, err)
	}
	relay.MTU = 1400
	if paths, err := m.Paths(); len(paths) != 0 || err != nil {
		t.Errorf("an MTU that is configured: %v, %v", paths, err)
	}
	for _, bad := range []string{"", "x", "x 1 2", "x 1360", "x 1360 y", "x 1360 1 1"} {
		if note, ok := state.ParsePathNote(bad); ok {
			t.Errorf("%q is read as %+v", bad, note)
		}
	}
}
