package reconcile

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/config/configtest"
	"github.com/ds4relay/ds4relay/internal/kernel/fake"
	"github.com/ds4relay/ds4relay/internal/program"
	"github.com/ds4relay/ds4relay/internal/state"
	"github.com/ds4relay/ds4relay/internal/uci"
)

var faultRounds = flag.Int("rounds", 10_000, "how many rounds TestFaults has")

var errInjected = errors.New("injected failure")

// killed is the panic value that replaces SIGKILL.
type killed struct{}

// faulty fails or dies at one step.
type faulty struct {
	*fake.Kernel
	at    int // counts down
	what  string
	facts state.Facts // the last ones
}

func (f *faulty) Facts(relays []*config.Relay) (facts state.Facts, err error) {
	f.facts, err = f.Kernel.Facts(relays)
	return f.facts, err
}

func (f *faulty) Apply(step state.Step) error {
	f.at--
	if f.at != 0 {
		return f.Kernel.Apply(step)
	}
	switch f.what {
	case "failed":
		return errInjected
	case "killed before":
		panic(killed{})
	case "killed after":
		if err := f.Kernel.Apply(step); err != nil {
			return err
		}
		panic(killed{})
	}
	return f.Kernel.Apply(step)
}

// faults are what a machine may lack: which operations fail, from one of the first on, and whether all later ones do.
var faults = map[string]struct {
	of    []fake.Operation // nil: all
	first int
	all   bool
	err   error
}{
	"no memory":   {nil, 40, false, syscall.ENOMEM},
	"no buffers":  {[]fake.Operation{fake.Dump}, 7, false, syscall.ENOBUFS},
	"interrupted": {[]fake.Operation{fake.Dump}, 7, false, syscall.EINTR},
	// Only from the first call on: every later call fails too, so earlier transactions could not be undone.
	"nft hangs":       {[]fake.Operation{fake.Nft}, 1, true, &program.LimitError{Name: "nft", Limit: time.Minute}},
	"nft hangs after": {[]fake.Operation{fake.NftDone}, 2, false, &program.LimitError{Name: "nft", Limit: time.Minute}},
	"full":            {[]fake.Operation{fake.Write}, 6, true, syscall.ENOSPC},
	"read-only":       {[]fake.Operation{fake.Write, fake.Remove}, 8, true, syscall.EROFS},
}

// fault returns a function for fake.Kernel.Fail.
func fault(what string, at int) func(fake.Operation) error {
	f, ok := faults[what]
	if !ok {
		return nil
	}
	at = 1 + at%f.first
	return func(o fake.Operation) error {
		if f.of == nil && o == fake.NftDone || f.of != nil && !slices.Contains(f.of, o) {
			return nil
		}
		at--
		if at == 0 || at < 0 && f.all {
			return fmt.Errorf("%w: %w", errInjected, f.err)
		}
		return nil
	}
}

// walk is one machine whose configuration changes several times.
type walk struct {
	t      *testing.T
	kernel *fake.Kernel
	files  []*config.Config
	texts  []string
	known  map[string]string     // results of wanted
	own    netip.Addr            // an endpoint of this machine
	base   map[string]string     // sysctls that keep their values because the previous ones are lost
	peers  map[string]netip.Addr // relay → the other end of its tunnel, if it has a name
}

