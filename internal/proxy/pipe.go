package proxy

import "golang.org/x/sys/unix"

// pipe holds data between two sockets for splice(2).
type pipe struct{ read, write int }

const (
	// largePipe lets one call move all that a fast connection has received since the last one.
	largePipe = 1 << 20
	// largePipes is how many large pipes all loops have together. Data that waits in pipes for slow readers takes
	// kernel memory, of which an unprivileged user may have 64 MB (pipe-user-pages-soft, pipe(7)).
	largePipes = 48
	smallPipe  = 256 << 10
	// minPipe is the smallest useful size. Above the user's limit a pipe gets two pages; copying is faster then.
	minPipe = 64 << 10
	// maxPipes is the limit for one loop. Further connections use copying.
	maxPipes = 1024
	// keptPipes is how many empty pipes stay open.
	keptPipes = 32
)

// pipes is a loop's pool. A direction has a pipe only while data flows.
type pipes struct {
	reserve *reserve
	free    []pipe
	count   int // open
	large   int // how many may be large
}

// take returns false if there is none.
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

// give returns an empty pipe to the pool.
func (p *pipes) give(empty pipe) {
	if len(p.free) < keptPipes {
		p.free = append(p.free, empty)
		return
	}
	p.discard(empty)
}

// busy reports whether a direction has a pipe.
func (p *pipes) busy() bool { return p.count > len(p.free) }

// discard closes a pipe with its content.
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
