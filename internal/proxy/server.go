package proxy

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
)

// maxLoops limits the threads: few VPSs have more CPUs, and a proxy would not use them.
const maxLoops = 16

// Server runs proxies.
type Server struct {
	journal *journal
	lookup  lookup
	loops   []*loop
	reserve *reserve
	cooling cooling
	hops    *hops

	answerTime time.Duration // see Options

	mu        sync.Mutex
	services  map[string]*Service // by section
	gone      []*Service          // removed, possibly with open sessions
	listeners map[socketKey]*listener
	draining  map[socketKey]*listener // UDP, with open sessions
	inherited map[socketKey][]int     // descriptors of sockets that another process has opened
}

// Options are for New; the zero value is the usual choice.
type Options struct {
	Loops  int          // event loops; 0: one for each CPU
	Log    func(string) // receives lines of the access log; nil: no log
	Lookup lookup       // nil: the system's resolver

	// AnswerTime is how long a UDP session that is unanswered or answered is protected while it waits for the next
	// packet; 0: one second.
	AnswerTime time.Duration
}

// New starts the event loops. There are no proxies until Apply.
func New(o Options) (*Server, error) {
	s := &Server{lookup: o.Lookup, answerTime: cmp.Or(o.AnswerTime, time.Second), reserve: newReserve(),
		hops: newHops(), services: map[string]*Service{}, listeners: map[socketKey]*listener{},
		draining: map[socketKey]*listener{}}
	s.cooling.hops = s.hops
	n := o.Loops
	if n == 0 {
		n = min(runtime.NumCPU(), maxLoops)
	}
	begin := time.Now()
	for range n {
		l, err := newLoop(s.reserve)
		if err != nil {
			for _, l := range s.loops {
				l.close()
			}
			s.reserve.close()
			return nil, err
		}
		l.start = begin // the loops compare each other's times
		l.pipes.large = largePipes / n
		s.loops = append(s.loops, l)
	}
	if o.Log == nil {
		o.Log = func(string) {}
	}
	s.journal = newJournal(o.Log)
	for _, l := range s.loops {
		go l.run()
	}
	return s, nil
}

// wanted is a listening socket that the configuration asks for.
type wanted struct {
	key    socketKey
	proxy  *config.Proxy
	target uint16
}

func sockets(proxies []*config.Proxy) []wanted {
	var list []wanted
	for _, p := range proxies {
		for _, l := range p.Listen {
			for port := int(l.First); port <= int(l.Last); port++ {
				key := socketKey{p.Proto, netip.AddrPortFrom(l.Addr, uint16(port))}
				list = append(list, wanted{key, p, p.Target.PortFor(l, uint16(port))})
			}
		}
	}
	return list
}

// Apply replaces the proxies with those of the configuration. Sockets that stay are not touched, and all sessions
// continue, also those of removed proxies. If a socket cannot be opened, nothing changes.
func (s *Server) Apply(proxies []*config.Proxy) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	want := sockets(proxies)
	opened := map[socketKey]*listener{}
	var errs []error
	for _, w := range want {
		if s.listeners[w.key] != nil || s.draining[w.key] != nil {
			continue
		}
		a, err := s.open(w.key)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		opened[w.key] = a
	}
	s.disinherit()
	if len(errs) > 0 {
		for _, a := range opened {
			a.close()
		}
		return errors.Join(errs...)
	}
	var public []netip.Addr
	if len(proxies) > 0 {
		public = proxies[0].Public // the same of all
	}
	s.hops.public.Store(&public)
	kept := map[string]bool{}
	for _, p := range proxies {
		s.service(p)
		kept[p.Section] = true
	}
	keys := map[socketKey]bool{}
	for _, w := range want {
		keys[w.key] = true
		if a := s.draining[w.key]; a != nil {
			delete(s.draining, w.key)
			s.listeners[w.key] = a
		}
		a := cmp.Or(s.listeners[w.key], opened[w.key])
		a.route.Store(&route{s.services[w.proxy.Section], w.proxy, w.target})
		a.draining.Store(false)
		if w.key.proto == config.TCP {
			tune(a.fd, w.proxy.Keepalive)
		}
	}
	s.hops.listen(want)
	for key, a := range opened {
		s.listeners[key] = a
		if err := s.start(a); err != nil {
			errs = append(errs, err)
		}
	}
	for key, a := range s.listeners {
		if !keys[key] {
			delete(s.listeners, key)
			s.stop(a, true)
		}
	}
	s.retire(kept)
	return errors.Join(errs...)
}

// retire drains the services that are not kept.
func (s *Server) retire(kept map[string]bool) {
	for name, service := range s.services {
		if !kept[name] {
			service.removed.Store(true)
			s.gone = append(s.gone, service)
			delete(s.services, name)
		}
	}
	s.forget()
}

