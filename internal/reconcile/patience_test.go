//go:build !openwrt

package reconcile

import (
	"testing"
	"time"
)

// TestPatience: five repairs within a minute are too many, until five minutes have been quiet.
func TestPatience(t *testing.T) {
	var p Patience
	now := time.Unix(0, 0)
	after := func(d time.Duration) time.Time {
		now = now.Add(d)
		return now
	}
	for i := range 20 { // seldom enough
		if p.Repaired(after(15*time.Second)) || p.Lost() {
			t.Fatalf("lost after %d repairs, one each 15 seconds", i+1)
		}
	}
	for i := range MaxRepairs - 1 {
		if lost := p.Repaired(after(time.Second)); lost != (i == 0) || !p.Lost() {
			t.Errorf("%d more: lost %v", i+1, lost)
		}
	}
	if p.Regained(after(QuietTime - time.Second)) {
		t.Error("regained too early")
	}
	if p.Repaired(after(0)); p.Regained(after(QuietTime-time.Second)) || !p.Lost() {
		t.Error("a repair in between counts")
	}
	if !p.Regained(after(time.Second)) || p.Lost() || p.Regained(now) {
		t.Error("not regained after five quiet minutes")
	}
	for i := range MaxRepairs {
		if p.Repaired(after(time.Second)) != (i == MaxRepairs-1) {
			t.Errorf("anew: repair %d", i+1)
		}
	}
}
