package txtar

import (
	"reflect"
	"testing"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		text   string
		want   Archive
		format string // "": the text
	}{
		{"", Archive{}, ""},
		{"why\n", Archive{Comment: "why\n"}, ""},
		{"why\n-- a --\n1\n2\n-- b c --\n-- d --\n3\n",
			Archive{"why\n", []File{{"a", "1\n2\n"}, {"b c", ""}, {"d", "3\n"}}}, ""},
		{"--  a  --\n1", Archive{"", []File{{"a", "1\n"}}}, "-- a --\n1\n"},
		{"-- a --", Archive{"", []File{{"a", ""}}}, "-- a --\n"},
		{"no -- a --\n-- b\n-- c -- d\n-- --\n--\n",
			Archive{Comment: "no -- a --\n-- b\n-- c -- d\n-- --\n--\n"}, ""},
	} {
		got := Parse(c.text)
		if !reflect.DeepEqual(*got, c.want) {
			t.Errorf("%q is read as %+v, want %+v", c.text, *got, c.want)
		}
		if c.format == "" {
			c.format = c.text
		}
		if text := string(Format(got)); text != c.format {
			t.Errorf("%q is written as %q, want %q", c.text, text, c.format)
		}
	}
}
