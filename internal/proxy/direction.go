package proxy

import (
	"golang.org/x/sys/unix"
)

const (
	// copySize: what fits is copied, which is faster for little than two calls of splice and a pipe.
	copySize = 16 << 10
	// burst is how much a direction may move before others have their turn.
	burst = 2 << 20
)

// direction moves bytes from one side to the other. It holds at most a pipe or copySize, and reads nothing while it
// holds something: TCP's window tells the sender to wait.
type direction struct {
	from, to *side
	pipe     pipe
	piped    int    // bytes in the pipe
	hasPipe  bool   // taken from the pool
	rest     []byte // that were copied and found no room
	bytes    uint64
	bulk     bool // splice: the last read filled the buffer
	eof      bool // from has sent its end
	done     bool // and to has been told
	queued   bool // in loop.ready
}

func (d *direction) other() *direction {
	k := d.from.conn
	if d == &k.up {
		return &k.down
	}
	return &k.up
}

func (d *direction) holds() bool { return d.piped > 0 || len(d.rest) > 0 }

// pump moves what can be moved.
func (d *direction) pump() {
	k := d.from.conn
	if k.closed || d.done || k.dial != nil {
		return
	}
	before := d.bytes
	err := d.move()
	if moved := d.bytes - before; moved > 0 {
		k.count(d, moved)
	}
	if err != nil {
		// The reason is with the side that it happened to.
		s := d.from
		if err.writing {
			s = d.to
		}
		s.failed(err.errno)
		return
	}
	if d.done {
		k.finished()
	}
}

// moveError is an error of one of the two sides.
type moveError struct {
	errno   error
	writing bool
}

func (d *direction) move() *moveError {
	l := d.from.conn.loop
	start := d.bytes
	for {
		if d.to.gone {
			return nil
		}
		if d.holds() {
			if !d.to.writable {
				return nil
			}
			if err := d.flush(); err != nil {
				return err
			}
			continue
		}
		if d.eof {
			if d.from.gone { // after a reset there is no end to hand on
				return nil
			}
			d.release()
			d.done = true
			if d.other().done { // closing sends the end
				return nil
			}
			if err := unix.Shutdown(d.to.fd, unix.SHUT_WR); err != nil {
				return &moveError{err, true}
			}
			return nil
		}
		if !d.from.readable || !d.to.writable {
			if d.bulk && d.bytes-start < copySize {
				d.bulk = false
			}
			d.release()
			return nil
		}
		if d.bytes-start > burst {
			if !d.queued {
				d.queued = true
				l.ready = append(l.ready, d)
			}
			return nil
		}
		if err := d.read(); err != nil {
			return err
		}
	}
}

// read takes bytes from one side; what was copied goes to the other at once.
func (d *direction) read() *moveError {
	l := d.from.conn.loop
	bulk := d.bulk && !d.from.urgent // splice does not come beyond urgent data
	if bulk && !d.hasPipe {
		if d.pipe, d.hasPipe = l.pipes.take(); d.hasPipe {
			d.to.limitUnsent()
		}
	}
	if bulk && d.hasPipe {
		n, err := splice(d.from.fd, d.pipe.write, largePipe)
		switch {
		case err == unix.EAGAIN:
			d.from.readable = false
		case err != nil:
			return &moveError{err, false}
		case n == 0:
			d.eof = true
		}
		d.piped = n
		return nil
	}
	n, err := receive(d.from.fd, l.buffer)
	switch {
	case err == unix.EAGAIN:
		d.from.readable = false
		return nil
	case err != nil:
		return &moveError{err, false}
	case n == 0:
		d.eof = true
		return nil
	}
	// Less than asked for: the receive queue is empty, and what comes will be an event.
	flags := 0
	switch {
	case n == len(l.buffer):
		d.bulk = true
	case d.from.urgent:
	case d.from.ending:
		d.eof = true
		if !d.from.gone {
			flags = unix.MSG_MORE // one packet with the end, which follows at once
		}
	default:
		d.from.readable = false
	}
	sent, err := send(d.to.fd, l.buffer[:n], flags)
	if err != nil && err != unix.EAGAIN {
		return &moveError{err, true}
	}
	d.bytes += uint64(sent)
	if sent < n {
		d.rest = append([]byte(nil), l.buffer[sent:n]...)
	}
	return nil
}

// flush hands on what is held; where there is no room it waits for an event.
func (d *direction) flush() *moveError {
	if d.piped > 0 {
		n, err := splice(d.pipe.read, d.to.fd, d.piped)
		switch {
		case err == unix.EAGAIN:
			d.to.writable = false
		case err != nil:
			return &moveError{err, true}
		}
		d.piped -= n
		d.bytes += uint64(n)
		return nil
	}
	n, err := send(d.to.fd, d.rest, 0)
	switch {
	case err == unix.EAGAIN:
		d.to.writable = false
	case err != nil:
		return &moveError{err, true}
	}
	d.bytes += uint64(n)
	if d.rest = d.rest[n:]; len(d.rest) == 0 {
		d.rest = nil
	}
	return nil
}

// drain moves what the source sent before it was reset, as far as there is room.
func (d *direction) drain() {
	if d.done || d.from.conn.dial != nil {
		return
	}
	before := d.bytes
	for !d.to.gone {
		if err := d.move(); err != nil {
			d.to.gone = d.to.gone || err.writing
			break
		}
		if !d.queued {
			break
		}
		// The burst is over; the loop will not come back to it.
		d.queued = false
		d.from.conn.loop.unqueue(d)
	}
	if moved := d.bytes - before; moved > 0 {
		d.from.conn.count(d, moved)
	}
}

// release gives the pipe back, or throws it away with what is in it.
func (d *direction) release() {
	d.rest = nil
	if !d.hasPipe {
		return
	}
	pipes := &d.from.conn.loop.pipes
	if d.piped > 0 {
		pipes.discard(d.pipe)
	} else {
		pipes.give(d.pipe)
	}
	d.hasPipe, d.piped = false, 0
}
