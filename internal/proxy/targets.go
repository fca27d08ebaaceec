package proxy

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/resolve"
)

const (
	// lookupEvery suits dynamic DNS, whose TTL is about a minute. The resolver does not tell the TTL.
	lookupEvery = 30 * time.Second
	// lookupPause limits the look-ups that failing connections cause.
	lookupPause = 3 * time.Second
)

// lookup is resolve.Lookup; tests use their own.
type lookup func(ctx context.Context, name string, version int) ([]netip.Addr, error)

// targets are the addresses of a target. The first is tried first.
type targets struct {
	name   string
	local  bool // use addresses of this machine too
	list   atomic.Pointer[[]netip.Addr]
	unfit  atomic.Pointer[[]string] // the addresses that are not used, and why
	lookup lookup
	user   *Service
	kick   chan struct{}
	stop   context.CancelFunc
	done   sync.WaitGroup
}

// newTargets looks a name up repeatedly until close.
func newTargets(p *config.Proxy, s *Service) *targets {
	t := p.Target
	targets := &targets{name: t.Name, local: p.TargetLocal || t.Name == "localhost", user: s, lookup: s.server.lookup,
		kick: make(chan struct{}, 1), stop: func() {}}
	if targets.lookup == nil {
		targets.lookup = resolve.Lookup
	}
	targets.unfit.Store(&[]string{})
	if t.Addr.IsValid() {
		targets.list.Store(&[]netip.Addr{t.Addr})
		return targets
	}
	ctx, stop := context.WithCancel(context.Background())
	targets.stop = stop
	targets.list.Store(&[]netip.Addr{})
	targets.done.Add(1)
	go func() {
		defer targets.done.Done()
		targets.run(ctx)
	}()
	return targets
}

func (t *targets) addresses() []netip.Addr { return *t.list.Load() }

// none returns an error that says why there is no address.
func (t *targets) none() error {
	if unfit := *t.unfit.Load(); len(unfit) > 0 {
		return fmt.Errorf("%s has no address that can be used: %s", t.name, strings.Join(unfit, ", "))
	}
	return fmt.Errorf("%s: no address is known for it yet", t.name)
}

// again asks for a look-up soon, because the addresses do not answer.
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

// resolve keeps the previous addresses if the look-up fails.
func (t *targets) resolve(ctx context.Context) {
	var v6, v4 []netip.Addr
	var err6, err4 error
	var both sync.WaitGroup
	both.Add(1)
	go func() {
		defer both.Done()
		v6, err6 = t.lookup(ctx, t.name, 6)
	}()
	both.Add(1)
	go func() {
		defer both.Done()
		v4, err4 = t.lookup(ctx, t.name, 4)
	}()
	both.Wait()
	answers := interleave(v6, v4)
	list, unfit, err := t.fit(answers)
	if err != nil {
		t.user.stats.fail(fmt.Errorf("look up %s: is an answer this machine's address? %w", t.name, err))
		return
	}
	if len(answers) == 0 {
		err := err6
		if err == nil {
			err = err4
		}
		if ctx.Err() == nil {
			t.user.stats.fail(fmt.Errorf("look up %s: %w", t.name, err))
		}
		return
	}
	told := t.unfit.Swap(&unfit)
	before := t.addresses()
	t.list.Store(&list)
	if len(before) > 0 && !slices.Equal(before, list) {
		t.user.changed()
	}
	if len(unfit) > 0 && !slices.Equal(*told, unfit) {
		t.user.unfit(unfit)
	}
}

// fit returns the usable addresses, and as text the others, in a fixed order.
func (t *targets) fit(answers []netip.Addr) (fit []netip.Addr, others []string, err error) {
	own := func(a netip.Addr) (bool, error) {
		if t.user.server.hops.isPublic(a) {
			return true, nil
		}
		return ownAddress(t.user.server.reserve, a)
	}
	for _, a := range answers {
		why, err := unfit(a, t.local, own)
		if err != nil {
			return nil, nil, err
		}
		switch a := a.Unmap(); {
		case why != "":
			others = append(others, fmt.Sprintf("%s is %s", a, why))
		case !slices.Contains(fit, a):
			fit = append(fit, a)
		}
	}
	slices.Sort(others)
	return fit, slices.Compact(others), nil
}

// answered moves an address to the front until the next look-up, because it answered when others did not. Then the next
// clients do not wait for the others (RFC 8305 section 4 puts addresses that have worked before first).
func (t *targets) answered(addr netip.Addr) {
	list := slices.Clone(t.addresses())
	if i := slices.Index(list, addr); i > 0 {
		list = slices.Insert(slices.Delete(list, i, i+1), 0, addr)
		t.list.Store(&list)
	}
}

// interleave sorts as in RFC 8305 section 4: IPv6 first, then alternating.
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
