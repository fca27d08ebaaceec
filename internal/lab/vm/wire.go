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

// A wire connects a network card of the first machine with one of the second. Both machines connect to it, so either
// may start first, reboot or stop. QEMU's own socket networks block a machine whose peer does not read, and break for
// good when one of them ends.
type wire struct {
	listeners [2]net.Listener

	mu     sync.Mutex
	queues [2]chan []byte // to the machine connected there; nil: none
}

// wireFrames is how many frames are queued for a machine that does not read. Further ones are lost, as on a cable.
const wireFrames = 8192

// maxFrame is more than the largest segment with offloads.
const maxFrame = 1 << 17

// wireSocket returns where a machine's card connects; side 0 is the first machine.
func wireSocket(dir string, card, side int) string {
	return filepath.Join(dir, fmt.Sprintf("card%d.%d", card, side))
}

// layWires creates a wire for each card; close closes them.
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

// carry forwards frames until the machine ends.
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

// set replaces a side's queue and closes the previous one.
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
	case w.queues[side] <- frame: // a nil queue is never ready, so the frame is dropped
	default:
	}
}

// readFrame returns a frame including the four bytes of its length (QEMU's net/stream.c).
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

// cardArgs returns QEMU's arguments for a machine's cards; mac gives each card's MAC address.
func cardArgs(dir string, side int, cards []int, mac func(card int) string) []string {
	var args []string
	for _, card := range cards {
		args = append(args, "-netdev", fmt.Sprintf("stream,id=card%d,server=off,addr.type=unix,addr.path=%s", card,
			wireSocket(dir, card, side)),
			"-device", fmt.Sprintf("virtio-net-pci,netdev=card%d,mac=%s", card, mac(card)))
	}
	return args
}
