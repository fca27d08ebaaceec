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

// Service is one proxy of the configuration. It lives on while its sessions do.
type Service struct {
	name    string
	proto   uint8
	config  atomic.Pointer[config.Proxy]
	stats   stats
	clients clients
	targets atomic.Pointer[targets]
	server  *Server
	first   hop                 // of clients that come from elsewhere
	ranks   [ranks]atomic.Int64 // UDP sessions of each, with those that are being opened
	removed atomic.Bool         // no longer in the configuration

	mu    sync.Mutex
	loops map[*loop]*served
}

// served is a loop's part of a service; only the loop touches it.
type served struct {
	idle     [ranks]*idlers      // UDP; TCP with an idle timeout, which is proven
	evicting [ranks]atomic.Int64 // UDP sessions that it is asked to end
	counted  bool                // the session that is ending is counted out already
}

// in is the loop's part; it is made when it is asked for first.
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

// hop is the next step of a client's way.
func (s *Service) hop(before *hop) *hop {
	if before == nil {
		return &s.first
	}
	return &hop{s, before}
}

// admit counts a new session in, or says why it is refused. Where there are as many as there may be, room may end one.
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

// noRoom is for connections: they are refused rather than others ended.
func noRoom() bool { return false }

// left counts a session out; perClient tells whether it was counted for its client.
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

// aim sets the target; sessions that are open keep theirs.
func (s *Service) aim(p *config.Proxy) {
	before := s.targets.Swap(newTargets(p, s))
	if before != nil {
		before.close()
	}
}

// unfit tells of a name's answers that are not used; it is called when they are others than before.
func (s *Service) unfit(answers []string) {
	err := fmt.Errorf("answers for %s that are not used: %s", s.config.Load().Target.Name, strings.Join(answers, ", "))
	s.stats.fail(err)
	s.server.journal.add(fmt.Sprintf("proxy %s: %v", s.name, err))
}

// changed tells the loops of another configuration, or of other addresses of the target.
func (s *Service) changed() {
	for _, l := range s.server.loops {
		l.post(func() {
			for _, list := range s.in(l).idle {
				list.reset(s.config.Load().IdleTimeout)
			}
		})
	}
}

// Status is what the service did so far.
func (s *Service) Status() Status {
	status := s.stats.status()
	status.Name, status.Proxy, status.Draining = s.name, s.config.Load().String(), s.removed.Load()
	status.Targets = []string{}
	for _, a := range s.targets.Load().addresses() {
		status.Targets = append(status.Targets, a.String())
	}
	return status
}
