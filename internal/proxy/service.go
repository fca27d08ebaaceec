package proxy

import (
	"net/netip"
	"slices"
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
	removed atomic.Bool // no longer in the configuration

	mu    sync.Mutex
	loops map[*loop]*served
}

// served is a loop's part of a service; only the loop touches it.
type served struct {
	idle     *idlers      // TCP with an idle timeout, and UDP
	evicting atomic.Int64 // UDP sessions that it is asked to end
	counted  bool         // the session that is ending is counted out already
}

// in is the loop's part; it is made when it is asked for first.
func (s *Service) in(l *loop) *served {
	s.mu.Lock()
	defer s.mu.Unlock()
	part := s.loops[l]
	if part == nil {
		part = &served{idle: newIdlers(l, s.config.Load().IdleTimeout)}
		s.loops[l] = part
	}
	return part
}

// admit counts a new session in, or says why it is refused. Where there are as many as there may be, room may end one.
func (s *Service) admit(c *config.Proxy, client netip.Addr, room func() bool) (refusal, bool) {
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
func (s *Service) aim(t config.Target) {
	before := s.targets.Swap(newTargets(t, s.server.lookup, s.stats.fail, s.changed))
	if before != nil {
		before.close()
	}
}

// changed tells the loops of another configuration, or of other addresses of the target.
func (s *Service) changed() {
	for _, l := range s.server.loops {
		l.post(func() { s.in(l).idle.reset(s.config.Load().IdleTimeout) })
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
