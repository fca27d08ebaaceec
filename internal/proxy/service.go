package proxy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/ds4relay/ds4relay/internal/config"
)

// Service is a proxy of the configuration. A removed one exists until its last session has ended.
type Service struct {
	name    string
	proto   uint8
	config  atomic.Pointer[config.Proxy]
	stats   stats
	clients clients
	targets atomic.Pointer[targets]
	server  *Server
	first   hop                 // for clients that come from outside this server
	ranks   [ranks]atomic.Int64 // number of UDP sessions of each rank, including those that are being opened
	removed atomic.Bool         // no longer in the configuration

	mu    sync.Mutex
	loops map[*loop]*served
}

// served is a loop's part of a service. Only that loop uses it.
type served struct {
	idle     [ranks]*idlers      // UDP sessions, and TCP with an idle timeout as proven
	evicting [ranks]atomic.Int64 // UDP sessions that other loops have asked it to end
	counted  bool                // the session that is ending is no longer counted
}

// in returns the loop's part of the service, and creates it at the first call.
func (s *Service) in(l *loop) *served {
	s.mu.Lock()
	defer s.mu.Unlock()
	part := s.loops[l]
	if part == nil {
		part = &served{}
		for i := range part.idle {
			part.idle[i] = newIdlers(l, s.config.Load().IdleTimeout)
		}
		s.loops[l] = part
	}
	return part
}

// hop returns the next hop of a client's way.
func (s *Service) hop(before *hop) *hop {
	if before == nil {
		return &s.first
	}
	return &hop{s, before}
}

// admit counts a new session, or returns why it is refused. If the limit is reached, room may end another session.
func (s *Service) admit(c *config.Proxy, from netip.AddrPort, way *hop, room func() bool) (refusal, bool) {
	if way.passed(s) {
		s.stats.fail(fmt.Errorf("a loop: the target leads back to the proxy (%s is a connection to it)", from))
		return looped, false
	}
	client := from.Addr()
	if c.Clients != nil && !slices.ContainsFunc(c.Clients, func(p netip.Prefix) bool { return p.Contains(client) }) {
		return notAllowed, false
	}
	if c.MaxPerClient > 0 && !s.clients.enter(client, c.MaxPerClient) {
		return tooManyClient, false
	}
	if s.stats.sessions.Add(1) > int64(c.MaxSessions) && !room() {
		s.left(client, c.MaxPerClient > 0)
		return tooMany, false
	}
	s.stats.total.Add(1)
	return 0, true
}

// noRoom is for TCP: new connections are refused, and no others are ended for them.
func noRoom() bool { return false }

// left stops counting a session. perClient says whether it was counted for its client.
func (s *Service) left(client netip.Addr, perClient bool) {
	s.stats.sessions.Add(-1)
	s.leftClient(client, perClient)
}

func (s *Service) leftClient(client netip.Addr, perClient bool) {
	if perClient {
		s.clients.leave(client)
	}
}

func (s *Service) refuse(why refusal) { s.stats.refused[why].Add(1) }

// aim sets the target. Open sessions keep their targets.
func (s *Service) aim(p *config.Proxy) {
	before := s.targets.Swap(newTargets(p, s))
	if before != nil {
		before.close()
	}
}

// unfit logs the addresses of a name that are not used. It is called when they change.
func (s *Service) unfit(answers []string) {
	err := fmt.Errorf("answers for %s that are not used: %s", s.config.Load().Target.Name, strings.Join(answers, ", "))
	s.stats.fail(err)
	s.server.journal.add(fmt.Sprintf("proxy %s: %v", s.name, err))
}

// changed tells the loops that the configuration or the target's addresses have changed.
func (s *Service) changed() {
	for _, l := range s.server.loops {
		l.post(func() {
			for _, list := range s.in(l).idle {
				list.reset(s.config.Load().IdleTimeout)
			}
		})
	}
}

// Status returns what the service has done so far.
func (s *Service) Status() Status {
	status := s.stats.status()
	status.Name, status.Proxy, status.Draining = s.name, s.config.Load().String(), s.removed.Load()
	status.Targets = []string{}
	for _, a := range s.targets.Load().addresses() {
		status.Targets = append(status.Targets, a.String())
	}
	return status
}
