package alive

import "testing"

// TestJudge: what runs and packets make of another end.
func TestJudge(t *testing.T) {
	const minute = 60
	link := Tunnel{Index: 7, Peer: "2001:db8::1"}
	with := func(packets uint64) Tunnel {
		t := link
		t.Packets = packets
		return t
	}
	type run struct {
		packets  uint64 // out of the tunnel before the run
		answered bool   // the answer comes, which is one more packet
		heard    uint64 // other packets that come during the run
		unsent   bool
	}
	for _, c := range []struct {
		what  string
		runs  []run // one each minute; status is asked 20 seconds after the last one
		now   Tunnel
		state State
		ago   int64
	}{
		{"no run yet", nil, with(9), Unknown, -1},
		{"the first probe is answered", []run{{answered: true}}, with(1), Heard, 20},
		{"nothing has ever come", []run{{}}, with(0), Silent, -1},
		{"a packet has come since", []run{{}}, with(1), Heard, 20},
		{"packets come by themselves", []run{{answered: true}, {packets: 8}}, with(8), Heard, 20},
		{"it falls silent", []run{{answered: true}, {packets: 1}, {packets: 1}}, with(1), Silent, 2*minute + 20},
		{"it comes back", []run{{answered: true}, {packets: 1}, {packets: 1, answered: true}}, with(2), Heard, 20},
		{"it comes back between two runs", []run{{answered: true}, {packets: 1}}, with(3), Heard, 20},
		{"an old end that answers no probe, idle", []run{{}, {packets: 5}, {packets: 5}}, with(5), Unknown,
			minute + 20},
		{"an old end before anything came by itself", []run{{packets: 5}}, with(5), Unknown, -1},
		{"a packet comes instead of an answer", []run{{heard: 1}, {packets: 1}}, with(1), Unknown, minute + 20},
		{"no forward, idle", []run{{unsent: true}}, with(0), Unknown, -1},
		{"no forward, busy", []run{{unsent: true}, {packets: 4}}, with(4), Heard, 20},
		{"the tunnel is another one", []run{{answered: true}}, Tunnel{Index: 8, Peer: link.Peer, Packets: 1},
			Unknown, -1},
		{"the other end has moved", []run{{answered: true}}, Tunnel{Index: 7, Peer: "2001:db8::2", Packets: 1}, Unknown,
			-1},
	} {
		r := &Record{}
		now := int64(1000)
		for _, run := range c.runs {
			now += minute
			tunnel := with(run.packets)
			if r.Look(&tunnel, now) {
				packets := run.packets + run.heard
				if run.answered {
					packets++
				}
				tunnel.Packets = packets
				r.Tried(!run.unsent, run.answered, &tunnel, now)
			}
		}
		if state, ago := r.Judge(&c.now, now+20); state != c.state || ago != c.ago {
			t.Errorf("%s: %s, %d s ago, want %s, %d", c.what, state, ago, c.state, c.ago)
		}
	}
}

// TestKeyed: an end that agrees on keys and has never answered a probe is alive while they are valid, and silent after
// that.
func TestKeyed(t *testing.T) {
	const now = 10000
	for _, c := range []struct {
		what            string
		shaken, packets int64 // before the run
		answered        bool
		after           Tunnel // 20 s after the run
		state           State
		ago             int64
	}{
		{"it answered before", now - 10, 3, false, Tunnel{Packets: 3, Shaken: now - 10}, Silent, 30},
		{"no handshake ever", 0, 0, false, Tunnel{}, Silent, -1},
		{"a handshake, but no answer", now - 100, 3, false, Tunnel{Packets: 3, Shaken: now - 100}, Heard, 120},
		{"the keys are old", now - 170, 3, false, Tunnel{Packets: 3, Shaken: now - 170}, Silent, 190},
		{"an answer with old keys", now - 170, 3, true, Tunnel{Packets: 4, Shaken: now - 170}, Heard, 20},
		{"a handshake since the run", 0, 0, false, Tunnel{Packets: 2, Shaken: now + 15}, Heard, 5},
		{"without root", now - 170, 3, false, Tunnel{Packets: 3}, Silent, 190},
		{"without root, recently", now - 30, 3, false, Tunnel{Packets: 3}, Heard, 50},
		{"another key", now - 30, 3, true, Tunnel{Peer: "other", Packets: 4}, Unknown, -1},
	} {
		tunnel := Tunnel{Index: 7, Peer: "key", Keyed: true, Shaken: c.shaken, Packets: uint64(c.packets)}
		r := &Record{}
		r.Look(&tunnel, now)
		r.Answered = c.what == "it answered before"
		if c.answered {
			tunnel.Packets++
		}
		r.Tried(true, c.answered, &tunnel, now)
		c.after.Index, c.after.Keyed = 7, true
		if state, ago := r.Judge(&c.after, now+20); state != c.state || ago != c.ago {
			t.Errorf("%s: %s, %d s ago, want %s, %d", c.what, state, ago, c.state, c.ago)
		}
	}
}

