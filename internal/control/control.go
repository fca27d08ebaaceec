package control

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/state"
)

// A Kernel is what control needs of package kernel.
type Kernel interface {
	kernel.Applier
	Facts([]*config.Relay) (state.Facts, error)
	Observe(want state.State) (state.Observed, error)
	Lock(waiting func(holder string)) (unlock func(), err error)
	KeepTables([]state.Table) error
	NotePeers(map[string]netip.Addr) error
	Clear() error
}

// Machine is one end: its configuration and its kernel.
type Machine struct {
	Config *config.Config // nil is allowed where everything is taken down
	Kernel Kernel
	Note   func(string) // is told what a person should know about; may be nil

	// Neighbours tells what of other programs on the machine matters to the relays; may be nil.
	Neighbours func([]*config.Relay) []string
}

// ErrUnknownRelay is wrapped by errors about a name that the configuration does not have.
var ErrUnknownRelay = errors.New("unknown relay")

// ErrUnwritten is wrapped where the kernel is as wanted, but a record for later could not be written.
var ErrUnwritten = errors.New("all is done, but not all of it is written down")

// select finds the named relays.
func (m *Machine) relays(names []string) ([]*config.Relay, error) {
	var relays []*config.Relay
	for _, name := range names {
		relay := m.Config.Relay(name)
		if relay == nil {
			return nil, fmt.Errorf("%w %q; %s has: %s", ErrUnknownRelay, name, m.Config.Path, m.Config.Names())
		}
		relays = append(relays, relay)
	}
	return relays, nil
}

// running are the names of the relays that have a tunnel.
func running(o state.Observed) []string {
	var names []string
	for _, link := range o.Links {
		names = append(names, link.Relay)
	}
	return names
}

// Running are the names of the relays that are up, whatever the configuration says.
func Running(k Kernel) ([]string, error) {
	o, err := k.Observe(state.State{})
	return slices.DeleteFunc(running(o), func(name string) bool { return name == "" }), err
}

// wantUp are the relays that are up after `up names…`: all enabled ones, or the named ones beside those that are up.
func (m *Machine) wantUp(names []string) ([]*config.Relay, error) {
	named, err := m.relays(names)
	if err != nil {
		return nil, err
	}
	var already []string
	if len(names) > 0 {
		o, err := m.Kernel.Observe(state.State{})
		if err != nil {
			return nil, err
		}
		already = running(o)
	}
	var want []*config.Relay
	for _, relay := range m.Config.Relays {
		if slices.Contains(named, relay) || slices.Contains(already, relay.Name) || len(names) == 0 && relay.Enabled {
			want = append(want, relay)
		}
	}
	return want, nil
}

// wantDown are the relays that stay up after `down names…`.
func (m *Machine) wantDown(names []string) ([]*config.Relay, error) {
	if len(names) == 0 {
		return nil, nil
	}
	if _, err := m.relays(names); err != nil {
		return nil, err
	}
	o, err := m.Kernel.Observe(state.State{})
	if err != nil {
		return nil, err
	}
	var want []*config.Relay
	for _, relay := range m.Config.Relays {
		if slices.Contains(running(o), relay.Name) && !slices.Contains(names, relay.Name) {
			want = append(want, relay)
		}
	}
	return want, nil
}

// steps is the way to a state in which exactly these relays are up.
func (m *Machine) steps(relays []*config.Relay) ([]state.Step, state.State, state.Facts, error) {
	facts, err := m.Kernel.Facts(relays)
	if err != nil {
		return nil, state.State{}, facts, err
	}
	for _, r := range relays {
		if reason := facts.Waiting[r.Name]; reason != "" {
			m.note(fmt.Sprintf("relay %q waits for %s", r.Name, reason))
		}
	}
	want := state.Compile(relays, facts)
	have, err := m.Kernel.Observe(want)
	if err != nil {
		return nil, want, facts, err
	}
	for _, text := range have.Notes {
		m.note(text)
	}
	steps, err := state.Plan(have, want)
	return steps, want, facts, err
}

func (m *Machine) note(text string) {
	if m.Note != nil {
		m.Note(text)
	}
}

// Up brings up the named relays, or all enabled ones. check may refuse the relays before anything is changed.
func (m *Machine) Up(names []string, check func([]*config.Relay) error, show func(state.Step), waiting func(string)) (changed bool, err error) {
	return m.change(func() ([]*config.Relay, error) {
		relays, err := m.wantUp(names)
		if err == nil && check != nil {
			err = check(relays)
		}
		return relays, err
	}, show, waiting, m.recordUp)
}

// Down takes down the named relays, or all.
func (m *Machine) Down(names []string, show func(state.Step), waiting func(string)) (changed bool, err error) {
	return m.change(func() ([]*config.Relay, error) { return m.wantDown(names) }, show, waiting,
		func(relays []*config.Relay, wanted state.State, _ state.Facts) error {
			if len(relays) == 0 {
				return m.Kernel.Clear()
			}
			return m.Kernel.KeepTables(wanted.Tables)
		})
}

// recordUp writes down what the kernel cannot keep. The addresses of names are those that are in use now: Facts has
// checked them, and the tunnels send to them.
func (m *Machine) recordUp(relays []*config.Relay, wanted state.State, facts state.Facts) error {
	peers := map[string]netip.Addr{}
	for _, r := range relays {
		up := slices.ContainsFunc(wanted.Links, func(l state.Link) bool { return l.Relay == r.Name })
		if addr := facts.Peer[r.Name]; up && addr.IsValid() {
			peers[r.PeerName] = addr
		}
	}
	return errors.Join(m.Kernel.KeepTables(wanted.Tables), m.Kernel.NotePeers(peers))
}

func (m *Machine) change(want func() ([]*config.Relay, error), show func(state.Step), waiting func(string),
	record func([]*config.Relay, state.State, state.Facts) error) (bool, error) {
	unlock, err := m.Kernel.Lock(waiting)
	if err != nil {
		return false, err
	}
	defer unlock()
	relays, err := want()
	if err != nil {
		return false, err
	}
	steps, wanted, facts, err := m.steps(relays)
	if err != nil {
		return false, err
	}
	if err := kernel.Do(m.Kernel, steps, show); err != nil {
		return true, err
	}
	if err := record(relays, wanted, facts); err != nil {
		return len(steps) > 0, fmt.Errorf("%w: %w", ErrUnwritten, err)
	}
	return len(steps) > 0, nil
}

// Plan is what Up would do, or Down.
func (m *Machine) Plan(names []string, down bool) ([]state.Step, error) {
	want := m.wantUp
	if down {
		want = m.wantDown
	}
	relays, err := want(names)
	if err != nil {
		return nil, err
	}
	steps, _, _, err := m.steps(relays)
	return steps, err
}
