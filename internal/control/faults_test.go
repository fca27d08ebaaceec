package control

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/config/configtest"
	"github.com/ds4relay/ds4relay/internal/kernel/fake"
	"github.com/ds4relay/ds4relay/internal/state"
	"github.com/ds4relay/ds4relay/internal/uci"
)

var errInjected = errors.New("injected failure")

// killed is what a walk panics with in place of SIGKILL.
type killed struct{}

// faulty fails or dies at one step, and may die between the parts of one.
type faulty struct {
	*fake.Kernel
	at   int // counts down
	what string
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
	case "killed within":
		f.Kernel.Interrupt = func() { panic(killed{}) }
		defer func() { f.Kernel.Interrupt = nil }()
		return f.Kernel.Apply(step)
	case "killed after":
		if err := f.Kernel.Apply(step); err != nil {
			return err
		}
		panic(killed{})
	}
	return f.Kernel.Apply(step)
}

// walk is one machine that goes from configuration to configuration.
type walk struct {
	t      *testing.T
	kernel *fake.Kernel
	files  []*config.Config
	texts  []string
	known  map[string]string // what wanted has found out
}

func newWalk(t *testing.T, random *rand.Rand, role string) *walk {
	const files = 120
	devices := map[string][]string{"vps": {"eth0"}, "router": {"wan", "br-lan"}}[role]
	w := &walk{t: t, kernel: fake.New(devices...), known: map[string]string{}}
	if random.IntN(2) == 0 {
		w.kernel.IPTables = state.IPTables{"iptables": true, "ip6tables": true}
	}
	for range files {
		text := configtest.Random(random, role)
		file, err := uci.Parse("ds4relay", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		c, _, err := config.New(file, config.VPS)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		w.files, w.texts = append(w.files, c), append(w.texts, text)
	}
	return w
}

// nothing is in place of a file's number where everything is to be taken down.
const nothing = -1

// goTo brings the machine to a file's state, or fails and is killed on the way.
func (w *walk) goTo(file int, what string, at int) (err error, dead bool) {
	defer func() {
		if r := recover(); r != nil {
			if _, dead = r.(killed); !dead {
				panic(r)
			}
		}
	}()
	m := &Machine{Kernel: &faulty{w.kernel, at, what}}
	show := func(state.Step) {}
	if file == nothing {
		_, err = m.Down(nil, show, nil)
	} else {
		m.Config = w.files[file]
		_, err = m.Up(nil, nil, show, nil)
	}
	return err, false
}

// wanted is the kernel that a file's state makes of an empty one. Which home has which slot is as it came to be.
func (w *walk) wanted(file int) string {
	fresh := fake.New(w.kernel.Devices...)
	fresh.IPTables = w.kernel.IPTables
	if file == nothing {
		return fresh.Snapshot()
	}
	var relays []*config.Relay
	for _, r := range w.files[file].Relays {
		if r.Enabled {
			relays = append(relays, r)
		}
	}
	facts, err := w.kernel.Facts(relays)
	if err != nil {
		w.t.Fatal(err)
	}
	key := fmt.Sprint(file)
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

// difference are the lines that one text alone has.
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

// TestFaults walks through random configurations with failures, kills and changes by others at random steps, on a
// kernel in memory: it is always as the old or the new configuration says. The same on a real kernel, with fewer
// rounds, is in cmd/ds4relay. DS4RELAY_SEED repeats a walk.
func TestFaults(t *testing.T) {
	const rounds, walks = 50_000, 20
	defer debug.SetGCPercent(debug.SetGCPercent(1000)) // nearly all that a round makes is garbage after it
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
				for round := range rounds / walks {
					next := random.IntN(len(w.files))
					if random.IntN(8) == 0 {
						next = nothing
					}
					at := 1 + random.IntN(24)
					what := []string{"done", "failed", "failed", "killed before", "killed within", "killed after", "damaged"}[random.IntN(7)]
					fail := func(format string, args ...any) {
						t.Helper()
						text := func(file int) string {
							if file == nothing {
								return "(nothing)\n"
							}
							return w.texts[file]
						}
						t.Fatalf("DS4RELAY_SEED=%d, round %d (%s at step %d): %s\n--- old\n%s--- new\n%s", seed, round, what, at,
							fmt.Sprintf(format, args...), text(old), text(next))
					}
					if what == "damaged" {
						if old == nothing {
							continue
						}
						what += ": " + w.kernel.Damage(random)
						next, at = old, 0
					}
					switch err, dead := w.goTo(next, what, at); {
					case dead: // both have to be within reach
						if random.IntN(2) == 0 {
							old = next
						}
						if err, _ := w.goTo(old, "", 0); err != nil {
							fail("afterwards: %v", err)
						}
					case err == nil:
						old = next
						what, _, _ = strings.Cut(what, ":")
						if what != "damaged" {
							what = "done"
						}
					case !errors.Is(err, errInjected) || strings.Contains(err.Error(), "while undoing"):
						fail("%v", err)
					}
					outcomes[what]++
					if want, have := w.wanted(old), w.kernel.Snapshot(); want != have {
						fail("the kernel is not as it should be:\n%s", difference(want, have))
					}
					if old == nothing {
						continue
					}
					m := &Machine{Config: w.files[old], Kernel: w.kernel}
					if steps, err := m.Plan(nil, false); err != nil || len(steps) > 0 {
						fail("there is something left to do: %v, %v", err, steps)
					}
				}
				t.Logf("%v", outcomes)
			})
		}
	})
}
