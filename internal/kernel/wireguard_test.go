package kernel

import (
	"bytes"
	"testing"
)

// TestGenlHeader: the reserved bytes are 0, otherwise Linux 7 refuses the request.
func TestGenlHeader(t *testing.T) {
	if got := (genlHeader{wgSetDevice, wgVersion}).Serialize(); !bytes.Equal(got, []byte{1, 1, 0, 0}) {
		t.Errorf("% x", got)
	}
}
