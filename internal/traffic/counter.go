//go:build !openwrt

package traffic

import (
	"context"
	"hash/maphash"
	"sync"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/state"
)

// counter adds up what connections carry from now on. A connection adds what it has carried since it was last looked
// at: when somebody asks, and when it ends.
type counter struct {
	mu     sync.Mutex
	index  *index
	former *index // connections of removed forwards end after the configuration has changed
	totals map[forward]*Forward
	seen   map[uint64]seen // open connections of forwards, by their identity
	seed   maphash.Seed
	round  uint32 // of looking at all open connections
	// lost counts how often ends were lost; before is what it was when the present listener began.
	lost, before uint64
}

// forward identifies a forward in a configuration that may change.
type forward struct{ relay, section string }

// seen is how a connection was when it was looked at.
type seen struct {
	in, out state.Traffic
	round   uint32
}

// index finds forwards in one version of the configuration.
type index struct {
	relays    []*config.Relay
	forwarded *state.Forwarded
	relay     map[*config.Forward]string
}

func newIndex(relays []*config.Relay) *index {
	x := &index{relays, state.NewForwarded(relays), map[*config.Forward]string{}}
	for _, r := range relays {
		for _, f := range r.Forwards {
			x.relay[f] = r.Name
		}
	}
	return x
}

// of returns the zero value if there is no index, or no forward.
func (x *index) of(flow state.Flow) forward {
	if x == nil {
		return forward{}
	}
	f := x.forwarded.Of(flow)
	if f == nil {
		return forward{}
	}
	return forward{x.relay[f], f.Section}
}

func newCounter() *counter {
	return &counter{totals: map[forward]*Forward{}, seen: map[uint64]seen{}, seed: maphash.MakeSeed()}
}

// configure replaces the configuration.
func (c *counter) configure(relays []*config.Relay) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.former, c.index = c.index, newIndex(relays)
}

// restart forgets the connections, not the totals: the next look is the first again.
func (c *counter) restart() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.round, c.seen, c.before = 0, map[uint64]seen{}, c.lost
}

// collecting is how long reports wait for others: waking up for each takes longer than reading it. The buffer has room
// for those of a flood.
const collecting = 50 * time.Millisecond

// follow counts what ends, until the context does.
func (c *counter) follow(ctx context.Context, ends *kernel.Ends) error {
	for {
		if err := ends.Wait(ctx); err != nil {
			return err
		}
		time.Sleep(collecting)
		c.mu.Lock()
		err := ends.Read(c.ended)
		c.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// look counts what open connections have carried since the last look. The first look adds nothing.
func (c *counter) look(ends *kernel.Ends) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.round++
	if err := kernel.FlowsByIdentity(c.open); err != nil {
		return err
	}
	// The kernel has reported every end that it was going to report of what is not in the table any more.
	if err := ends.Read(c.ended); err != nil {
		return err
	}
	c.forgetUnseen()
	c.lost = c.before + ends.Lost()
	return nil
}

// forgetUnseen forgets the connections that were not in the table: their ends were lost.
func (c *counter) forgetUnseen() {
	for identity, s := range c.seen {
		if s.round != c.round {
			delete(c.seen, identity)
		}
	}
}

// open is called for each connection in the table. Those that are about to leave it are reported as ended.
func (c *counter) open(flow state.Flow, identity []byte) {
	if f := c.of(flow); f.section != "" && !flow.Dying {
		key := maphash.Bytes(c.seed, identity)
		if s, known := c.seen[key]; known || c.round > 1 {
			c.add(f, flow, s, known)
		}
		c.seen[key] = seen{flow.In, flow.Out, c.round}
	}
}

func (c *counter) ended(flow state.Flow, identity []byte) {
	if f := c.of(flow); f.section != "" {
		key := maphash.Bytes(c.seed, identity)
		s, known := c.seen[key]
		c.add(f, flow, s, known)
		delete(c.seen, key)
	}
}

func (c *counter) of(flow state.Flow) forward {
	f := c.index.of(flow)
	if f.section == "" {
		f = c.former.of(flow)
	}
	return f
}

// add adds what a connection has carried since it was seen.
func (c *counter) add(f forward, flow state.Flow, since seen, known bool) {
	total := c.total(f)
	if known && (flow.In.Bytes < since.in.Bytes || flow.Out.Bytes < since.out.Bytes) {
		since, known = seen{}, false // another one, in its place: the end of the first was lost
	}
	if !known {
		total.Connections++
	}
	total.In.Add(state.Traffic{Packets: flow.In.Packets - since.in.Packets, Bytes: flow.In.Bytes - since.in.Bytes})
	total.Out.Add(state.Traffic{Packets: flow.Out.Packets - since.out.Packets,
		Bytes: flow.Out.Bytes - since.out.Bytes})
}

func (c *counter) total(f forward) *Forward {
	total := c.totals[f]
	if total == nil {
		total = &Forward{Relay: f.relay, Section: f.section}
		c.totals[f] = total
	}
	return total
}

// report returns the totals of all forwards of enabled relays.
func (c *counter) report() []Forward {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := []Forward{}
	for _, r := range c.index.relays {
		if !r.Enabled {
			continue
		}
		for _, f := range r.Forwards {
			list = append(list, *c.total(forward{r.Name, f.Section}))
		}
	}
	return list
}
