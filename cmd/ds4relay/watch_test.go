package main

import (
	"bytes"
	"errors"
	"testing"

	"github.com/ds4relay/ds4relay/internal/kernel"
)

// TestUnlessSaid: an error of each minute is told once, and again once it has changed or was away; it stays an error.
func TestUnlessSaid(t *testing.T) {
	a := newApp(&bytes.Buffer{}, &bytes.Buffer{})
	a.run = t.TempDir()
	k := &kernel.Kernel{Run: a.run}
	if err := k.NoteApplied(kernel.Applied{Relays: []string{"home"}}); err != nil {
		t.Fatal(err)
	}
	one, other := errors.New("one"), errors.New("other")
	for i, run := range []struct {
		err  error
		told bool
	}{{nil, false}, {one, true}, {one, false}, {other, true}, {other, false}, {nil, false}, {other, true}} {
		err := a.unlessSaid(run.err)
		if !errors.Is(err, run.err) {
			t.Errorf("run %d: %v, want %v", i, err, run.err)
		}
		if told := err != nil && !errors.As(err, &said{}); told != run.told {
			t.Errorf("run %d: told is %v", i, told)
		}
	}
}
