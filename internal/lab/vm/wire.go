package vm

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
)

// A wire joins a network card of the first machine with one of the second. Both machines connect to it, so that either
// may start first, be booted again, or stand still: QEMU's own socket networks stop a machine whose peer does not
// read, and break for good when one of the two ends.
type wire struct {
	listeners [2]net.Listener

	mu     sync.Mutex
	queues [2]chan []byte // to the machine that is connected there; nil while none is
}

// wireFrames is how many frames wait for a machine that does not read; more are lost, as on a cable.
const wireFrames = 8192

// maxFrame is more than a segment that the cards' offloads leave whole.
const maxFrame = 1 << 17

// wireSocket is where a machine's card connects: side 0 is the first machine's.
func wireSocket(dir string, card, side int) string {
	return filepath.Join(dir, fmt.Sprintf("card%d.%d", card, side))
}

// layWires makes a wire for each card; close ends them.
func layWires(dir string, cards []int) (close func(), err error) {
	var wires []*wire
	close = func() {
		for _, w := range wires {
			for _, listener := range w.listeners {
				if listener != nil {
					listener.Close()
				}
			}
		}
	}
	for _, card := range cards {
		w := &wire{}
		wires = append(wires, w)
		for side := range w.listeners {
			if w.listeners[side], err = net.Listen("unix", wireSocket(dir, card, side)); err != nil {
				close()
				return nil, err
			}
			go w.serve(side)
		}
	}
	return close, nil
}

func (w *wire) serve(side int) {
	for {
		conn, err := w.listeners[side].Accept()
		if err != nil {
			return
		}
		w.carry(side, conn)
	}
}

// carry moves frames until the machine ends.
func (w *wire) carry(side int, conn net.Conn) {
	queue := make(chan []byte, wireFrames)
	w.set(side, queue)
	defer w.set(side, nil)
	go deliver(conn, queue)
	defer conn.Close()
	for r := bufio.NewReaderSize(conn, maxFrame); ; {
		frame, err := readFrame(r)
		if err != nil {
			return
		}
		w.send(1-side, frame)
	}
}

// set exchanges the queue of a side; the former one ends.
func (w *wire) set(side int, queue chan []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if former := w.queues[side]; former != nil {
		close(former)
	}
	w.queues[side] = queue
}

func (w *wire) send(side int, frame []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case w.queues[side] <- frame: // blocks for ever where it is nil
	default:
	}
}

// readFrame returns a frame with the four bytes of its length before it (QEMU's net/stream.c).
func readFrame(r io.Reader) ([]byte, error) {
	var header [4]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint32(header[:])
	if length > maxFrame {
		return nil, errors.New("a frame that is too long")
	}
	frame := make([]byte, len(header)+int(length))
	copy(frame, header[:])
	_, err := io.ReadFull(r, frame[len(header):])
	return frame, err
}

func deliver(conn net.Conn, queue <-chan []byte) {
	w := bufio.NewWriterSize(conn, maxFrame)
	for frame := range queue {
		if _, err := w.Write(frame); err != nil {
			break
		}
		if len(queue) == 0 && w.Flush() != nil {
			break
		}
	}
	conn.Close()
	for range queue { // until carry ends
	}
}

// cardArgs are a machine's cards for QEMU; mac gives each its hardware address.
func cardArgs(dir string, side int, cards []int, mac func(card int) string) []string {
	var args []string
	for _, card := range cards {
		args = append(args, "-netdev", fmt.Sprintf("stream,id=card%d,server=off,addr.type=unix,addr.path=%s", card,
			wireSocket(dir, card, side)),
			"-device", fmt.Sprintf("virtio-net-pci,netdev=card%d,mac=%s", card, mac(card)))
	}
	return args
}
