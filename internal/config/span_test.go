package config

import (
	"math/rand/v2"
	"testing"
)

// TestSpans compares searches in sorted spans with a check of each port.
func TestSpans(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var all []span
		var has [300]bool
		for owner := range random.IntN(8) {
			first := uint16(1 + random.IntN(250))
			s := span{first, first + uint16(random.IntN(40)), owner}
			for port := s.first; port <= s.last; port++ {
				has[port] = true
			}
			all = append(all, s)
		}
		spans := disjoint(append([]span{}, all...))
		open := gaps(spans, 7)
		for port := uint16(1); port < 300; port++ {
			owner, ok := find(spans, port, port)
			if ok != has[port] || ok && (port < all[owner].first || port > all[owner].last) {
				t.Fatalf("port %d of %v: %v, %v", port, all, owner, ok)
			}
			if _, free := find(open, port, port); free == has[port] {
				t.Fatalf("port %d of %v: free %v", port, all, free)
			}
		}
	}
	for _, s := range [][]span{{{1, 65535, 0}}, {{1, 10, 0}, {11, 65535, 1}}} {
		if open := gaps(disjoint(s), 0); len(open) > 0 {
			t.Errorf("%v leaves %v", s, open)
		}
	}
}
