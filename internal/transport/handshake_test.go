package transport

import (
	"encoding/hex"
	"testing"
)

// TestAddressed: an initiation is for the key that its mac1, computed by another implementation, was made with.
func TestAddressed(t *testing.T) {
	var key Key
	payload := []byte{Initiation, 0, 0, 0}
	for i := range 112 {
		payload = append(payload, byte(i*7))
	}
	for i := range key {
		key[i] = byte(i)
	}
	mac1, err := hex.DecodeString("de53fbae57962fb7f7f2dea79f2e4f59")
	if err != nil {
		t.Fatal(err)
	}
	payload = append(append(payload, mac1...), make([]byte, 16)...)
	if !key.Addressed(payload) {
		t.Error("not for its key")
	}
	if (Key{1}).Addressed(payload) {
		t.Error("for another key")
	}
	if !(Key{1}).Addressed(payload[:147]) || !(Key{1}).Addressed(nil) {
		t.Error("what is no initiation is for nobody")
	}
}

// TestPadded: sizes of WireGuard's packets by what is inside.
func TestPadded(t *testing.T) {
	for size, want := range map[int]int{0: 32, 1: 48, 60: 96, 64: 96, 1415: 1452, 1420: 1452} {
		if got := Padded(size, 1420); got != want {
			t.Errorf("%d bytes: %d, want %d", size, got, want)
		}
	}
}
