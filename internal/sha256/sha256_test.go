package sha256

import (
	"crypto/sha256"
	"math/rand/v2"
	"testing"
)

// TestSmall: the router's SHA-256 is Go's, for each length around the blocks' ends.
func TestSmall(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for length := range 300 {
		data := make([]byte, length)
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		if small(data) != sha256.Sum256(data) || Sum(data) != small(data) {
			t.Fatalf("%d bytes: %x, wanted %x", length, small(data), sha256.Sum256(data))
		}
	}
}
