package proxy

import (
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
)

// reserve is a spare descriptor. When descriptors run out, the server closes it, accepts the next client with its
// number, and resets that client. A session must not take this number in between: without it clients could not be
// refused and would wait until a session ends. So sessions open descriptors only while the spare one exists. It can get
// lost, for example to a DNS look-up.
type reserve struct {
	mu sync.RWMutex // write-locked to change fd
	fd int          // -1: lost
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

// enter returns true if descriptors may be opened until leave.
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

// socket opens a non-blocking socket.
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

// refuse resets the next client of a service. It returns false if no client is waiting or the spare descriptor is lost.
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
