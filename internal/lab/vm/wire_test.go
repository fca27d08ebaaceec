package vm

import (
	"encoding/binary"
	"net"
	"strings"
	"testing"
	"time"
)

func plug(t *testing.T, dir string, side int) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", wireSocket(dir, CardWAN, side))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

func put(conn net.Conn, text string) error {
	_, err := conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...))
	return err
}

// exchange sends until the text arrives: the wire may not know a newly connected machine yet.
func exchange(t *testing.T, from, to net.Conn, text string) {
	t.Helper()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for put(from, text) == nil {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	frame, err := readFrame(to)
	if err != nil || string(frame[4:]) != text {
		t.Fatalf("%q, %v, want %q", frame, err, text)
	}
}

// TestWire: frames pass in both directions, also after a machine has reconnected. A machine that does not read blocks
// nobody.
func TestWire(t *testing.T) {
	dir := t.TempDir()
	unplug, err := layWires(dir, []int{CardWAN})
	if err != nil {
		t.Fatal(err)
	}
	defer unplug()
	first, second := plug(t, dir, 0), plug(t, dir, 1)
	exchange(t, first, second, "to the second")
	exchange(t, second, first, "to the first")
	second.Close()
	second = plug(t, dir, 1)
	exchange(t, first, second, "to the second once more")

	frame := strings.Repeat("x", 1500)
	for i := range 3 * wireFrames { // more than the wire and its sockets can hold
		if err := put(first, frame); err != nil {
			t.Fatalf("frame %d, to a machine that does not read: %v", i, err)
		}
	}
}
