package reconcile

import (
	"errors"
	"maps"
	"slices"

	"github.com/ds4relay/ds4relay/internal/alive"
	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/state"
)

// Watch is the record that runs of each minute keep for the next one and for Status.
type Watch = alive.Watch

// Mend puts back what other programs have removed or changed of the relays that are to be up, which the last `up` or
// `down` has noted. What a person has taken down stays down, and a file that has been edited since is not applied. If
// something is removed again and again, Mend says so once, and then repairs it every ten minutes only.
func (m *End) Mend(repairs *alive.Repairs, now int64, show func(state.Step), waiting func(string)) (changed bool,
	err error) {
	if !repairs.Due(now) {
		return false, nil
	}
	known := repairs.Rival()
	if known {
		show = func(state.Step) {}
	}
	changed, first, err := m.mend(show, waiting)
	if err == nil { // a repair that fails is no sign of another program
		*repairs = repairs.Next(changed, now)
	}
	switch {
	case known:
	case repairs.Rival() && first != "":
		m.note(message.New("another program removes or changes what ds4relay installs, again and again: from now on "+
			"it is put back every ten minutes only; the last step: %s", first))
	case changed && err == nil:
		m.note(message.New("put back what another program has removed or changed: %s", first))
	}
	return changed, err
}

// mend returns the first step as a line.
func (m *End) mend(show func(state.Step), waiting func(string)) (changed bool, first string, err error) {
	relays, err := m.toMend()
	if errors.Is(err, ErrEdited) { // status says what differs
		err = nil
	}
	if err != nil || len(relays) == 0 {
		return false, "", err
	}
	quiet := *m
	quiet.Note = nil // status has the notes
	w, err := quiet.way(relays, nil)
	if err != nil || len(w.steps) == 0 || w.unchanged() != nil {
		return false, "", err
	}
	changed, err = quiet.change(m.toMend, func(step state.Step) {
		if first == "" {
			first = state.Line(step)
		}
		show(step)
	}, waiting, m.recordUp)
	return changed, first, err
}

// Switched returns the relays that are up if the VPS of one that another may be in place of has become silent, or is
// heard again; before is what was silent. A file that was edited is not applied.
func (m *End) Switched(before map[string]bool) (names []string) {
	watched := m.Kernel.Watched()
	now := kernel.SilentRelays(m.Config.Relays, &watched)
	if m.edited() || maps.Equal(before, now) {
		return nil
	}
	for _, r := range m.Config.Relays {
		switch {
		case now[r.Name] && !before[r.Name]:
			m.note(message.New("relay %q: its VPS is silent; until it is heard again, others take its place", r.Name))
		case before[r.Name] && !now[r.Name]:
			m.note(message.New("relay %q: its VPS is heard again", r.Name))
		}
	}
	return slices.DeleteFunc(m.Kernel.Applied().Relays, func(name string) bool { return m.Config.Relay(name) == nil })
}

// NoteWatched writes the record of a run, unless no relay is to be up: Down has removed the record then.
func (m *End) NoteWatched(w Watch) error {
	if len(m.Kernel.Applied().Relays) == 0 {
		return nil
	}
	unlock, err := m.Kernel.Lock(nil)
	if err != nil {
		return err
	}
	defer unlock()
	if len(m.Kernel.Applied().Relays) == 0 {
		return nil
	}
	return m.Kernel.NoteWatched(w)
}

// ErrEdited is returned where the relays are up by another text of the file than the present one.
var ErrEdited = message.New("the file has changed since the relays were brought up")

// edited reports whether the relays are up by another text of the file: only `up` and `reload` may apply this one.
func (m *End) edited() bool {
	applied := m.Kernel.Applied()
	return len(applied.Relays) > 0 && applied.File != m.Config.Sum
}

// toMend returns the relays that are to be up, and those that are.
func (m *End) toMend() ([]*config.Relay, error) {
	if m.edited() {
		return nil, message.New("%v: %s", ErrEdited, m.Config.Path)
	}
	failed := m.Kernel.FailedRelays() // Moved tries them again
	names := slices.DeleteFunc(m.Kernel.Applied().Relays, func(name string) bool {
		return slices.Contains(failed, name) || m.Config.Relay(name) == nil
	})
	if len(names) == 0 {
		return nil, nil
	}
	return m.wantUp(names)
}
