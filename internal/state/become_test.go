package state

import (
	"strings"
	"testing"
)

// TestBecome: while a table changes, maps that stay are never empty.
func TestBecome(t *testing.T) {
	ports := func(name string, value []Type, ports ...uint16) Set {
		set := Set{Name: name, Key: []Type{Service}, Value: value}
		for _, port := range ports {
			set.Elements = append(set.Elements, Element{Key{}.at(port), Value{Verdict: "accept"}})
		}
		return set
	}
	verdict := []Type{Verdict}
	from := &Table{Family: "ip", Name: TableName, Ruleset: "table ip ds4relay {\n\tmap a { type x; }\n\tset old { " +
		"type y; }\n\tchain c {\n\t\trule @old\n\t}\n\tchain gone {\n\t}\n}\n",
		Sets: []Set{ports("a", verdict, 1, 2), ports("old", nil, 9)}}
	to := &Table{Family: "ip", Name: TableName, Ruleset: "table ip ds4relay {\n\tmap a { type x; }\n\tset new { " +
		"type y; }\n\tchain c {\n\t\trule @new\n\t}\n}\n",
		Sets: []Set{ports("a", verdict, 2, 3), ports("new", nil, 8)}}
	want := "flush table ip ds4relay\ndelete set ip ds4relay old\ndelete element ip ds4relay a { 1 : accept " +
		"}\ndelete chain ip ds4relay gone\n" + to.Ruleset + "add element ip ds4relay a { 3 : accept }\nadd element " +
		"ip ds4relay new { 8 }\n"
	if got := from.become(to); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	altered := &Table{Family: "ip", Name: TableName, Ruleset: "what nft prints of it"}
	if got, want := altered.become(to), "delete table ip ds4relay\n"+to.script(); got != want {
		t.Errorf("an altered table: got\n%s\nwant\n%s", got, want)
	}
	hooked := *to
	hooked.Ruleset = strings.Replace(to.Ruleset, "chain c {\n", "chain c {\n\t\ttype filter hook input priority 0; "+
		"policy accept;\n", 1)
	if got, want := from.become(&hooked), "delete table ip ds4relay\n"+hooked.script(); got != want {
		t.Errorf("another hook: got\n%s\nwant\n%s", got, want)
	}
}
