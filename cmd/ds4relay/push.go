package main

import (
	"errors"
	"flag"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/pairing"
	"github.com/ds4relay/ds4relay/internal/state"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// due is what one of the VPSs has to be told.
type due struct {
	relay *config.Relay
	text  string
	from  netip.Addr   // this end's endpoint, which the VPS learns from the session; not valid with wireguard
	last  *kernel.Push // may be nil
	sum   string
}

// pushes returns what the VPSs of paired relays that are up do not know yet, or have not taken. A file that has been
// edited since is for `up` first.
func (a *app) pushes(c *config.Config) (list []due) {
	if a.kernel().Applied().File != c.Sum {
		return nil
	}
	var links []state.Link
	for _, r := range c.Relays {
		if r.Role != config.Router || !a.pairings.Paired(r.Name) {
			continue
		}
		if links == nil {
			o, err := a.kernel().Observe(state.State{})
			if err != nil {
				return nil
			}
			links = append(o.Links, state.Link{})
		}
		for _, link := range links {
			if link.Relay != r.Name || link.Name != r.Device {
				continue
			}
			d := due{relay: r, text: config.Pushed(r, version), last: a.kernel().Pushed(r.Name)}
			if tunnel, ok := link.Tunnel.(transport.IPIP6); ok {
				d.from = tunnel.Local
			}
			d.sum = strconv.FormatUint(config.Checksum(d.text, d.from.String()), 16)
			if d.last == nil || d.last.State != kernel.PushOK || d.last.Sum != d.sum {
				list = append(list, d)
			}
		}
	}
	return list
}

// tell lets a process of its own tell the VPSs what has changed: `up` does not wait for them, and holds the lock.
func (a *app) tell(c *config.Config) {
	list := a.pushes(c)
	for i := range list {
		d := &list[i]
		if d.last == nil || d.last.State != kernel.PushPending {
			_ = a.kernel().NotePush(d.answer(kernel.PushPending, nil)) // only shown
		}
	}
	if len(list) > 0 {
		if err := a.spawn("-q", "-c", a.path, "--run", a.run, "push"); err != nil {
			a.say(message.New("the VPS is told by the run of the next minute: %v", err).Error())
		}
	}
}

// push tells the VPSs what they do not know yet. How that ends is in the status.
func (a *app) push(*flag.FlagSet) func([]string) error {
	return func([]string) error {
		if err := needRoot(); err != nil {
			return err
		}
		return a.pushAll(true, pairing.Limit)
	}
}

// pushAll tells the VPSs what is due when no other process tells them something. Without wait, nothing is done if one
// does. limit is how long each VPS may take.
func (a *app) pushAll(wait bool, limit time.Duration) error {
	c, _, err := config.Load(a.path, a.defaults())
	if err != nil || len(a.pushes(c)) == 0 {
		return err
	}
	unlock, err := (&kernel.Kernel{Run: a.run}).LockPush(wait)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	if wait { // for another process, which may have done it
		if c, _, err = config.Load(a.path, a.defaults()); err != nil {
			return err
		}
	}
	var errs []error
	for _, d := range a.pushes(c) {
		result := a.pushOne(&d, limit)
		if d.last != nil && d.last.State == result.State && d.last.Text == result.Text && d.last.Sum == result.Sum {
			result.Since = d.last.Since
		}
		errs = append(errs, a.kernel().NotePush(result))
	}
	return errors.Join(errs...)
}

// pushOne tells one VPS.
func (a *app) pushOne(d *due, limit time.Duration) *kernel.Push {
	vps, err := a.pairings.VPS(d.relay.Name)
	if err != nil {
		return d.answer(kernel.PushFailed, err)
	}
	session := pairing.Session{VPS: vps, Key: a.pairings.Key(d.relay.Name), From: d.from, Input: d.text, Run: a.run,
		Limit: limit}
	answer, err := a.session(&session)
	if err != nil {
		return d.answer(kernel.PushFailed, err)
	}
	problems, err := pairing.Read(answer, d.relay)
	switch {
	case err != nil:
		return d.answer(kernel.PushFailed, err)
	case len(problems) == 0:
		return d.answer(kernel.PushOK, nil)
	case !inFile(problems):
		// It is busy, or asked too soon, or something is wrong there: nothing here is to be corrected.
		return d.answer(kernel.PushFailed, message.New("the VPS does not take it now: %v", problems[0].Reason()))
	}
	refused := d.answer(kernel.PushRefused, errRefused)
	refused.Problems = problems
	return refused
}

// inFile reports whether one of the problems is about something in this end's file.
func inFile(problems []kernel.PushProblem) bool {
	for i := range problems {
		if problems[i].Section != "" || problems[i].Option != "" {
			return true
		}
	}
	return false
}

var errRefused = message.New("the VPS does not take what this home wants; it goes on with what it took before")

// answer is a push with this result; why may be nil.
func (d *due) answer(state kernel.PushState, why error) *kernel.Push {
	p := &kernel.Push{Version: message.AnswersVersion, Relay: d.relay.Name, State: state, Since: time.Now().Unix(),
		Sum: d.sum}
	if why != nil {
		text := message.Of(why)
		p.Text, p.Code, p.Args = text.Error(), text.Code, text.Args
	}
	return p
}
