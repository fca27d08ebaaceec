package state

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
)

// MarkChain is an empty chain that marks a table as ours. (A comment on the table would need Linux 5.10.)
const MarkChain = "made_by_ds4relay"

// expandable is the longest range of ports that becomes single elements: a lookup in a hash table is cheaper than one
// among intervals, but a range of all ports would fill a router's memory.
const expandable = 64

func wide(first, last uint16) bool { return int(last)-int(first) >= expandable }

func clientText(p netip.Prefix) string {
	if p.Bits() == 32 {
		return p.Addr().String()
	}
	return p.String()
}

// elements are the elements of a table's sets and maps, by name.
type elements map[string][]Element

// put adds an element to a map.
func (e elements) put(set string, key Key, value Value) { e[set] = append(e[set], Element{key, value}) }

// insert adds an element to a set.
func (e elements) insert(set string, key Key) { e.put(set, key, Value{}) }

// destinations adds a mapping's destination to the map of ports, of ranges that keep their ports, or of protocols. key
// is the public address and the protocol.
func (e elements) destinations(key Key, m config.Mapping, ports, ranges, protocols string) {
	switch {
	case !m.Public.HasPorts():
		e.put(protocols, key, Value{Addr: m.Host})
	case wide(m.Public.First, m.Public.Last) && m.KeepsPorts():
		e.put(ranges, key.between(m.Public.First, m.Public.Last), Value{Addr: m.Host})
	default:
		for i := range int(m.Public.Last) - int(m.Public.First) + 1 {
			e.put(ports, key.at(m.Public.First+uint16(i)), Value{Addr: m.Host, Port: m.Port + uint16(i)})
		}
	}
}

// putSpans gives ranges of ports a verdict, in the map of ports or that of ranges.
func (e elements) putSpans(ports, ranges string, key Key, spans []span, verdict string) {
	for _, s := range spans {
		if wide(s.first, s.last) {
			e.put(ranges, key.between(s.first, s.last), Value{Verdict: verdict})
			continue
		}
		for port := int(s.first); port <= int(s.last); port++ {
			e.put(ports, key.at(uint16(port)), Value{Verdict: verdict})
		}
	}
}

func filled(types []Set, elements elements) []Set {
	sets := slices.Clone(types)
	for i := range sets {
		sets[i].Elements = elements[sets[i].Name]
	}
	return sets
}

// prefixList writes networks as the elements of an anonymous set; none lies within another.
func prefixList(prefixes []netip.Prefix) string {
	var words []string
	for _, p := range config.Outermost(prefixes) {
		words = append(words, clientText(p))
	}
	slices.Sort(words)
	return strings.Join(words, ", ")
}

// natTable returns table ip ds4relay, or false if there is no relay.
func natTable(vps *vpsTables, router *routerTables, fenced []string) (Table, bool) {
	table := Table{Family: "ip", Name: TableName}
	var body string
	if vps.any {
		text, sets := vps.text()
		body, table.Sets = body+text, append(table.Sets, sets...)
	}
	if router.rules.Len() > 0 {
		text, sets := router.text()
		body, table.Sets = body+text, append(table.Sets, sets...)
	}
	if len(fenced) > 0 {
		text, sets := fence(fenced, router.rules.Len() > 0)
		body, table.Sets = body+text, append(table.Sets, sets...)
	}
	table.Ruleset = tableText(table, body)
	return table, body != ""
}

// apart separates a part of a table from the part before it.
func apart(text string) string { return "\n" + text }

func tableText(t Table, body string) string {
	return fmt.Sprintf("table %s {\n\tchain %s { }%s}\n", t, MarkChain, body)
}
