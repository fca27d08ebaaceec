package reconcile

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/ds4relay/ds4relay/internal/alive"
	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/state"
)

// A Kernel is the part of package kernel that reconcile needs.
type Kernel interface {
	kernel.Applier
	Facts([]*config.Relay) (state.Facts, error)
	Observe(want state.State) (state.Observed, error)
	Lock(waiting func(holder string)) (unlock func(), err error)
	KeepTables([]state.Table) error
	NoteSysctls() error
	NotePeers(relays []*config.Relay, used map[string]netip.Addr) error
	NextPeer(r *config.Relay, used netip.Addr) (netip.Addr, error)
	PathNote(relay string) state.PathNote
	NotePath(relay string, note state.PathNote) error
	NoteFailed(relays []string) error
	FailedRelays() []string
	NoteApplied(kernel.Applied) error
	Applied() kernel.Applied
	NoteWatched(alive.Watch) error
	Watched() alive.Watch
	Served(relay string) (address string, err error)
	NoteServed(relay, address string) error
	Pushed(relay string) *kernel.Push
	NotePush(*kernel.Push) error
	ForgetPush(relay string) error
	Clear() error
}

// End is one end of a relay: its configuration and its kernel.
type End struct {
	Config *config.Config // may be nil if everything is taken down
	Kernel Kernel
	Note   func(*message.Text) // is told what a person should know about; may be nil

	// Neighbours tells what of other programs on the machine matters to the relays; may be nil.
	Neighbours func([]*config.Relay) []*message.Text
	// Joined reports whether this home has joined the VPS of a relay; may be nil.
	Joined func(relay string) bool
}

// ErrUnknownRelay is wrapped by errors about a name that the configuration does not have.
var ErrUnknownRelay = message.New("unknown relay")

// ErrUnwritten is wrapped where the kernel is as wanted, but a record for later could not be written.
var ErrUnwritten = message.New("all is done, but not all of it is written down")

// SomeFailed is the error if some relays are up, and others could not be brought up.
type SomeFailed struct{ Errs []error }

// Error implements error: what is wrong with each relay that could not be brought up, and that the others are up.
func (e *SomeFailed) Error() string { return e.AsText().Error() }

// AsText implements message.Coded.
func (e *SomeFailed) AsText() *message.Text {
	return message.Join("\n", message.Of(errors.Join(e.Errs...)), message.New("the other relays are up"))
}

// relays finds the named relays.
func (m *End) relays(names []string) ([]*config.Relay, error) {
	var relays []*config.Relay
	for _, name := range names {
		relay := m.Config.Relay(name)
		if relay == nil {
			return nil, message.New("%v %q; %s has: %s", ErrUnknownRelay, name, m.Config.Path, m.Config.Names())
		}
		relays = append(relays, relay)
	}
	return relays, nil
}

// running returns the names of the relays that have a tunnel.
func running(o state.Observed) []string {
	var names []string
	for _, link := range o.Links {
		names = append(names, link.Relay)
	}
	return names
}

