package proxy

import (
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
)

// reserve is a descriptor of the server's that is only there to be given up: when there is none left, the next client
// is taken with its number, and reset. It must not go to a session meanwhile, or none is left to refuse clients with,
// and they wait until a session ends: what sessions hold is opened while nobody gives it up, and not at all where it
// was lost, to a look-up perhaps.
type reserve struct {
	mu sync.RWMutex // for writing: to change fd
	fd int          // -1: it was lost
}

func newReserve() *reserve { return &reserve{fd: spare()} }

// spare opens a descriptor, or returns -1.
func spare() int {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return -1
	}
	return fd
}

// enter returns true where descriptors may be opened, until leave.
func (r *reserve) enter() bool {
	r.mu.RLock()
	if r.fd >= 0 {
		return true
	}
	r.mu.RUnlock()
	r.mu.Lock()
	r.restore()
	r.mu.Unlock()
	r.mu.RLock()
	if r.fd >= 0 {
		return true
	}
	r.mu.RUnlock()
	return false
}

func (r *reserve) leave() { r.mu.RUnlock() }

func (r *reserve) restore() bool {
	if r.fd < 0 {
		r.fd = spare()
	}
	return r.fd >= 0
}

func (r *reserve) accept(listening int) (int, netip.AddrPort, error) {
	if !r.enter() {
		return -1, netip.AddrPort{}, unix.EMFILE
	}
	defer r.leave()
	return accept(listening)
}

// socket opens one that does not block.
func (r *reserve) socket(family, kind int) (int, error) {
	if !r.enter() {
		return -1, unix.EMFILE
	}
	defer r.leave()
	return unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
}

func (r *reserve) pipe(fds []int) error {
	if !r.enter() {
		return unix.EMFILE
	}
	defer r.leave()
	return unix.Pipe2(fds, unix.O_NONBLOCK|unix.O_CLOEXEC)
}

// refuse resets the next client of a service. It returns false where there is none, or the descriptor is lost.
func (r *reserve) refuse(listening int, s *Service) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.restore() {
		return false
	}
	unix.Close(r.fd)
	fd, _, err := accept(listening)
	if err == nil {
		s.refuse(exhausted)
		closeReset(fd)
	}
	r.fd = spare()
	return err == nil
}

func (r *reserve) close() {
	if r.fd >= 0 {
		unix.Close(r.fd)
	}
}
