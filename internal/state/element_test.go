package state

import "testing"

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