// service creates or updates the service of a proxy. A proxy that changes its protocol gets a new service.
func (s *Server) service(p *config.Proxy) {
	service := s.services[p.Section]
	if service != nil && service.proto != p.Proto {
		service.removed.Store(true)
		s.gone = append(s.gone, service)
		service = nil
	}
	if i := slices.IndexFunc(s.gone, func(g *Service) bool {
		return g.name == p.Section && g.proto == p.Proto
	}); service == nil && i >= 0 {
		service = s.gone[i] // it returns while it still has sessions
		s.gone = slices.Delete(s.gone, i, i+1)
		service.removed.Store(false)
		s.services[p.Section] = service
	}
	if service == nil {
		service = &Service{name: p.Section, proto: p.Proto, server: s, loops: map[*loop]*served{}}
		service.first.service = service
		service.config.Store(p)
		service.aim(p)
		s.services[p.Section] = service
		return
	}
	before := service.config.Load()
	service.config.Store(p)
	if before.Target.Name != p.Target.Name || before.Target.Addr != p.Target.Addr ||
		before.TargetLocal != p.TargetLocal {
		service.aim(p)
	}
	if !reflect.DeepEqual(before, p) {
		service.changed()
	}
}

// start makes the loops accept from a socket.
func (s *Server) start(a *listener) error {
	if a.key.proto == config.UDP {
		return a.watchUDP()
	}
	var errs []error
	for _, l := range s.loops {
		l.call(func() { errs = append(errs, a.watch(l)) })
	}
	return errors.Join(errs...)
}

// stop closes a socket. If no other process has it, the clients that are waiting there are accepted first.
func (s *Server) stop(a *listener, last bool) {
	if a.key.proto == config.UDP {
		s.stopUDP(a, last)
		return
	}
	for _, l := range s.loops {
		l.call(func() { a.unwatch(l) })
	}
	if l := s.loops[0]; last {
		l.call(func() {
			for waiting := true; waiting; {
				waiting = (&acceptor{listener: a, loop: l}).take()
			}
		})
	}
	a.close()
}

// forget drops removed services without sessions.
func (s *Server) forget() {
	s.gone = slices.DeleteFunc(s.gone, func(service *Service) bool {
		if service.stats.sessions.Load() > 0 {
			return false
		}
		service.targets.Load().close()
		return true
	})
}

// leastBusy returns the loop for a new connection: the one that accepted it, unless another has clearly fewer
// connections.
func (s *Server) leastBusy(own *loop) *loop {
	best := own
	n := own.connections.Load()
	least := n - max(imbalance, n/4)
	for _, l := range s.loops {
		if n := l.connections.Load(); n < least {
			best, least = l, n
		}
	}
	return best
}

// imbalance is how many more connections than the least busy loop a loop may have before new ones go to that one, which
// costs two system calls. With many connections, the limit is a quarter of them.
const imbalance = 2

// Status returns the proxies by name, draining ones last.
func (s *Server) Status() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget()
	for _, listeners := range []map[socketKey]*listener{s.listeners, s.draining} {
		for _, a := range listeners {
			a.countLost()
		}
	}
	list := []Status{}
	for _, name := range slices.Sorted(maps.Keys(s.services)) {
		list = append(list, s.services[name].Status())
	}
	for _, service := range s.gone {
		list = append(list, service.Status())
	}
	return list
}

// Sessions returns the number of open sessions.
func (s *Server) Sessions() int {
	n := 0
	for _, status := range s.Status() {
		n += int(status.Sessions)
	}
	return n
}

// Drain stops listening and waits until the last connection has ended, or until the time limit. It does not wait for
// UDP sessions, which have no end.
func (s *Server) Drain(limit time.Duration) error {
	if err := s.Apply(nil); err != nil {
		return err
	}
	for end := time.Now().Add(limit); ; time.Sleep(drainCheck) {
		left := int64(0)
		for _, l := range s.loops {
			left += l.connections.Load()
		}
		switch {
		case left == 0:
			return nil
		case time.Now().After(end):
			return fmt.Errorf("%d connections are still open after %s", left, limit)
		}
	}
}

const drainCheck = 20 * time.Millisecond

// Close ends all sessions at once.
func (s *Server) Close() error {
	err := s.Apply(nil)
	for _, l := range s.loops {
		l.call(func() { l.endAll() })
	}
	s.collect()
	for _, l := range s.loops {
		l.call(func() { l.quit = true })
		<-l.done
		l.close()
	}
	s.cooling.closeAll()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, service := range s.gone {
		service.targets.Load().close()
	}
	s.gone = nil
	s.reserve.close()
	s.journal.close()
	return err
}
