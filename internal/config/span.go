package config

import (
	"cmp"
	"slices"
	"sort"
)

// A span is a range of ports and the number of its owner; a protocol without ports is the span 0 to 0.
type span struct {
	first, last uint16
	owner       int
}

// disjoint sorts spans by port and cuts overlaps off the later ones, so that each port has one owner.
func disjoint(spans []span) []span {
	sort.SliceStable(spans, func(i, j int) bool {
		a, b := &spans[i], &spans[j]
		return a.first < b.first || a.first == b.first && a.owner < b.owner
	})
	kept := spans[:0]
	for _, s := range spans {
		if n := len(kept); n > 0 && s.first <= kept[n-1].last {
			if s.last <= kept[n-1].last {
				continue
			}
			s.first = kept[n-1].last + 1
		}
		kept = append(kept, s)
	}
	return kept
}

// find returns an owner of ports from first to last; the spans must be disjoint.
func find(spans []span, first, last uint16) (owner int, ok bool) {
	i, _ := slices.BinarySearchFunc(spans, first, func(s span, first uint16) int { return cmp.Compare(s.last, first) })
	if i == len(spans) || spans[i].first > last {
		return 0, false
	}
	return spans[i].owner, true
}

// gaps returns the ports from 1 on that no span contains; the spans must be disjoint.
func gaps(spans []span, owner int) []span {
	var open []span
	next := uint16(1)
	for _, s := range spans {
		if s.first > next {
			open = append(open, span{next, s.first - 1, owner})
		}
		if s.last == 65535 {
			return open
		}
		next = s.last + 1
	}
	return append(open, span{next, 65535, owner})
}

// within returns the parts of spans from first to last.
func within(spans []span, first, last uint16) []span {
	var inside []span
	for _, s := range spans {
		if s.first <= last && s.last >= first {
			inside = append(inside, span{max(s.first, first), min(s.last, last), s.owner})
		}
	}
	return inside
}