// Running returns the names of the relays that are up, whatever the configuration says, and of those that should be:
// somebody else may have removed a tunnel.
func Running(k Kernel) ([]string, error) {
	o, err := k.Observe(state.State{})
	names := k.Applied().Relays
	for _, name := range running(o) {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, err
}

// wantUp returns the relays that are up after `up names…`: all enabled ones, or the named ones and those that are
// already up.
func (m *End) wantUp(names []string) ([]*config.Relay, error) {
	named, err := m.relays(names)
	if err != nil {
		return nil, err
	}
	var already []string
	if len(names) > 0 {
		if already, err = Running(m.Kernel); err != nil {
			return nil, err
		}
	}
	var want []*config.Relay
	for _, relay := range m.Config.Relays {
		if slices.Contains(named, relay) || slices.Contains(already, relay.Name) || len(names) == 0 && relay.Enabled {
			want = append(want, relay)
		}
	}
	return want, nil
}

// wantDown returns the relays that stay up after `down names…`.
func (m *End) wantDown(names []string) ([]*config.Relay, error) {
	if len(names) == 0 {
		return nil, nil
	}
	if _, err := m.relays(names); err != nil {
		return nil, err
	}
	already, err := Running(m.Kernel)
	if err != nil {
		return nil, err
	}
	var want []*config.Relay
	for _, relay := range m.Config.Relays {
		if slices.Contains(already, relay.Name) && !slices.Contains(names, relay.Name) {
			want = append(want, relay)
		}
	}
	return want, nil
}

// way is a plan: the steps from the observed kernel to the state that relays need.
type way struct {
	relays []*config.Relay
	facts  state.Facts
	have   state.Observed
	want   state.State
	steps  []state.Step
	failed map[string]error // relay → why it is left out

	planned bool // the machine was observed: an error concerns the steps
}

// way finds the steps to a state in which exactly these relays are up, except those in leftOut.
func (m *End) way(relays []*config.Relay, leftOut map[string]error) (w way, err error) {
	w.relays = relays
	if w.facts, err = m.Kernel.Facts(relays); err != nil {
		return w, err
	}
	w.failed = maps.Clone(leftOut)
	if w.failed == nil {
		w.failed = map[string]error{}
	}
	maps.Copy(w.failed, w.facts.Failed)
	w.facts.Failed = w.failed
	for _, r := range relays {
		if reason, waits := w.facts.Waiting[r.Name]; waits {
			m.note(state.Waiting(r.Name, reason))
		}
	}
	w.want = state.Compile(relays, w.facts)
	if w.have, err = m.Kernel.Observe(w.want); err != nil {
		return w, err
	}
	for _, text := range w.have.Notes {
		m.note(text)
	}
	w.planned = true
	w.steps, err = state.Plan(w.have, w.want)
	return w, err
}

func (m *End) note(text *message.Text) {
	if m.Note != nil {
		m.Note(text)
	}
}

// Up brings up the named relays, or all enabled ones. check may refuse the relays before anything is changed.
func (m *End) Up(names []string, check func([]*config.Relay) error, show func(state.Step),
	waiting func(string)) (changed bool, err error) {
	return m.change(func() ([]*config.Relay, error) {
		relays, err := m.wantUp(names)
		if err == nil && check != nil {
			err = check(relays)
		}
		return relays, err
	}, show, waiting, func(w way) error { return m.recordUp(w) })
}

// Down takes down the named relays, or all.
func (m *End) Down(names []string, show func(state.Step), waiting func(string)) (changed bool, err error) {
	var before kernel.Applied
	changed, err = m.change(func() ([]*config.Relay, error) {
		relays, err := m.wantDown(names)
		if err != nil {
			return nil, err
		}
		// First, so that nobody brings back what a killed down has removed.
		before = m.Kernel.Applied()
		if m.Kernel.NoteApplied(kernel.Applied{File: before.File, Relays: namesOf(relays, nil)}) != nil {
			err = m.Kernel.NoteApplied(kernel.Applied{}) // removing it needs no disk space
		}
		return relays, err
	}, show, waiting, func(w way) error {
		if len(w.relays) == 0 {
			return m.Kernel.Clear()
		}
		failed := slices.DeleteFunc(m.Kernel.FailedRelays(), func(name string) bool {
			return slices.Contains(names, name)
		})
		err := errors.Join(m.Kernel.KeepTables(w.want.Tables), m.Kernel.NoteFailed(failed), m.noteApplied(w))
		for _, name := range names {
			err = errors.Join(err, m.Kernel.NotePath(name, state.PathNote{}))
		}
		return err
	})
	var some *SomeFailed
	if err != nil && !errors.Is(err, ErrUnwritten) && !errors.As(err, &some) && before.File != 0 {
		err = errors.Join(err, m.Kernel.NoteApplied(before))
	}
	return changed, err
}

// noteApplied records the relays that are up now, and those that wait for something.
func (m *End) noteApplied(w way) error {
	return m.Kernel.NoteApplied(kernel.Applied{File: m.Config.Sum, Relays: namesOf(w.relays, w.failed)})
}

// namesOf returns the names of relays without those that have failed.
func namesOf(relays []*config.Relay, failed map[string]error) []string {
	var names []string
	for _, r := range relays {
		if failed[r.Name] == nil {
			names = append(names, r.Name)
		}
	}
	return names
}

// recordUp writes the records that the kernel cannot keep. Relays that an earlier call could not bring up, and that
// this call did not concern, will still be tried again. The names' addresses are the ones in use now: Facts has checked
// them, and the tunnels send to them.
func (m *End) recordUp(w way) error {
	peers := map[string]netip.Addr{}
	for _, r := range w.relays {
		up := slices.ContainsFunc(w.want.Links, func(l state.Link) bool { return l.Relay == r.Name })
		if addr := w.facts.Peer[r.Name]; up && addr.IsValid() {
			peers[r.Name] = addr
		}
	}
	failed := slices.Collect(maps.Keys(w.failed))
	for _, name := range m.Kernel.FailedRelays() {
		if r := m.Config.Relay(name); r != nil && r.Enabled && !slices.Contains(w.relays, r) {
			failed = append(failed, name)
		}
	}
	slices.Sort(failed)
	return errors.Join(m.Kernel.KeepTables(w.want.Tables), m.Kernel.NotePeers(w.relays, peers), m.Kernel.NoteSysctls(),
		m.Kernel.NoteFailed(failed), m.noteApplied(w))
}

func (m *End) change(want func() ([]*config.Relay, error), show func(state.Step), waiting func(string),
	record func(way) error) (bool, error) {
	unlock, err := m.Kernel.Lock(waiting)
	if err != nil {
		return false, err
	}
	defer unlock()
	relays, err := want()
	if err != nil {
		return false, err
	}
	w, changed, err := m.goTo(relays, show)
	if err != nil {
		return changed, err
	}
	m.noteFreed(w)
	if err := record(w); err != nil {
		return changed, message.New("%v: %v", ErrUnwritten, err)
	}
	return changed, w.err()
}

// noteFreed adds a note about hosts whose kill switch is now off. They are known from the rules, which somebody may
// already have removed.
func (m *End) noteFreed(w way) {
	said := w.want.Held()
	freed := ""
	for _, host := range w.have.Held() {
		if !slices.Contains(said, host) { // two relays may have a kill switch for one host
			said = append(said, host)
			freed += ", " + host.String()
		}
	}
	switch {
	case freed != "":
		m.note(message.New("the kill switch is off for %s: what leaves from there may take any way again", freed[2:]))
	case w.have.KillSwitch() && !w.want.KillSwitch():
		m.note(message.New("the kill switch is off: hosts may leave by any way again"))
	}
}

// err returns the error about relays that could not be brought up.
func (w way) err() error {
	if len(w.failed) == 0 {
		return nil
	}
	var errs []error
	for _, r := range w.relays {
		if err := w.failed[r.Name]; err != nil {
			errs = append(errs, err)
		}
	}
	if len(w.want.Links) == 0 {
		return errors.Join(errs...)
	}
	return &SomeFailed{errs}
}

// goTo brings up exactly those of the relays that can be up. Relays do not affect each other: goTo first applies the
// steps for all of them. If a relay that is not up yet makes that fail, it applies those for the running relays, and
// then for each of the others. Failed steps are undone.
func (m *End) goTo(relays []*config.Relay, show func(state.Step)) (w way, changed bool, err error) {
	if w, err = m.way(relays, nil); err != nil && !w.planned {
		return w, false, err
	}
	if lost := w.have.Unrecorded; len(w.want.Links) == 0 && len(lost) > 0 {
		m.note(message.New("the records of `up` are lost: whether %s forwarded IPv4 before is not known, "+
			"and stays as it is now; to turn it off: sysctl -w net.ipv4.conf.%s.forwarding=0", strings.Join(lost, ", "),
			lost[0]))
	}
	if stays := w.unchanged(); stays != nil {
		return w, false, stays
	}
	if err == nil {
		if err = kernel.Do(m.Kernel, w.steps, show); err == nil {
			return w, len(w.steps) > 0, nil
		}
		changed = true
	}
	return m.isolate(w, err, changed, show)
}

// isolate brings up the relays that can be, after a step has failed or another program's object was in the way.
func (m *End) isolate(w way, first error, changed bool, show func(state.Step)) (way, bool, error) {
	var waiting []*config.Relay // those that are not up yet: one of them may be the one that fails
	up := running(w.have)
	for _, r := range w.relays {
		if w.failed[r.Name] == nil && !slices.Contains(up, r.Name) {
			waiting = append(waiting, r)
		}
	}
	var failing *kernel.StepError
	if errors.As(first, &failing) {
		device := state.Device(failing.Step)
		if !slices.ContainsFunc(waiting, func(r *config.Relay) bool { return r.Device == device }) {
			return w, changed, first
		}
	}
	alone := len(w.relays)-len(w.failed) < 2
	if alone && !w.want.KillSwitch() {
		return w, changed, first
	}
	if failing != nil && !alone {
		again, err := m.way(w.relays, nil)
		if err == nil && kernel.Do(m.Kernel, again.steps, show) == nil {
			return again, true, nil // it failed only once
		}
	}
	leftOut := maps.Clone(w.failed)
	for _, r := range waiting {
		leftOut[r.Name] = first
	}
	best, done, err := m.try(w.relays, leftOut, show)
	changed = changed || done
	if err != nil {
		return w, changed, first
	}
	for _, r := range waiting {
		delete(leftOut, r.Name)
		next, done, err := m.try(w.relays, leftOut, show)
		changed = changed || done
		if err == nil {
			best = next
		} else {
			leftOut[r.Name] = naming(r, err)
		}
	}
	if len(best.want.Links) == 0 {
		return best, changed, first
	}
	best.failed = leftOut
	return best, changed, nil
}

// naming adds the relay's name to an error.
func naming(r *config.Relay, err error) error {
	prefix := fmt.Sprintf("relay %q: ", r.Name)
	if strings.HasPrefix(err.Error(), prefix) {
		return err
	}
	return message.New("relay %q: %v", r.Name, err)
}

// try brings up the relays that are not in leftOut, or leaves everything unchanged.
func (m *End) try(relays []*config.Relay, leftOut map[string]error, show func(state.Step)) (way, bool, error) {
	w, err := m.way(relays, leftOut)
	if err != nil || len(w.steps) == 0 {
		return w, false, err
	}
	return w, true, kernel.Do(m.Kernel, w.steps, show)
}

// unchanged returns an error if nothing may change: no relay can be brought up, or a running one could not stay up.
func (w way) unchanged() error {
	var errs []error
	stays := len(w.failed) == len(w.relays) && !w.want.KillSwitch()
	for _, r := range w.relays {
		if err := w.failed[r.Name]; err != nil {
			errs = append(errs, err)
			stays = stays || slices.Contains(running(w.have), r.Name)
		}
	}
	if !stays {
		return nil
	}
	return errors.Join(errs...)
}

// Plan returns the steps of Up or Down. With a SomeFailed error it returns the steps for the other relays.
func (m *End) Plan(names []string, down bool) ([]state.Step, error) {
	want := m.wantUp
	if down {
		want = m.wantDown
	}
	relays, err := want(names)
	if err != nil {
		return nil, err
	}
	w, err := m.way(relays, nil)
	if err = cmp.Or(err, w.unchanged()); err != nil {
		return nil, err
	}
	return w.steps, w.err()
}
