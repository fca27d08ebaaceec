package proxy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// hop is one step of a client's way through this server: the proxy, and the hop before it.
type hop struct {
	service *Service
	before  *hop
}

// passed reports whether the way has already led through a proxy.
func (h *hop) passed(s *Service) bool {
	for ; h != nil; h = h.before {
		if h.service == s {
			return true
		}
	}
	return false
}

// hops tracks the server's own connections to targets that are, or may be, its own listeners. If such a connection
// returns to a proxy that it has passed, it is refused: otherwise a loop would open sessions until nothing is left.
//
// Names and addresses do not reveal every loop: a target may be any address of this machine, and the way may lead
// through a third proxy.
type hops struct {
	listening atomic.Pointer[map[socketKey]string] // value: the proxy's name
	// Local addresses of these connections so far. Few clients have one of them, so most look-ups end here.
	sources atomic.Pointer[map[netip.Addr]bool]
	// Addresses that lead back to this machine, where another one arrives: a cloud translates them.
	public atomic.Pointer[[]netip.Addr]

	connecting sync.RWMutex // read-locked until a connecting socket is in ways

	mu    sync.Mutex
	ways  map[flow]*way
	ended []*way // of closed sockets, oldest first
}

// way records which hop opened a socket.
type way struct {
	flow flow
	hop  *hop
}

// endedWays is how many ways of closed sockets are kept: the other end may not have been accepted yet.
const endedWays = 1024

func newHops() *hops {
	h := &hops{ways: map[flow]*way{}}
	h.listening.Store(&map[socketKey]string{})
	h.sources.Store(&map[netip.Addr]bool{})
	h.public.Store(&[]netip.Addr{})
	return h
}

// listen records what the server listens on.
func (h *hops) listen(want []wanted) {
	listening := make(map[socketKey]string, len(want))
	for _, w := range want {
		listening[w.key] = w.proxy.Section
	}
	h.listening.Store(&listening)
}

// isPublic reports whether an address may be translated to one of this machine.
func (h *hops) isPublic(addr netip.Addr) bool { return slices.Contains(*h.public.Load(), addr.Unmap()) }

// listener returns the names of the proxies that listen on the address itself and on the wildcard address with its
// port.
func (h *hops) listener(proto uint8, to netip.AddrPort) (exact, wildcard string) {
	all := netip.IPv6Unspecified()
	if to.Addr().Is4() {
		all = netip.IPv4Unspecified()
	}
	listening := *h.listening.Load()
	return listening[socketKey{proto, to}], listening[socketKey{proto, netip.AddrPortFrom(all, to.Port())}]
}

// own returns an error if the address is one that the service itself listens on, as far as this is known without asking
// the kernel.
func (h *hops) own(s *Service, to netip.AddrPort) error {
	exact, wildcard := h.listener(s.proto, to)
	if exact == s.name || wildcard == s.name && to.Addr().IsLoopback() {
		return fmt.Errorf("%s is what the proxy listens on itself", to)
	}
	return nil
}

// connect connects a socket. If the server may be listening at the other end, it also returns the way by which it will
// recognise the socket there.
func (h *hops) connect(fd int, from *hop, to netip.AddrPort) (*way, error) {
	sa, err := sockaddr(to)
	if err != nil {
		return nil, err
	}
	exact, wildcard := h.listener(from.service.proto, to)
	if exact == "" && wildcard == "" && !h.isPublic(to.Addr()) {
		return nil, unix.Connect(fd, sa)
	}
	h.connecting.RLock()
	defer h.connecting.RUnlock()
	if err := unix.Connect(fd, sa); err != nil && err != unix.EINPROGRESS {
		return nil, err
	}
	local := localAddr(fd)
	w := &way{flowOf(local, to), from}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ways[w.flow] = w
	if sources := *h.sources.Load(); !sources[local.Addr()] {
		sources = maps.Clone(sources)
		sources[local.Addr()] = true
		h.sources.Store(&sources)
	}
	return w, nil
}

// close must be called when the socket of a way is closed.
func (h *hops) close(w *way) {
	if w == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended = append(h.ended, w); len(h.ended) <= endedWays {
		return
	}
	last := h.ended[0]
	h.ended[0] = nil
	h.ended = h.ended[1:]
	if h.ways[last.flow] == last {
		delete(h.ways, last.flow)
	}
}

// before returns the hop that opened a client's connection, or nil if the client is not this server.
func (h *hops) before(client netip.AddrPort, local func() netip.AddrPort) *hop {
	if !(*h.sources.Load())[client.Addr()] {
		return nil
	}
	// A connecting socket may be accepted before it is in ways.
	h.connecting.Lock()
	defer h.connecting.Unlock()
	at := local()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, addr := range append([]netip.Addr{at.Addr()}, *h.public.Load()...) {
		if w := h.ways[flowOf(client, netip.AddrPortFrom(addr, at.Port()))]; w != nil {
			return w.hop
		}
	}
	return nil
}

func flowOf(client, local netip.AddrPort) flow {
	return flow{client: client.Addr().As16(), local: local.Addr().As16(),
		ports: uint32(client.Port())<<16 | uint32(local.Port())}
}
