package reconcile

import (
	"errors"
	"slices"
	"testing"

	"github.com/ds4relay/ds4relay/internal/alive"
	"github.com/ds4relay/ds4relay/internal/kernel/fake"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/state"
)

// TestMend: what another program removes comes back, but neither what a person takes down nor what an edited file has.
func TestMend(t *testing.T) {
	k := fake.New("eth0")
	show := func(state.Step) {}
	var notes []string
	m := &End{Config: parsed(t, relaysText(64, "a", "b")), Kernel: k,
		Note: func(text *message.Text) { notes = append(notes, text.Error()) }}
	edited := &End{Config: parsed(t, relaysText(63, "a", "b")), Kernel: k}
	mend := func(m *End, repairs *alive.Repairs, now int64) bool {
		t.Helper()
		changed, err := m.Mend(repairs, now, show, nil)
		if err != nil {
			t.Fatal(err)
		}
		return changed
	}
	damage := func() {
		t.Helper()
		o, err := k.Observe(state.State{})
		if err != nil {
			t.Fatal(err)
		}
		for _, route := range o.Routes {
			if err := k.Apply(state.DelRoute{Route: route}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if mend(m, &alive.Repairs{}, 0) {
		t.Error("before the first up something is brought up")
	}
	if _, err := m.Up(nil, nil, show, nil); err != nil {
		t.Fatal(err)
	}
	up := k.Snapshot()
	damage()
	if mend(edited, &alive.Repairs{}, 0) {
		t.Error("an edited file is applied")
	}
	if !mend(m, &alive.Repairs{}, 0) || k.Snapshot() != up || len(notes) != 1 {
		t.Errorf("not all has come back, or it is not said: %q\n%s\nwant\n%s", notes, k.Snapshot(), up)
	}
	if mend(m, &alive.Repairs{}, 0) {
		t.Error("something changes although nothing was removed")
	}
	if _, err := m.Down([]string{"b"}, show, nil); err != nil {
		t.Fatal(err)
	}
	damage()
	mend(m, &alive.Repairs{}, 0)
	if names, err := Running(k); err != nil || !slices.Equal(names, []string{"a"}) {
		t.Errorf("what a person has taken down: %v, %v are up", err, names)
	}
	if err := k.Apply(state.DelLink{Link: state.Link{Name: "a", Relay: "a"}}); err != nil {
		t.Fatal(err)
	}
	if !mend(m, &alive.Repairs{}, 0) {
		t.Error("a tunnel that was removed does not come back")
	}

	// A repair that fails is an error, and no sign of a rival.
	damage()
	failing := alive.Repairs{Count: 4}
	k.Fail = func(o fake.Operation) error {
		if o != fake.Dump {
			return errors.New("no memory")
		}
		return nil
	}
	if _, err := m.Mend(&failing, 0, show, nil); err == nil || failing.Rival() {
		t.Errorf("a repair that fails: %v, %+v", err, failing)
	}
	k.Fail = nil
	mend(m, &alive.Repairs{}, 0)

	// A rival is named once, and then left alone for ten minutes.
	notes = nil
	var repairs alive.Repairs
	for minute := range int64(30) {
		damage()
		mend(m, &repairs, minute*60)
	}
	if len(notes) != 5 || !repairs.Rival() {
		t.Errorf("about a rival: %q", notes)
	}
	if s, err := m.Status(); err != nil || s.OK() || len(s.Notes) > 0 {
		t.Errorf("status before the record is written: %v, %q", err, s.Notes)
	}
	if err := m.NoteWatched(Watch{Repairs: repairs}); err != nil {
		t.Fatal(err)
	}
	if s, err := m.Status(); err != nil || len(s.Notes) != 1 {
		t.Errorf("status does not tell of the rival: %v, %q", err, s.Notes)
	}
	if _, err := m.Down(nil, show, nil); err != nil {
		t.Fatal(err)
	}
	if mend(m, &alive.Repairs{}, 0) {
		t.Error("after down something is brought up")
	}
}
