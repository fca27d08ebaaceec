// Package alive decides, from what the run of each minute has seen, whether the other ends of relays are alive, and
// whether another program keeps removing what ds4relay installs.
package alive

// Watch is what one run of each minute leaves for the next one and for `status`. Times are whole seconds since boot,
// including the time that the machine slept: clocks may jump.
type Watch struct {
	Relays  map[string]*Record // by their names
	Repairs Repairs
	Said    string // the error of the last run of a service, empty without one
}

// Silent reports whether the last run found the other end of a relay silent.
func (w *Watch) Silent(relay string) bool {
	record := w.Relays[relay]
	if record == nil {
		return false
	}
	state, _ := record.Judge(&record.Tunnel, record.Run)
	return state == Silent
}

// Tunnel is a relay's tunnel as the kernel has it now.
type Tunnel struct {
	Index   int    // of the device: down and up make another one
	Peer    string // the other end's endpoint, or its public key; "" where only root may read it
	Packets uint64 // that have come out of it

	Keyed  bool  // it has keys that the ends agree on again and again (WireGuard)
	Shaken int64 // when they last did, in seconds since boot; 0: never, or it is not known

	Endpoint string // where the other end was last, with its UDP port; "" if that is not known
}

// keyLife is how long, in seconds, keys of WireGuard are valid (REJECT_AFTER_TIME). An end that is asked to agree on
// new ones after that, and does not, is silent.
const keyLife = 180

// Record is what is known about the other end of one relay.
type Record struct {
	Tunnel         // at the end of the last run
	Run      int64 // when it ended; 0 means that there was none
	Heard    int64 // when the other end was last heard of; 0 means never
	Probe    Probe // of the last run
	Answered bool  // the other end has answered a probe before
	Client   int64 // when this end last tried the way of a client, see TryClient
}

// Probe is the result of a probe, or why there was none.
type Probe string

// The results of a probe.
const (
	Needless Probe = "needless" // packets had come since the run before
	Answered Probe = "answered" // or another packet came meanwhile
	Lost     Probe = "lost"
	Unsent   Probe = "unsent" // the relay has no forward, or the kernel refused the packet
)

// State says whether the other end is alive.
type State string

// The states of another end.
const (
	Heard   State = "heard"
	Silent  State = "silent"
	Unknown State = "unknown"
)

// Look begins a run. It reports whether a probe is needed: nothing has come since the run before, or this is the first
// one with this tunnel. With keys something comes always: there one has to be answered once, so that Judge knows what
// it means if one is not.
func (r *Record) Look(t *Tunnel, now int64) (probe bool) {
	if !r.about(t) {
		*r = Record{Tunnel: *t}
		return true
	}
	if t.Packets == r.Packets {
		r.see(t)
		r.Probe = ""
		return true
	}
	r.see(t)
	r.Run, r.Heard, r.Probe = now, now, Needless
	return t.Keyed && !r.Answered
}

// see takes over what has changed of the same tunnel.
func (r *Record) see(t *Tunnel) {
	r.Packets, r.Shaken = t.Packets, t.Shaken
	if t.Endpoint != "" {
		r.Endpoint = t.Endpoint
	}
}

// Tried ends a run with a probe, which may have been needless. answered means that the answer itself came; t is the
// tunnel after the wait for it.
func (r *Record) Tried(sent, answered bool, t *Tunnel, now int64) {
	came := answered || t.Packets != r.Packets || r.Probe == Needless
	r.see(t)
	r.Run, r.Answered = now, r.Answered || answered
	switch {
	case came:
		r.Heard, r.Probe = now, Answered
	case sent:
		r.Probe = Lost
	default:
		r.Probe = Unsent
	}
}

// clientPause is the least time in seconds between two tries of the way of a client.
const clientPause = 600

// TryClient reports whether a router should come in by the public address, as a client does, before Judge calls the VPS
// silent of which nothing has ever come: a VPS of an earlier release with homes of equal addresses sends the answers to
// probes to another home.
func (r *Record) TryClient(now int64) bool {
	if r.Probe != Lost || r.Packets > 0 || r.Client > 0 && now-r.Client < clientPause {
		return false
	}
	r.Client = now
	return true
}

// Judge says whether the other end is alive, and how many seconds ago it was last heard of, at most; -1 means never.
//
// An end that has never answered a probe is not called silent once packets have come (see TryClient). With keys it is,
// but not while those that it has agreed on are valid.
func (r *Record) Judge(t *Tunnel, now int64) (state State, ago int64) {
	switch {
	case !r.about(t):
		return Unknown, -1
	case t.Packets != r.Packets: // some time since the last run
		return Heard, max(now-max(r.Run, t.Shaken), 0)
	}
	shaken := max(r.Shaken, t.Shaken)
	ago = -1
	if heard := max(r.Heard, shaken); heard > 0 {
		ago = max(now-heard, 0)
	}
	switch {
	case r.Probe == Needless || r.Probe == Answered:
		return Heard, ago
	case r.Probe == Lost && r.Answered:
		return Silent, ago
	case shaken > 0 && now-shaken <= keyLife:
		return Heard, ago
	case r.Probe == Lost && (t.Keyed || r.Packets == 0),
		r.Probe == Unsent && t.Keyed && r.Endpoint == "": // it has never said where it is
		return Silent, ago
	}
	return Unknown, ago
}

// about reports whether the record is about this tunnel, with this other end.
func (r *Record) about(t *Tunnel) bool {
	return r != nil && r.Run > 0 && r.Index == t.Index && (r.Peer == t.Peer || t.Keyed && t.Peer == "")
}

// Limits of repairs.
const (
	maxRepairs  = 5   // in a row
	repairPause = 600 // seconds between further ones
)

// Repairs counts the runs in a row that had to repair something.
type Repairs struct {
	Count int
	Last  int64 // when
}

// Due reports whether a run may repair what differs.
func (r Repairs) Due(now int64) bool { return !r.Rival() || now-r.Last >= repairPause }

// Rival reports that something removes again and again what ds4relay installs.
func (r Repairs) Rival() bool { return r.Count >= maxRepairs }

// Next counts a run that was due.
func (r Repairs) Next(repaired bool, now int64) Repairs {
	if !repaired {
		return Repairs{}
	}
	return Repairs{min(r.Count+1, maxRepairs), now}
}