// TestEndpoint: where the other end was last is known while its address is not.
func TestEndpoint(t *testing.T) {
	r := &Record{}
	tunnel := Tunnel{Index: 7, Peer: "key", Keyed: true}
	r.Look(&tunnel, 900)
	r.Tried(false, false, &tunnel, 900)
	if state, _ := r.Judge(&tunnel, 920); state != Silent {
		t.Errorf("an end that never said where it is is %s", state)
	}
	for i, c := range []struct{ now, want string }{{"", ""}, {"192.0.2.1:9", "192.0.2.1:9"}, {"", "192.0.2.1:9"},
		{"[2001:db8::1]:7", "[2001:db8::1]:7"}} {
		tunnel := Tunnel{Index: 7, Peer: "key", Keyed: true, Packets: uint64(i / 2), Endpoint: c.now}
		if r.Look(&tunnel, int64(1000+60*i)) {
			r.Tried(true, false, &tunnel, int64(1000+60*i))
		}
		if r.Endpoint != c.want {
			t.Errorf("%d: %q, want %q", i, r.Endpoint, c.want)
		}
	}
}

// TestTryClient: the way of a client is tried only while nothing has ever come, and every ten minutes at most.
func TestTryClient(t *testing.T) {
	tunnel, tries := &Tunnel{Index: 7}, 0
	r := &Record{}
	for minute := range int64(40) {
		if now := 60 + 60*minute; r.Look(tunnel, now) {
			r.Tried(true, false, tunnel, now)
			if r.TryClient(now) {
				tries++
			}
		}
	}
	if tries != 4 {
		t.Errorf("the way of a client was tried %d times in 40 minutes", tries)
	}
	tunnel.Packets = 1
	r.Tried(true, false, tunnel, 5000)
	r.Tried(true, false, tunnel, 6000)
	if r.Probe != Lost || r.TryClient(6000) {
		t.Error("the way of a client is tried although packets have come")
	}
	if state, _ := (*Record)(nil).Judge(tunnel, 0); state != Unknown {
		t.Errorf("without a record the other end is %s", state)
	}
}

// TestRepairs: after five repairs in a row there is one every ten minutes, until a run finds nothing to repair.
func TestRepairs(t *testing.T) {
	var r Repairs
	repaired, rivals := 0, 0
	for minute := range int64(40) {
		if !r.Due(minute * 60) {
			continue
		}
		known := r.Rival()
		r = r.Next(true, minute*60)
		repaired++
		if r.Rival() && !known {
			rivals++
		}
	}
	if repaired != 8 || rivals != 1 { // minutes 0 to 4, 14, 24, 34
		t.Errorf("%d repairs in 40 minutes, the rival was named %d times", repaired, rivals)
	}
	if r = r.Next(false, 3000); r.Rival() || !r.Due(3060) {
		t.Error("a quiet run does not end it")
	}
	for minute := range int64(40) {
		if r = r.Next(minute%2 == 0, minute*60); r.Rival() {
			t.Fatal("repairs with quiet minutes between them count as a rival's")
		}
	}
}
