package reconcile

import (
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
	*repairs = repairs.Next(changed || err != nil, now)
	switch {
	case known:
	case repairs.Rival() && first != "":
		m.note(message.New("another program removes or changes what ds4relay installs, again and again: from now on it "+
			"is put back every ten minutes only; the last step: %s", first))
	case changed && err == nil:
		m.note(message.New("put back what another program has removed or changed: %s", first))
	}
	return changed, err
}

// mend returns the first step as a line.
func (m *End) mend(show func(state.Step), waiting func(string)) (changed bool, first string, err error) {
	relays, err := m.toMend()
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
	}, waiting, func(w way) error { return m.recordUp(w, true) })
	return changed, first, err
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

// toMend returns the relays that are to be up, and those that are.
func (m *End) toMend() ([]*config.Relay, error) {
	applied := m.Kernel.Applied()
	if applied.File != m.Config.Sum {
		return nil, nil
	}
	failed := m.Kernel.FailedRelays() // Moved tries them again
	names := slices.DeleteFunc(applied.Relays, func(name string) bool {
		return slices.Contains(failed, name) || m.Config.Relay(name) == nil
	})
	if len(names) == 0 {
		return nil, nil
	}
	return m.wantUp(names)
}

// noteApplied records which relays are to be up from now on. Those that are not concerned stay as they are.
func (m *End) noteApplied(relays []*config.Relay, others bool, without []string) error {
	now := kernel.Applied{File: m.Config.Sum}
	for _, r := range relays {
		now.Relays = append(now.Relays, r.Name)
	}
	if others {
		for _, name := range m.Kernel.Applied().Relays {
			if m.Config.Relay(name) != nil && !slices.Contains(now.Relays, name) {
				now.Relays = append(now.Relays, name)
			}
		}
	}
	now.Relays = slices.DeleteFunc(now.Relays, func(name string) bool { return slices.Contains(without, name) })
	return m.Kernel.NoteApplied(now)
}
