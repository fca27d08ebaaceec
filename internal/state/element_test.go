package state

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// TestDeviceName: names of devices as nft reads them. It has no escapes but for a * at the end.
func TestDeviceName(t *testing.T) {
	for name, want := range map[string]string{"br-lan": `"br-lan"`, `a\b`: `"a\b"`, "é": `"é"`, "a*b": `"a*b"`,
		"lan*": `"lan\*"`} {
		key := Key{Device: name}
		if got := string(key.appendText(nil, []Type{IfName})); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// TestDifference: what has to be removed and added leads from one list of elements to another one, and nothing else is
// touched.
func TestDifference(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	list := func() (elements []Element) {
		addr := netip.MustParseAddr("198.51.100.144")
		for range random.IntN(40) {
			key := protoKey(addr, uint8(6+11*random.IntN(2))).at(uint16(1 + random.IntN(20)))
			if random.IntN(4) == 0 {
				key = key.by("wrap1").from(netip.MustParsePrefix("203.0.113.0/24"))
			}
			elements = append(elements, Element{key, Value{Addr: addr, Port: uint16(80 + random.IntN(2))}})
		}
		return distinct(elements)
	}
	for range 500 {
		have, want := list(), list()
		random.Shuffle(len(have), func(i, j int) { have[i], have[j] = have[j], have[i] })
		gone, added := difference(have, want)
		left := slices.DeleteFunc(slices.Clone(have), func(e Element) bool { return slices.Contains(gone, e) })
		if len(left) != len(have)-len(gone) {
			t.Fatalf("elements are to go that are not there: %v", gone)
		}
		for _, e := range added {
			if slices.Contains(have, e) || !slices.Contains(want, e) {
				t.Fatalf("%v is added", e)
			}
		}
		if got := distinct(append(left, added...)); len(left)+len(added) != len(want) || !slices.Equal(got, want) {
			t.Fatalf("%d elements, want %d", len(got), len(want))
		}
	}
}
