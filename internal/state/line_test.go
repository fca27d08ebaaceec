package state

import (
	"strings"
	"testing"
)

// TestLine: every step is one line; for a ruleset it shows the size.
func TestLine(t *testing.T) {
	const table = "table ip6 ds4relay {\n\tchain made_by_ds4relay { }\n\t# a comment\n" +
		"\tset peer { type ipv6_addr; size 1024; }\n\tset fence {\n\t\ttype ifname\n\t}\n" +
		"\tchain input {\n\t\ttype filter hook input priority mangle; policy accept;\n\t\t# a " +
		"comment\n\t\tdrop\n\t}\n}\n"
	for script, want := range map[string]string{
		table: "table ip6 ds4relay: rules 1",
		strings.Replace(table, "drop", "accept\n\t\tdrop", 1) + "add element ip6 ds4relay peer { 2001:db8::1, " +
			"2001:db8::2 }\ntable ip ds4relay_flows {\n}\n": "table ip6 ds4relay: rules 2, elements 2; table ip " +
			"ds4relay_flows: rules 0", "delete table ip6 ds4relay\n" + table: "table ip6 ds4relay: rules 1",
		"delete table ip ds4relay\ndelete table ip6 ds4relay\n": "table ip ds4relay: removed; table ip6 " +
			"ds4relay: removed", "delete element ip ds4relay host { \"wrap1\" . " +
			"192.168.1.2 }\n": "table ip ds4relay: elements removed 1",
	} {
		if got := Line(LoadTables{Script: script}); got != "nft -f - # "+want {
			t.Errorf("got %q, want %q of\n%s", got, want, script)
		}
	}
	if got := Line(SetUp{"wrap1", true}); got != "ip link set dev wrap1 up" {
		t.Errorf("got %q", got)
	}
}
