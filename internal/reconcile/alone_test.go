package reconcile

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel/fake"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/state"
	"github.com/ds4relay/ds4relay/internal/uci"
)

// picky is a machine that cannot bring up some relays.
type picky struct {
	*fake.Kernel
	unknown map[string]bool // relays whose facts cannot be read
	refused map[string]bool // devices for which every step fails
}

func (k *picky) Facts(relays []*config.Relay) (state.Facts, error) {
	f, err := k.Kernel.Facts(relays)
	f.Failed = map[string]error{}
	for _, r := range relays {
		if k.unknown[r.Name] {
			f.Failed[r.Name] = fmt.Errorf("relay %q: no such name", r.Name)
		}
	}
	return f, err
}

func (k *picky) Apply(step state.Step) error {
	switch s := step.(type) {
	case state.AddLink:
		if k.refused[s.Link.Name] {
			return errors.New("refused")
		}
	case state.ChangeLink:
		if k.refused[s.From.Name] {
			return errors.New("refused")
		}
	}
	return k.Kernel.Apply(step)
}

// relaysText returns a VPS's file with a relay for each name; the tunnels have that hop limit.
func relaysText(ttl int, names ...string) string {
	var b strings.Builder
	for i, name := range names {
		fmt.Fprintf(&b, "config relay '%s'\n\toption role 'vps'\n\toption device '%s'\n\toption ttl '%d'\n\toption "+
			"ipaddr '198.51.100.%d'\n\toption ip6addr '2001:db8:6ef9::/64'\n\toption peeraddr '2001:db8:%d::/64'\n\n"+
			"config forward\n\toption relay '%s'\n\toption src_dport '80'\n\toption dest_ip '192.168.%d.2'\n\n", name,
			name, ttl, 10+i, 100+i, name, i)
	}
	return b.String()
}

