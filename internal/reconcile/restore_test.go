//go:build !openwrt

package reconcile

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ds4relay/ds4relay/internal/kernel/fake"
	"github.com/ds4relay/ds4relay/internal/state"
)

// TestRestore: what others take away from the relays that are to be up comes back. Nothing else is changed: neither is
// a relay brought up that somebody has taken down, nor a file applied that was changed since.
func TestRestore(t *testing.T) {
	k := fake.New("eth0")
	m := &End{Config: parsed(t, relaysText(64, "a", "b")), Kernel: k}
	show := func(state.Step) {}
	mend := func(what string, want bool, wantErr error) {
		t.Helper()
		if changed, err := m.Restore(show, nil); changed != want || !errors.Is(err, wantErr) {
			t.Errorf("%s: changed %v, want %v; %v", what, changed, want, err)
		}
	}
	mend("nothing was ever up", false, nil)
	if _, err := m.Up(nil, nil, show, nil); err != nil {
		t.Fatal(err)
	}
	up, records := k.Snapshot(), k.Records()
	mend("nothing is missing", false, nil)
	random := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		what := k.Damage(random)
		damaged := k.Snapshot() != up
		mend(what, damaged, nil)
		if k.Snapshot() != up {
			t.Fatalf("%s was not mended: %s", what, difference(up, k.Snapshot()))
		}
	}
	if k.Records() != records {
		t.Errorf("the records differ: %s", difference(records, k.Records()))
	}
	o, err := k.Observe(state.State{})
	if err != nil {
		t.Fatal(err)
	}
	remove := func(device string) {
		t.Helper()
		for _, link := range o.Links {
			if link.Name == device {
				if err := k.Apply(state.DelLink{Link: link}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	remove("a")
	remove("b")
	mend("all tunnels were removed", true, nil)
	if k.Snapshot() != up {
		t.Error(difference(up, k.Snapshot()))
	}

	applied := m.Config
	m.Config = parsed(t, relaysText(63, "a", "b"))
	remove("a")
	broken := k.Snapshot()
	mend("the file has changed", false, ErrEdited)
	if moved, err := m.Moved(true); err != nil || moved != nil || k.Snapshot() != broken {
		t.Errorf("the file has changed: %v would be moved, %v", moved, err)
	}
	m.Config = applied

	// Without a, which somebody has removed, b is taken down; that does not forget a.
	if _, err := m.Down([]string{"b"}, show, nil); err != nil {
		t.Fatal(err)
	}
	if names := k.Applied().Relays; !slices.Equal(names, []string{"a"}) {
		t.Errorf("after down b these are to be up: %v", names)
	}
	remove("a")
	mend("b is down", true, nil)
	if names, err := Running(k); err != nil || !slices.Equal(names, []string{"a"}) {
		t.Errorf("b is down, and these are up: %v, %v", names, err)
	}

	// A killed down is not undone; one that fails is.
	if _, err := m.Up(nil, nil, show, nil); err != nil {
		t.Fatal(err)
	}
	k.Fail = func(o fake.Operation) error {
		if o == fake.Nft {
			return fmt.Errorf("%w", errInjected)
		}
		return nil
	}
	if _, err := m.Down(nil, show, nil); !errors.Is(err, errInjected) || k.Snapshot() != up {
		t.Errorf("a down that fails: %v", err)
	}
	k.Fail = nil
	remove("a")
	mend("after a down that has failed", true, nil)
	steps := 3
	k.Interrupt = func() {
		if steps--; steps == 0 {
			panic(killed{})
		}
	}
	func() {
		defer func() {
			if r := recover(); r != (killed{}) {
				t.Errorf("not killed: %v", r)
			}
		}()
		_, _ = m.Down(nil, show, nil)
	}()
	k.Interrupt = nil
	mend("after a down that was killed", false, nil)
}
