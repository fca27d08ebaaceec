package state

import (
	"net/netip"
	"reflect"
	"testing"
)

func TestDisjoint(t *testing.T) {
	a, b := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
		[]netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
	both := []netip.Prefix{a[0], b[0]}
	for _, c := range []struct {
		name     string
		in, want []span
	}{
		{"one", []span{{80, 80, a}}, []span{{80, 80, a}}},
		{"the same twice", []span{{80, 90, a}, {80, 90, a}}, []span{{80, 90, a}}},
		{"neighbours", []span{{91, 99, nil}, {80, 90, nil}}, []span{{80, 99, nil}}},
		{"neighbours for others", []span{{80, 90, a}, {91, 99, b}}, []span{{80, 90, a}, {91, 99, b}}},
		{"one within the other", []span{{1, 65535, a}, {443, 443, b}},
			[]span{{1, 442, a}, {443, 443, both}, {444, 65535, a}}},
		{"some and everybody", []span{{443, 445, nil}, {444, 500, a}}, []span{{443, 445, nil}, {446, 500, a}}},
		{"a gap", []span{{1, 2, nil}, {4, 5, nil}}, []span{{1, 2, nil}, {4, 5, nil}}},
		{"a network within another", []span{{1, 1, a}, {1, 1, []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")}}},
			[]span{{1, 1, a}}},
		{"without ports", []span{{0, 0, a}, {0, 0, b}}, []span{{0, 0, both}}},
	} {
		if got := disjoint(c.in); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}
