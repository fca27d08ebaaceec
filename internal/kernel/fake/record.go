package fake

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ds4relay/ds4relay/internal/alive"
	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/state"
)

// records are what package kernel keeps in /run.
type records struct {
	tables   map[string]record // table → what it was loaded from
	saved    []state.Sysctl
	peers    map[string]netip.Addr
	failed   []string
	paths    map[string]state.PathNote
	applied  kernel.Applied
	watched  alive.Watch
	served   map[string]string // relay → public address
	pushes   map[string]*kernel.Push
	included bool // the file for nftables.conf exists
}

// record is what package kernel records about a table.
type record struct {
	sum, ruleset string
	sets         []state.Set // without elements
}

// Operation is a kind of operation that package kernel does on the machine.
type Operation string

// The operations that may fail. Write needs disk space for a record; Remove and other changes of a directory do not.
const (
	Dump    Operation = "dump"
	Change  Operation = "change"
	Nft     Operation = "nft"
	NftDone Operation = "nft, done" // nft fails after its transaction
	Write   Operation = "write"
	Remove  Operation = "remove"
)

func (k *Kernel) fail(o Operation) error {
	if k.Fail == nil {
		return nil
	}
	if err := k.Fail(o); err != nil {
		return fmt.Errorf("%s: %w", o, err)
	}
	return nil
}

// Lock implements reconcile.Kernel: its file needs no disk space.
func (k *Kernel) Lock(func(string)) (func(), error) {
	return func() {}, k.fail(Remove)
}

// KeepTables implements reconcile.Kernel.
func (k *Kernel) KeepTables(tables []state.Table) error {
	if err := k.fail(Write); err != nil {
		return err
	}
	k.records.included = len(tables) > 0
	return nil
}

// NotePeers implements reconcile.Kernel.
func (k *Kernel) NotePeers(relays []*config.Relay, used map[string]netip.Addr) error {
	if len(used) == 0 {
		return nil
	}
	if err := k.fail(Write); err != nil {
		return err
	}
	for _, r := range relays {
		if addr, ok := used[r.Name]; ok {
			k.records.peers[r.PeerName] = addr
		}
	}
	return nil
}

// PathNote implements reconcile.Kernel.
func (k *Kernel) PathNote(relay string) state.PathNote { return k.records.paths[relay] }

// NotePath implements reconcile.Kernel.
func (k *Kernel) NotePath(relay string, note state.PathNote) error {
	if note.Passes == 0 {
		delete(k.records.paths, relay)
		return nil
	}
	if err := k.fail(Write); err != nil {
		return err
	}
	k.records.paths[relay] = note
	return nil
}

// NoteFailed implements reconcile.Kernel.
func (k *Kernel) NoteFailed(relays []string) error {
	k.records.failed = relays
	return nil
}

// FailedRelays implements reconcile.Kernel.
func (k *Kernel) FailedRelays() []string { return k.records.failed }

// NoteApplied implements reconcile.Kernel: an unchanged record is not written, and without relays it is removed.
func (k *Kernel) NoteApplied(a kernel.Applied) error {
	o := Write
	switch {
	case len(a.Relays) == 0:
		o, a = Remove, kernel.Applied{}
	case a.File == k.records.applied.File && slices.Equal(a.Relays, k.records.applied.Relays):
		return nil
	}
	if err := k.fail(o); err != nil {
		return err
	}
	k.records.applied = a
	return nil
}

// Applied implements reconcile.Kernel.
func (k *Kernel) Applied() kernel.Applied {
	a := k.records.applied
	a.Relays = slices.Clone(a.Relays)
	return a
}

// NoteWatched implements reconcile.Kernel.
func (k *Kernel) NoteWatched(w alive.Watch) error {
	k.records.watched = w
	return nil
}

// Watched implements reconcile.Kernel.
func (k *Kernel) Watched() alive.Watch { return k.records.watched }

// Served implements reconcile.Kernel.
func (k *Kernel) Served(relay string) (string, error) { return k.records.served[relay], nil }

// NoteServed implements reconcile.Kernel.
func (k *Kernel) NoteServed(relay, address string) error {
	if err := k.fail(Write); err != nil {
		return err
	}
	if k.records.served == nil {
		k.records.served = map[string]string{}
	}
	k.records.served[relay] = address
	return nil
}

// NoteSysctls implements reconcile.Kernel.
func (k *Kernel) NoteSysctls() error {
	saved := k.savedSysctls()
	if len(saved) == len(k.records.saved) {
		return nil
	}
	if err := k.fail(Write); err != nil {
		return err
	}
	k.records.saved = saved
	return nil
}

// Clear implements reconcile.Kernel.
func (k *Kernel) Clear() error {
	if err := k.fail(Remove); err != nil {
		return err
	}
	clear(k.records.tables)
	clear(k.records.paths)
	k.records.saved, k.records.included = nil, false
	k.records.applied, k.records.watched = kernel.Applied{}, alive.Watch{}
	return nil
}

// noteTables works like package kernel: if writing fails, the previous records stay.
func (k *Kernel) noteTables(s state.LoadTables) error {
	for _, t := range s.Loaded {
		k.interrupt()
		if err := k.fail(Write); err != nil {
			return &kernel.Unrecorded{Err: err}
		}
		noted := record{sum: k.ruleset[t.String()].sum(), ruleset: t.Ruleset}
		for _, set := range t.Sets {
			set.Elements = nil
			noted.sets = append(noted.sets, set)
		}
		k.records.tables[t.String()] = noted
	}
	for _, t := range s.Former {
		if slices.ContainsFunc(s.Loaded, func(l state.Table) bool { return l.String() == t.String() }) {
			continue
		}
		k.interrupt()
		if err := k.fail(Remove); err != nil {
			return &kernel.Unrecorded{Err: err}
		}
		delete(k.records.tables, t.String())
	}
	return nil
}

