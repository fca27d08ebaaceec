package proxy

import "golang.org/x/sys/unix"

// pipe is where splice(2) holds pages between two sockets.
type pipe struct{ read, write int }

const (
	// largePipe lets one call move what a fast connection has received meanwhile.
	largePipe = 1 << 20
	// largePipes is how many of all loops' together are large: what waits in pipes for slow readers is memory of the
	// kernel, and an unprivileged user may have 64 MB of them (pipe-user-pages-soft, pipe(7)).
	largePipes = 48
	smallPipe  = 256 << 10
	// minPipe: beyond that limit pipes have two pages; copying is faster then.
	minPipe = 64 << 10
	// maxPipes bounds those of a loop; connections beyond them are copied.
	maxPipes = 1024
	// keptPipes is how many empty ones stay open.
	keptPipes = 32
)

// pipes are those of a loop. A direction has one only while bytes flow.
type pipes struct {
	reserve *reserve
	free    []pipe
	count   int // open ones
	large   int // how many of them may be large
}

// take returns false where there is none to have.
func (p *pipes) take() (pipe, bool) {
	if last := len(p.free) - 1; last >= 0 {
		taken := p.free[last]
		p.free = p.free[:last]
		return taken, true
	}
	var fds [2]int
	if p.count >= maxPipes || p.reserve.pipe(fds[:]) != nil {
		return pipe{}, false
	}
	want := smallPipe
	if p.count < p.large {
		want = largePipe
	}
	size, err := unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, want)
	if err != nil {
		size, err = unix.FcntlInt(uintptr(fds[0]), unix.F_GETPIPE_SZ, 0)
	}
	if err != nil || size < minPipe {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return pipe{}, false
	}
	p.count++
	return pipe{fds[0], fds[1]}, true
}

// give takes back an empty pipe.
func (p *pipes) give(empty pipe) {
	if len(p.free) < keptPipes {
		p.free = append(p.free, empty)
		return
	}
	p.discard(empty)
}

// discard closes a pipe and forgets what is in it.
func (p *pipes) discard(used pipe) {
	unix.Close(used.read)
	unix.Close(used.write)
	p.count--
}

func (p *pipes) close() {
	for _, empty := range p.free {
		p.discard(empty)
	}
	p.free = nil
}
