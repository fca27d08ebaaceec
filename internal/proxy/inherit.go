package proxy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/config"
)

// Socket is a listening socket that another process can inherit.
type Socket struct {
	Name string // "tcp 0.0.0.0:443"
	FD   int    // still owned by the server
}

// Sockets returns the listening sockets by name. UDP sockets with the same name belong together.
func (s *Server) Sockets() []Socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []Socket{}
	for key, a := range s.listeners {
		if a.fd >= 0 {
			list = append(list, Socket{key.String(), a.fd})
		}
		for _, r := range a.receivers {
			list = append(list, Socket{key.String(), r.fd})
		}
	}
	slices.SortStableFunc(list, func(a, b Socket) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// Inherit takes sockets that another process has opened. The next Apply uses them; Inherit closes those that it cannot
// use.
func (s *Server) Inherit(fds []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inherited == nil {
		s.inherited = map[socketKey][]int{}
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
		key, err := keyOf(fd)
		twice := key.proto == config.TCP && len(s.inherited[key]) > 0
		if err != nil || twice || unix.SetNonblock(fd, true) != nil {
			unix.Close(fd)
			continue
		}
		s.inherited[key] = append(s.inherited[key], fd)
	}
}

func (s *Server) disinherit() {
	for _, fds := range s.inherited {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
	s.inherited = nil
}

// Release stops listening, because another process holds the same sockets. Sessions continue.
func (s *Server) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, a := range s.listeners {
		delete(s.listeners, key)
		s.stop(a, false)
	}
	s.retire(nil)
}

// Responds reports whether every event loop responds within a time.
func (s *Server) Responds(within time.Duration) bool {
	all := make(chan struct{}, len(s.loops))
	for _, l := range s.loops {
		l.post(func() { all <- struct{}{} })
	}
	late := time.NewTimer(within)
	defer late.Stop()
	for range s.loops {
		select {
		case <-all:
		case <-late.C:
			return false
		}
	}
	return true
}

// keyOf returns the key of an open socket.
func keyOf(fd int) (socketKey, error) {
	proto, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return socketKey{}, err
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return socketKey{}, err
	}
	key := socketKey{proto: uint8(proto)}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		key.addr = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		addr := netip.AddrFrom16(sa.Addr)
		if sa.ZoneId != 0 {
			zone, err := deviceName(fd, sa.ZoneId)
			if err != nil {
				return socketKey{}, err
			}
			addr = addr.WithZone(zone)
		}
		key.addr = netip.AddrPortFrom(addr, uint16(sa.Port))
	default:
		return socketKey{}, fmt.Errorf("socket of an unknown family")
	}
	return key, nil
}

// deviceName looks up a device by its index; any socket will do.
func deviceName(fd int, index uint32) (string, error) {
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return "", err
	}
	request.SetUint32(index)
	err = unix.IoctlIfreq(fd, unix.SIOCGIFNAME, request)
	return request.Name(), err
}
