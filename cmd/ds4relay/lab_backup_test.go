//go:build lab

package main

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	life "github.com/ds4relay/ds4relay/internal/alive"
	"github.com/ds4relay/ds4relay/internal/lab"
)

// watchedAs runs the router's watch until it finds the VPS of its first relay in a state: packets of the minute before
// may still count as signs of life in the first run.
func watchedAs(t *testing.T, router *end, want life.State) {
	t.Helper()
	var got life.State
	for range 4 {
		router.do("watch")
		_, out, _ := router.try("status", "--json")
		if got = decoded(t, out).Relays[0].OtherEnd; got == want {
			return
		}
	}
	t.Errorf("the first VPS is %s, want %s", got, want)
}

// TestBackup: of two VPSs with an address each the first becomes silent. The host's own connections leave by the other
// one, and by the first again when it is heard; those that are open then stay where they are. The kill switch holds.
func TestBackup(t *testing.T) {
	const to, second4, all = client4 + ":90", "198.51.100.200", "\toption egress 'all'\n\toption killswitch '1'\n"
	r := newRelay(t, lab.Options{Second: true}, forwardAll+"\toption egress 'all'\n")
	vps2 := newEnd(t, r.VPS2, strings.Replace(vps2Relay, "EGRESS", "all", 1))
	r.router.write(strings.NewReplacer("\toption egress 'EGRESS'\n", all, "'wrap1'\n", "'wrap1'\n\toption backup "+
		"'second'\n", "\toption relay 'home'\n", "\toption relay 'home'\n"+all).Replace(secondRelays))
	serveTCP(t, r.Host, 80)
	serveTCP(t, r.Client, 90)
	before := r.router.snapshot()
	vps2.do("up")
	r.up()
	seenTCP(t, r.Host, to, public)
	r.router.do("watch")
	nothing := func(active bool) {
		t.Helper()
		if out := r.router.do("up"); !strings.HasPrefix(out, "Nothing to do") {
			t.Errorf("up changes something: %s", out)
		}
		_, out, _ := r.router.try("status", "--json")
		for i, s := range decoded(t, out).Relays {
			if s.Active == nil || *s.Active != (active == (i == 0)) {
				t.Errorf("status: relay %s: active %v", s.Name, s.Active)
			}
		}
	}
	nothing(true)

	ends := open(t, r.Host, to)
	if out, err := r.VPS.Run("ip", "link", "set", "wrap1", "down"); err != nil {
		t.Fatal(err, out)
	}
	watchedAs(t, r.router, life.Silent)
	nothing(false)
	own := capture(t, r.Router, lab.DSLiteDevice)
	seenTCP(t, r.Host, to, second4)
	ends.SetDeadline(time.Now().Add(patience))
	_, err := ends.Write([]byte("!"))
	if err == nil {
		_, err = ends.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection by the first VPS: %v, want a reset", err)
	}
	stays := open(t, r.Host, to)
	seenTCP(t, r.Client, second4+":80", client4)
	if n := count(own(), client4); n != 0 {
		t.Errorf("%d packets left by the router's own line", n)
	}

	r.vps.do("up")
	watchedAs(t, r.router, life.Heard)
	nothing(true)
	seenTCP(t, r.Host, to, public)
	second := capture(t, r.Router, "wrap2")
	alive(t, "a connection by the second VPS", stays)
	if n := count(second(), client4); n < 2 {
		t.Errorf("%d packets of the open connection went through the second tunnel", n)
	}

	r.router.do("down", "home")
	seenTCP(t, r.Host, to, second4)

	r.router.do("down")
	same(t, "the router after down", before, r.router.snapshot())
}
