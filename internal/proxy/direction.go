package proxy

import (
	"golang.org/x/sys/unix"
)

const (
	// copySize is the size of the copy buffer. Up to this size, copying is faster than a pipe and two splice calls.
	copySize = 16 << 10
	// burst is how much a direction moves before other connections get their turn.
	burst = 2 << 20
)

// direction moves bytes from one side to the other. It holds at most a pipe or copySize. While it holds data it reads
// nothing, so TCP's window makes the sender wait.
type direction struct {
	from, to *side
	pipe     pipe
	piped    int    // bytes in the pipe
	hasPipe  bool   // from the pool
	rest     []byte // copied, but there was no room to send it
	bytes    uint64
	bulk     bool // use splice: the last read filled the buffer
	eof      bool // from has sent FIN
	done     bool // FIN was sent to the other side
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

// pump moves as much as possible.
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
		// The error belongs to the side that reported it.
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

// moveError is an error of one side.
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
			if d.from.gone { // after a reset there is no FIN to pass on
				return nil
			}
			d.release()
			d.done = true
			if d.other().done { // closing sends the FIN
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

// read reads from one side. Copied data is sent to the other side at once.
func (d *direction) read() *moveError {
	l := d.from.conn.loop
	bulk := d.bulk && !d.from.urgent // splice does not pass urgent data
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
	// A short read means that the receive queue is empty; an event announces new data.
	flags := 0
	switch {
	case n == len(l.buffer):
		d.bulk = true
	case d.from.urgent:
	case d.from.ending:
		d.eof = true
		if !d.from.gone {
			flags = unix.MSG_MORE // send the FIN, which follows at once, in the same packet
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

// flush sends what the direction holds. If there is no room, an event continues it.
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

// drain moves what the source sent before its reset, as far as there is room.
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
		// The burst is used up; continue here instead of in the loop.
		d.queued = false
		d.from.conn.loop.unqueue(d)
	}
	if moved := d.bytes - before; moved > 0 {
		d.from.conn.count(d, moved)
	}
}

// release returns the pipe to the pool, or closes it if it contains data.
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
