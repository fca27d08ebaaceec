package state

import (
	"net/netip"
	"slices"
	"sort"

	"github.com/ds4relay/ds4relay/internal/config"
)

// span is a range of ports that is open to some clients, or to all where clients is nil.
type span struct {
	first, last uint16
	clients     []netip.Prefix
}

// disjoint turns spans that may overlap into disjoint ones: each port has all of its clients, and adjacent spans with
// the same clients are merged.
func disjoint(spans []span) []span {
	var starts []int
	for _, s := range spans {
		starts = append(starts, int(s.first), int(s.last)+1)
	}
	slices.Sort(starts)
	starts = slices.Compact(starts)
	sort.SliceStable(spans, func(i, j int) bool { return spans[i].first < spans[j].first })
	var result []span
	var active []span // spans that include start
	for i, start := range starts[:len(starts)-1] {
		for ; len(spans) > 0 && int(spans[0].first) == start; spans = spans[1:] {
			active = append(active, spans[0])
		}
		active = slices.DeleteFunc(active, func(s span) bool { return int(s.last) < start })
		if len(active) == 0 {
			continue
		}
		var clients []netip.Prefix
		everybody := false
		for _, s := range active {
			clients = append(clients, s.clients...)
			everybody = everybody || s.clients == nil
		}
		if clients = config.Outermost(clients); everybody {
			clients = nil
		}
		next := span{uint16(start), uint16(starts[i+1] - 1), clients}
		if n := len(result); n > 0 && int(result[n-1].last)+1 == start && slices.Equal(result[n-1].clients, clients) {
			result[n-1].last = next.last
		} else {
			result = append(result, next)
		}
	}
	return result
}