func newWalk(t *testing.T, random *rand.Rand, role string) *walk {
	const files = 120
	devices := map[string][]string{"vps": {"eth0"}, "router": {"wan", "br-lan"}}[role]
	w := &walk{t: t, kernel: fake.New(devices...), known: map[string]string{}, base: map[string]string{},
		own: netip.MustParseAddr("2001:db8:" + map[string]string{"vps": "6ef9", "router": "fdd2"}[role] +
			":0:198:51:100:144")}
	w.kernel.Own = []netip.Addr{w.own}
	w.kernel.Names = w.names(random, false)
	if random.IntN(2) == 0 {
		w.kernel.IPTables = state.IPTables{"iptables": true, "ip6tables": true}
	}
	for range files {
		text := named(random, configtest.Random(random, role))
		if role == "vps" && random.IntN(3) == 0 {
			text = configtest.InCloud(text)
		}
		file, err := uci.Parse("ds4relay", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		c, _, err := config.New(file, config.Defaults{Role: config.VPS})
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		w.files, w.texts = append(w.files, c), append(w.texts, text)
	}
	return w
}

var peeraddr = regexp.MustCompile(`option peeraddr '[^']*'`)

// named replaces some relays' peeraddr by names of their own.
func named(random *rand.Rand, text string) string {
	sections := strings.SplitAfter(text, "config relay 'r")
	for i := range sections {
		sections[i] = peeraddr.ReplaceAllStringFunc(sections[i], func(option string) string {
			if random.IntN(3) > 0 {
				return option
			}
			return fmt.Sprintf("option peeraddr 'r%c.example.org'", sections[i][0])
		})
	}
	return strings.Join(sections, "")
}

// names returns DNS records for all relays' names: one or two addresses; with wrong also none, or this machine's own.
func (w *walk) names(random *rand.Rand, wrong bool) map[string][]netip.Addr {
	names := map[string][]netip.Addr{}
	for i := range 3 {
		var addrs []netip.Addr
		for range 1 + random.IntN(2) {
			addrs = append(addrs, netip.MustParseAddr(fmt.Sprintf("2001:db8:f00%d::%d", i, 1+random.IntN(3))))
		}
		if wrong {
			switch random.IntN(6) {
			case 0:
				addrs = nil
			case 1:
				addrs = []netip.Addr{w.own}
			case 2:
				addrs = append([]netip.Addr{w.own}, addrs...)
			}
		}
		names[fmt.Sprintf("r%d.example.org", i)] = addrs
	}
	return names
}

// nothing stands for a file's number if everything is to be taken down.
const nothing = -1

// goTo brings the machine to a file's state, or fails or is killed on the way.
func (w *walk) goTo(file int, what string, at int) (err error, dead bool) {
	defer func() {
		if r := recover(); r != nil {
			if _, dead = r.(killed); !dead {
				panic(r)
			}
		}
	}()
	f := &faulty{Kernel: w.kernel, at: at, what: what}
	m := &End{Kernel: f}
	w.kernel.Fail = fault(what, at)
	if what == "killed within" {
		parts := 1 + at%4
		w.kernel.Interrupt = func() {
			if parts--; parts == 0 {
				panic(killed{})
			}
		}
	}
	defer func() {
		w.kernel.Fail, w.kernel.Interrupt = nil, nil
		if !dead && (err == nil || errors.Is(err, ErrUnwritten)) {
			w.peers = f.facts.Peer
		}
	}()
	show := func(state.Step) {}
	if file == nothing {
		_, err = m.Down(nil, show, nil)
	} else {
		m.Config = w.files[file]
		_, err = m.Up(nil, nil, show, nil)
	}
	return err, false
}

// wanted returns the kernel that a file produces from an empty one. Homes keep their current slots.
func (w *walk) wanted(file int) string {
	fresh := fake.New(w.kernel.Devices...)
	fresh.IPTables = w.kernel.IPTables
	fresh.SetSysctls(w.base)
	if file == nothing {
		return fresh.Snapshot()
	}
	var relays []*config.Relay
	for _, r := range w.files[file].Relays {
		if r.Enabled {
			relays = append(relays, r)
		}
	}
	now := w.kernel.Names
	w.kernel.Names = map[string][]netip.Addr{}
	for _, r := range relays {
		if r.PeerName != "" {
			w.kernel.Names[r.PeerName] = []netip.Addr{w.peers[r.Name]}
		}
	}
	facts, err := w.kernel.Facts(relays)
	if err != nil {
		w.t.Fatal(err)
	}
	w.kernel.Names = now
	key := fmt.Sprint(file, facts.Peer, w.base)
	for _, route := range facts.Own {
		if route.Dst.Bits() != 0 {
			key += fmt.Sprint(" ", route)
		}
	}
	if snapshot, ok := w.known[key]; ok {
		return snapshot
	}
	want := state.Compile(relays, facts)
	have, err := fresh.Observe(want)
	if err != nil {
		w.t.Fatal(err)
	}
	steps, err := state.Plan(have, want)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, step := range steps {
		if err := fresh.Apply(step); err != nil {
			w.t.Fatalf("on an empty machine: %s: %v", step.Commands()[0], err)
		}
	}
	w.known[key] = fresh.Snapshot()
	return w.known[key]
}

// difference returns the lines that only one of the texts has.
func difference(want, have string) string {
	var b strings.Builder
	for _, side := range []struct{ sign, text, other string }{{"-", want, have}, {"+", have, want}} {
		others := map[string]bool{}
		for line := range strings.Lines(side.other) {
			others[strings.TrimSpace(line)] = true
		}
		for line := range strings.Lines(side.text) {
			if line = strings.TrimSpace(line); !others[line] {
				fmt.Fprintln(&b, side.sign, line)
			}
		}
	}
	return b.String()
}

// withoutNotes returns a snapshot without the records of sysctls.
func withoutNotes(snapshot string) string {
	var b strings.Builder
	for line := range strings.Lines(snapshot) {
		if !strings.HasPrefix(line, "saved ") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// whats are the events that may happen in a round of a walk.
var whats = []string{"done", "failed", "killed before", "killed within", "killed after", "damaged", "lost",
	"no memory", "no buffers", "interrupted", "nft hangs", "nft hangs after", "full", "read-only"}

// round goes from one file to another, and returns the resulting file and what happened.
func (w *walk) round(random *rand.Rand, old, next int, what string, at int) (now int, outcome string, err error) {
	former := w.kernel.Names
	if random.IntN(3) == 0 {
		w.kernel.Names = w.names(random, true)
	}
	if what == "damaged" || what == "lost" {
		w.kernel.Names = w.names(random, false)
	}
	switch {
	case what == "damaged":
		outcome = w.kernel.Damage(random)
		if outcome == "sysctls set to 0" {
			clear(w.base)
		}
		next, at = old, 0
	case what == "lost":
		lost, kept := w.kernel.LoseRecords(random)
		outcome = lost
		for _, s := range kept {
			w.base[s.Key] = s.Value
		}
		next = old
	}
	peers := w.kernel.Peers()
	err, dead := w.goTo(next, what, at)
	switch {
	case dead: // both states must be reachable
		w.kernel.Names = w.names(random, false)
		if random.IntN(2) == 0 {
			next = old
		}
		if err, _ := w.goTo(next, "", 0); err != nil {
			return old, what, fmt.Errorf("afterwards: %w", err)
		}
		return next, what, nil
	case err == nil && outcome == "":
		return next, "done", nil
	case err == nil:
		return next, what, nil
	case !errors.Is(err, errInjected) && !errors.Is(err, fake.ErrNoAddress),
		strings.Contains(err.Error(), "while undoing"):
		return old, what, err
	case errors.Is(err, ErrUnwritten):
		old = next
	case !maps.Equal(peers, w.kernel.Peers()):
		return old, what, fmt.Errorf("%w, and all the same %v is noted, before %v", err, w.kernel.Peers(), peers)
	default:
		w.kernel.Names = former
	}
	if errors.Is(err, fake.ErrNoAddress) {
		what = "no address"
	}
	if what == "full" || what == "read-only" || errors.Is(err, ErrUnwritten) {
		// The kernel is as it was, or as it should be. Missing records are written as soon as that is possible.
		if want, have := withoutNotes(w.wanted(old)), withoutNotes(w.kernel.Snapshot()); want != have {
			return old, what, fmt.Errorf("the kernel is not as it should be, after %v:\n%s", err,
				difference(want, have))
		}
		if err, _ := w.goTo(old, "", 0); err != nil {
			return old, what, fmt.Errorf("afterwards: %w", err)
		}
	}
	return old, what, nil
}

// settled reports what is wrong after a round.
func (w *walk) settled(file int) error {
	if want, have := w.wanted(file), w.kernel.Snapshot(); want != have {
		return fmt.Errorf("the kernel is not as it should be:\n%s", difference(want, have))
	}
	for name, addr := range w.kernel.Peers() {
		own := func(r *config.Relay) bool { return r.Local == addr }
		if addr == w.own && file != nothing && slices.ContainsFunc(w.files[file].Relays, own) {
			return fmt.Errorf("the address of %s is noted as %v, this machine's own", name, addr)
		}
	}
	records := w.kernel.Records()
	if file == nothing {
		for line := range strings.Lines(records) {
			if line = strings.TrimSpace(line); line != "included false" && !strings.HasPrefix(line, "peer ") {
				return fmt.Errorf("after down there is still the record: %s", line)
			}
		}
		return nil
	}
	if !strings.Contains(records, "included true") {
		return errors.New("there is no file for nftables.conf")
	}
	m := &End{Config: w.files[file], Kernel: w.kernel}
	if steps, err := m.Plan(nil, false); err != nil || len(steps) > 0 {
		return fmt.Errorf("there is something left to do: %v, %v", err, steps)
	}
	if have := w.kernel.Records(); have != records {
		return fmt.Errorf("looking has changed records:\n%s", difference(records, have))
	}
	return nil
}

// TestFaults walks through random configurations on a kernel in memory, with failures, kills and changes by others at
// random steps, and with missing resources: the kernel always matches the old or the new configuration. cmd/ds4relay
// has the same test on a real kernel, with fewer rounds. DS4RELAY_SEED repeats a walk.
func TestFaults(t *testing.T) {
	const walks = 20
	defer debug.SetGCPercent(debug.SetGCPercent(1000)) // nearly all memory of a round is garbage afterwards
	seed := rand.Uint64()
	if s := os.Getenv("DS4RELAY_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("walks", func(t *testing.T) {
		for n := range walks {
			role := []string{"vps", "router"}[n%2]
			t.Run(fmt.Sprint(role, n/2), func(t *testing.T) {
				t.Parallel()
				random := rand.New(rand.NewPCG(seed, uint64(n)))
				w := newWalk(t, random, role)
				outcomes := map[string]int{}
				old := nothing
				for round := range *faultRounds / walks {
					next := random.IntN(len(w.files))
					if random.IntN(8) == 0 {
						next = nothing
					}
					at, what := 1+random.IntN(24), whats[random.IntN(len(whats))]
					if what == "damaged" && old == nothing {
						continue
					}
					now, outcome, err := w.round(random, old, next, what, at)
					if err == nil {
						err = w.settled(now)
					}
					if err != nil {
						text := func(file int) string {
							if file == nothing {
								return "(nothing)\n"
							}
							return w.texts[file]
						}
						t.Fatalf("DS4RELAY_SEED=%d, round %d (%s at step %d): %v\n--- old\n%s--- new\n%s", seed, round,
							what, at, err, text(old), text(next))
					}
					outcomes[outcome]++
					old = now
				}
				t.Logf("%v", outcomes)
			})
		}
	})
}
