package proxy

import (
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// hop is a step on a client's way through this server: the proxy that it came to, and those before.
type hop struct {
	service *Service
	before  *hop
}

// passed tells whether the way has led through a proxy already.
func (h *hop) passed(s *Service) bool {
	for ; h != nil; h = h.before {
		if h.service == s {
			return true
		}
	}
	return false
}

// hops are the server's own connections to targets that are, or may be, its own listeners. A client that is one of
// them comes by way of a proxy, and is refused where it has been before: a loop would make sessions until there are no
// more.
//
// Neither names nor addresses tell of every loop: a target may be any address of this machine, and lead on to a third
// proxy.
type hops struct {
	listening atomic.Pointer[map[socketKey]string] // the name of the proxy
	// The addresses that any of them has had; clients seldom have one of these.
	sources atomic.Pointer[map[netip.Addr]bool]

	connecting sync.RWMutex // held for reading until a socket that connects is in ways

	mu    sync.Mutex
	ways  map[flow]*way
	ended []*way // those of closed sockets, the oldest first
}

// way is how a socket of this server came to be.
type way struct {
	flow flow
	hop  *hop
}

// endedWays is how many are kept of sockets that are closed: what they have connected to may not have been accepted
// yet.
const endedWays = 1024

func newHops() *hops {
	h := &hops{ways: map[flow]*way{}}
	h.listening.Store(&map[socketKey]string{})
	h.sources.Store(&map[netip.Addr]bool{})
	return h
}

// listen tells what the server listens on.
func (h *hops) listen(want []wanted) {
	listening := make(map[socketKey]string, len(want))
	for _, w := range want {
		listening[w.key] = w.proxy.Section
	}
	h.listening.Store(&listening)
}

// listener names the proxies that listen on an address, and on all addresses with its port.
func (h *hops) listener(proto uint8, to netip.AddrPort) (exact, wildcard string) {
	all := netip.IPv6Unspecified()
	if to.Addr().Is4() {
		all = netip.IPv4Unspecified()
	}
	listening := *h.listening.Load()
	return listening[socketKey{proto, to}], listening[socketKey{proto, netip.AddrPortFrom(all, to.Port())}]
}

// own tells that an address is where a service listens itself, as far as that shows without asking the kernel.
func (h *hops) own(s *Service, to netip.AddrPort) error {
	exact, wildcard := h.listener(s.proto, to)
	if exact == s.name || wildcard == s.name && to.Addr().IsLoopback() {
		return fmt.Errorf("%s is what the proxy listens on itself", to)
	}
	return nil
}

// connect connects a socket. Where the server may listen at the other end, it returns the way by which that will know
// the socket.
func (h *hops) connect(fd int, from *hop, to netip.AddrPort) (*way, error) {
	sa, err := sockaddr(to)
	if err != nil {
		return nil, err
	}
	exact, wildcard := h.listener(from.service.proto, to)
	if exact == "" && wildcard == "" {
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

// close is called when the socket of a way is closed.
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

// before is the last step of a client's way to where it comes to; nil where the client is none of the server's own
// sockets.
func (h *hops) before(client netip.AddrPort, local func() netip.AddrPort) *hop {
	if !(*h.sources.Load())[client.Addr()] {
		return nil
	}
	// A socket that is connecting may have been accepted before it is in the list.
	h.connecting.Lock()
	defer h.connecting.Unlock()
	f := flowOf(client, local())
	h.mu.Lock()
	defer h.mu.Unlock()
	if w := h.ways[f]; w != nil {
		return w.hop
	}
	return nil
}

func flowOf(client, local netip.AddrPort) flow {
	return flow{client: client.Addr().As16(), local: local.Addr().As16(),
		ports: uint32(client.Port())<<16 | uint32(local.Port())}
}
