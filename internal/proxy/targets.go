package proxy

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/resolve"
)

const (
	// lookupEvery: dynamic DNS has times to live of a minute; the resolver does not tell them.
	lookupEvery = 30 * time.Second
	// lookupPause keeps connections that fail from asking the resolver for each.
	lookupPause = 3 * time.Second
)

// lookup is resolve.Lookup; tests have names of their own.
type lookup func(ctx context.Context, name string, version int) ([]netip.Addr, error)

// targets are the addresses of a target, the one to try first in front.
type targets struct {
	name   string
	list   atomic.Pointer[[]netip.Addr]
	failed func(error)
	moved  func() // is called when the addresses are others than before
	lookup lookup
	kick   chan struct{}
	stop   context.CancelFunc
	done   sync.WaitGroup
}

// newTargets looks a name up again and again until close; failed is told when that fails.
func newTargets(t config.Target, lookup lookup, failed func(error), moved func()) *targets {
	targets := &targets{name: t.Name, failed: failed, moved: moved, lookup: lookup, kick: make(chan struct{}, 1), stop: func() {}}
	if targets.lookup == nil {
		targets.lookup = resolve.Lookup
	}
	if t.Addr.IsValid() {
		targets.list.Store(&[]netip.Addr{t.Addr})
		return targets
	}
	ctx, stop := context.WithCancel(context.Background())
	targets.stop = stop
	targets.list.Store(&[]netip.Addr{})
	targets.done.Go(func() { targets.run(ctx) })
	return targets
}

func (t *targets) addresses() []netip.Addr { return *t.list.Load() }

// again asks for the name to be looked up soon: its addresses do not answer.
func (t *targets) again() {
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

func (t *targets) close() {
	t.stop()
	t.done.Wait()
}

func (t *targets) run(ctx context.Context) {
	for ctx.Err() == nil {
		t.resolve(ctx)
		pause, every := time.NewTimer(lookupPause), time.NewTimer(lookupEvery)
		select {
		case <-ctx.Done():
		case <-pause.C:
			select {
			case <-ctx.Done():
			case <-every.C:
			case <-t.kick:
			}
		}
		pause.Stop()
		every.Stop()
	}
}

// resolve keeps the former addresses where the name cannot be looked up.
func (t *targets) resolve(ctx context.Context) {
	var v6, v4 []netip.Addr
	var err6, err4 error
	var both sync.WaitGroup
	both.Go(func() { v6, err6 = t.lookup(ctx, t.name, 6) })
	both.Go(func() { v4, err4 = t.lookup(ctx, t.name, 4) })
	both.Wait()
	list := interleave(v6, v4)
	if len(list) == 0 {
		err := err6
		if err == nil {
			err = err4
		}
		if ctx.Err() == nil {
			t.failed(fmt.Errorf("look up %s: %w", t.name, err))
		}
		return
	}
	before := t.addresses()
	t.list.Store(&list)
	if len(before) > 0 && !slices.Equal(before, list) {
		t.moved()
	}
}

// answered puts an address in front that answered after others did not, until the next look-up: the next clients need not wait
// for the others (RFC 8305 section 4 has the history of connections come first).
func (t *targets) answered(addr netip.Addr) {
	list := slices.Clone(t.addresses())
	if i := slices.Index(list, addr); i > 0 {
		list = slices.Insert(slices.Delete(list, i, i+1), 0, addr)
		t.list.Store(&list)
	}
}

// interleave sorts as RFC 8305 section 4: IPv6 first, then the families in turn.
func interleave(v6, v4 []netip.Addr) []netip.Addr {
	var list []netip.Addr
	for i := range max(len(v6), len(v4)) {
		if i < len(v6) {
			list = append(list, v6[i])
		}
		if i < len(v4) {
			list = append(list, v4[i])
		}
	}
	return list
}