// peer works like package kernel: it returns the address of a name, or the last one.
func (k *Kernel) peer(r *config.Relay, relays []*config.Relay) (netip.Addr, error) {
	known := k.records.peers[r.PeerName]
	if !known.IsValid() {
		for _, link := range k.links {
			if link.Relay == r.Name {
				known = link.Remote()
			}
		}
	}
	addrs := slices.DeleteFunc(slices.Clone(k.Names[r.PeerName]), func(a netip.Addr) bool {
		return slices.Contains(k.Own, a) ||
			slices.ContainsFunc(relays, func(r *config.Relay) bool { return r.Local == a }) ||
			slices.ContainsFunc(k.addrs, func(own state.Addr) bool { return own.Addr == a })
	})
	switch {
	case len(addrs) == 0 && !known.IsValid():
		return known, fmt.Errorf("relay %q: %w %s", r.Name, ErrNoAddress, r.PeerName)
	case len(addrs) == 0, slices.Contains(addrs, known):
		return known, nil
	}
	return addrs[0], nil
}

// NextPeer implements reconcile.Kernel.
func (k *Kernel) NextPeer(r *config.Relay, used netip.Addr) (netip.Addr, error) {
	addrs := k.Names[r.PeerName]
	if len(addrs) == 0 {
		return used, nil
	}
	next := addrs[(slices.Index(addrs, used)+1)%len(addrs)]
	return next, k.NotePeers([]*config.Relay{r}, map[string]netip.Addr{r.Name: next})
}

// savedSysctls returns the previous values of sysctls from the records and from state.FenceSet, like package kernel.
func (k *Kernel) savedSysctls() []state.Sysctl {
	saved := slices.Clone(k.records.saved)
	t := k.ruleset["ip "+state.TableName]
	if t == nil || t.sets[state.FenceSet.Name] == nil {
		return saved
	}
	for element := range t.sets[state.FenceSet.Name].elements {
		device, err := strconv.Unquote(element)
		key := state.ForwardingKey(device)
		if err == nil && !slices.ContainsFunc(saved, func(s state.Sysctl) bool { return s.Key == key }) {
			saved = append(saved, state.Sysctl{Key: key, Value: "0"})
		}
	}
	return saved
}

// LoseRecords deletes or damages records, as a crash, a user or a full disk might. Damaged records count as missing. It
// returns what is lost, and the sysctls that keep their values because the previous ones are no longer known.
func (k *Kernel) LoseRecords(random *rand.Rand) (what string, kept []state.Sysctl) {
	if random.IntN(2) == 0 {
		clear(k.records.tables)
		what += " tables"
	} else if name := "ip " + state.TableName; random.IntN(2) == 0 {
		if damaged, ok := k.records.tables[name]; ok {
			damaged.sum = "damaged"
			k.records.tables[name] = damaged
		}
		what += " table " + name
	}
	if random.IntN(2) == 0 {
		lost := k.records.saved
		k.records.saved = nil
		fenced := k.savedSysctls()
		for _, s := range lost {
			s.Value, _ = k.sysctl(s.Key)
			if !slices.ContainsFunc(fenced, func(f state.Sysctl) bool { return f.Key == s.Key }) {
				kept = append(kept, s)
			}
		}
		what += " sysctls"
	}
	if random.IntN(2) == 0 {
		k.records.applied = kernel.Applied{}
		what += " applied"
	}
	if random.IntN(2) == 0 {
		clear(k.records.peers)
		what += " peers"
	}
	return "lost records:" + what, kept
}

// SetSysctls sets the initial values of sysctls.
func (k *Kernel) SetSysctls(values map[string]string) { maps.Copy(k.sysctls, values) }

// Peers returns the recorded addresses of names.
func (k *Kernel) Peers() map[string]netip.Addr { return maps.Clone(k.records.peers) }

// Records returns all records as text.
func (k *Kernel) Records() string {
	lines := []string{fmt.Sprintf("included %v", k.records.included)}
	for name, r := range k.records.tables {
		lines = append(lines, "table "+name+" "+r.sum)
	}
	for name, addr := range k.records.peers {
		lines = append(lines, fmt.Sprintf("peer %s %v", name, addr))
	}
	for _, s := range k.records.saved {
		lines = append(lines, "saved "+s.Key+" "+s.Value)
	}
	if a := k.records.applied; a.File != 0 {
		lines = append(lines, fmt.Sprintf("applied %x %q", a.File, a.Relays))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// Pushed implements reconcile.Kernel.
func (k *Kernel) Pushed(relay string) *kernel.Push { return k.records.pushes[relay] }

// NotePush implements reconcile.Kernel.
func (k *Kernel) NotePush(p *kernel.Push) error {
	if err := k.fail(Write); err != nil {
		return err
	}
	if k.records.pushes == nil {
		k.records.pushes = map[string]*kernel.Push{}
	}
	k.records.pushes[p.Relay] = p
	return nil
}

// ForgetPush implements reconcile.Kernel.
func (k *Kernel) ForgetPush(relay string) error {
	if err := k.fail(Remove); err != nil {
		return err
	}
	delete(k.records.pushes, relay)
	return nil
}