func parsed(t *testing.T, text string) *config.Config {
	t.Helper()
	file, err := uci.Parse("ds4relay", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := config.New(file, config.Defaults{Role: config.VPS})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestEachAlone: a relay that cannot be brought up does not affect others, is named, and is tried again. A running
// relay is not taken down because its change fails.
func TestEachAlone(t *testing.T) {
	k := &picky{Kernel: fake.New("eth0"), unknown: map[string]bool{}, refused: map[string]bool{}}
	up := func(ttl int, names ...string) error {
		t.Helper()
		m := &End{Config: parsed(t, relaysText(ttl, names...)), Kernel: k}
		_, err := m.Up(nil, nil, func(state.Step) {}, nil)
		return err
	}
	running := func() string {
		t.Helper()
		names, err := Running(k)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(names)
		return strings.Join(names, " ")
	}
	var some *SomeFailed
	for _, c := range []struct {
		what string
		fail func()
	}{
		{"its name cannot be looked up", func() { k.unknown["b"] = true }},
		{"a step of it fails", func() { k.refused["b"] = true }},
		{"somebody else has its device", func() { k.Devices = append(k.Devices, "b") }},
	} {
		c.fail()
		err := up(64, "a", "b", "c")
		if !errors.As(err, &some) || !strings.Contains(err.Error(), `relay "b"`) || running() != "a c" {
			t.Errorf("%s: %v, running: %s", c.what, err, running())
		}
		if failed := k.FailedRelays(); !slices.Equal(failed, []string{"b"}) {
			t.Errorf("%s: %v are tried again", c.what, failed)
		}
		clear(k.unknown)
		clear(k.refused)
		k.Devices = k.Devices[:1]
		m := &End{Config: parsed(t, relaysText(64, "a", "b", "c")), Kernel: k}
		if again, err := m.Moved(false); err != nil || !slices.Equal(again, []string{"b"}) {
			t.Errorf("%s: %v would be tried again, %v", c.what, again, err)
		}
		if err := up(64, "a", "b", "c"); err != nil || running() != "a b c" || len(k.FailedRelays()) > 0 {
			t.Errorf("after %s: %v, running: %s", c.what, err, running())
		}
		// A call for other relays does not end the retries; taking the relay down does.
		m.Config = parsed(t, relaysText(64, "a", "b", "c"))
		c.fail()
		if _, err := m.Down([]string{"b"}, func(state.Step) {}, nil); err != nil {
			t.Fatal(err)
		}
		for _, names := range [][]string{nil, {"a"}} {
			if _, err := m.Up(names, nil, func(state.Step) {}, nil); (err == nil) != (names != nil) {
				t.Errorf("up %v: %v", names, err)
			}
			if failed := k.FailedRelays(); !slices.Equal(failed, []string{"b"}) {
				t.Errorf("%s, after up %v: %v are tried again", c.what, names, failed)
			}
		}
		clear(k.unknown)
		clear(k.refused)
		k.Devices = k.Devices[:1]
		if _, err := m.Down([]string{"b"}, func(state.Step) {}, nil); err != nil || len(k.FailedRelays()) > 0 {
			t.Errorf("%s, after down b: %v, %v are tried again", c.what, err, k.FailedRelays())
		}
		if err := up(64, "a", "b", "c"); err != nil {
			t.Fatal(err)
		}
		before := k.Snapshot()
		k.refused["a"] = true
		if err := up(63, "a", "b", "c"); err == nil || errors.As(err, &some) || k.Snapshot() != before {
			t.Errorf("a change of a running relay fails: %v; it changed: %v", err, k.Snapshot() != before)
		}
		clear(k.refused)
		k.unknown["a"] = true
		if err := up(63, "a", "b", "c"); err == nil || errors.As(err, &some) || k.Snapshot() != before {
			t.Errorf("what a running relay needs is not known: %v; it changed: %v", err, k.Snapshot() != before)
		}
		clear(k.unknown)
		if _, err := m.Down(nil, func(state.Step) {}, nil); err != nil {
			t.Fatal(err)
		}
	}

	// With only one relay, or if none can be brought up, nothing changes.
	before := k.Snapshot()
	k.unknown["a"], k.refused["b"] = true, true
	for _, names := range [][]string{{"a"}, {"b"}, {"a", "b"}} {
		if err := up(64, names...); err == nil || errors.As(err, &some) || k.Snapshot() != before {
			t.Errorf("%v: %v; it changed: %v", names, err, k.Snapshot() != before)
		}
	}
}

// TestKillSwitchAlone: the kill switch also works if the relay cannot be brought up, whatever the reason.
func TestKillSwitchAlone(t *testing.T) {
	const text = "config relay 'home'\n\toption role 'router'\n\toption device 'wrap1'\n\toption ipaddr " +
		"'198.51.100.10'\n\toption ip6addr '2001:db8:fdd2::/64'\n\toption peeraddr '2001:db8:6ef9::/64'\n\toption " +
		"egress 'all'\n\toption killswitch '1'\n\nconfig forward\n\toption src_dport '80'\n\toption dest_ip " +
		"'192.168.1.210'\n"
	for _, fail := range []func(k *picky){
		func(k *picky) { k.unknown["home"] = true },
		func(k *picky) { k.refused["wrap1"] = true },
		func(k *picky) { k.Devices = append(k.Devices, "wrap1") },
	} {
		k := &picky{Kernel: fake.New("wan", "br-lan"), unknown: map[string]bool{}, refused: map[string]bool{}}
		first := k.Snapshot()
		fail(k)
		m := &End{Config: parsed(t, text), Kernel: k}
		var some *SomeFailed
		if _, err := m.Up(nil, nil, func(state.Step) {}, nil); err == nil || errors.As(err, &some) {
			t.Errorf("up: %v", err)
		}
		if o, err := k.Observe(state.State{}); err != nil || !o.KillSwitch() || len(o.Links) > 0 {
			t.Errorf("%v; kill switch: %v, links: %v", err, o.KillSwitch(), o.Links)
		}
		if _, err := m.Down(nil, func(state.Step) {}, nil); err != nil || k.Snapshot() != first {
			t.Errorf("down: %v; all is as it was: %v", err, k.Snapshot() == first)
		}
	}
}

// TestKillSwitchOff: the note names exactly the hosts whose kill switch is off.
func TestKillSwitchOff(t *testing.T) {
	relay := func(name string, number int) string {
		return fmt.Sprintf("config relay '%[1]s'\n\toption role 'router'\n\toption device '%[1]s'\n\toption ip4table "+
			"'%[2]d'\n\toption ipaddr '198.51.100.%[2]d'\n\toption ip6addr '2001:db8:fdd2::/64'\n\toption peeraddr "+
			"'2001:db8:%[2]d::/64'\n\toption egress 'all'\n\toption killswitch '1'\n\nconfig forward\n\toption relay "+
			"'%[1]s'\n\toption src_dport '80'\n\toption dest_ip '192.168.1.%[2]d'\n\n", name, number)
	}
	k := fake.New("wan", "br-lan")
	var notes []string
	m := &End{Config: parsed(t, relay("a", 10)+relay("b", 20)), Kernel: k, Note: func(text *message.Text) {
		notes = append(notes, text.Error())
	}}
	if _, err := m.Up(nil, nil, func(state.Step) {}, nil); err != nil || len(notes) > 0 {
		t.Fatalf("up: %v, notes %q", err, notes)
	}
	for _, c := range []struct{ relay, freed, held string }{{"a", "192.168.1.10", "192.168.1.20"},
		{"b", "192.168.1.20", "192.168.1.10"}} {
		notes = nil
		if _, err := m.Down([]string{c.relay}, func(state.Step) {}, nil); err != nil {
			t.Fatal(err)
		}
		if len(notes) != 1 || !strings.Contains(notes[0], "kill switch is off for "+c.freed+":") ||
			strings.Contains(notes[0], c.held) {
			t.Errorf("down %s: notes %q", c.relay, notes)
		}
	}
}
