package proxy

import (
	"sync"
	"sync/atomic"
	"time"
)

// A refusal is a reason not to serve a client.
type refusal int

// The refusals, in the order in which status names them.
const (
	notAllowed    refusal = iota // not in src_ip
	tooMany                      // max_sessions of the proxy
	tooManyClient                // max_per_client
	exhausted                    // out of descriptors or memory
	unreachable                  // no connection to the target
	looped                       // the connection has passed this proxy before
	refusals
)

var refusalNames = [refusals]string{"src_ip", "max_sessions", "max_per_client", "out of descriptors",
	"target unreachable", "loop"}

// stats are the figures that status shows for a service. A reload does not reset them.
type stats struct {
	sessions atomic.Int64  // open now
	total    atomic.Uint64 // so far
	up, down atomic.Uint64 // bytes from clients to the target and back
	refused  [refusals]atomic.Uint64
	evicted  atomic.Uint64 // UDP sessions ended to make room
	dropped  atomic.Uint64 // lost or discarded datagrams

	mu        sync.Mutex
	lastError string
	errorTime time.Time
}

func (s *stats) fail(err error) {
	s.mu.Lock()
	s.lastError, s.errorTime = err.Error(), time.Now()
	s.mu.Unlock()
}

// Status is a proxy in the output of `status --json`.
type Status struct {
	Name      string            `json:"name"`
	Proxy     string            `json:"proxy"` // "tcp 0.0.0.0:443 → [2001:db8::1]:443"
	Draining  bool              `json:"draining,omitempty"`
	Sessions  int64             `json:"sessions"`
	Total     uint64            `json:"total"`
	BytesUp   uint64            `json:"bytes_up"`   // from clients to the target
	BytesDown uint64            `json:"bytes_down"` // to clients
	Refused   map[string]uint64 `json:"refused,omitempty"`
	Evicted   uint64            `json:"evicted,omitempty"` // UDP sessions ended to make room
	Dropped   uint64            `json:"dropped,omitempty"` // UDP datagrams
	Targets   []string          `json:"targets"`           // addresses in use
	LastError string            `json:"last_error,omitempty"`
	ErrorTime *time.Time        `json:"last_error_time,omitempty"`
}

func (s *stats) status() Status {
	status := Status{Sessions: s.sessions.Load(), Total: s.total.Load(), BytesUp: s.up.Load(), BytesDown: s.down.Load(),
		Evicted: s.evicted.Load(), Dropped: s.dropped.Load()}
	for i := range s.refused {
		if n := s.refused[i].Load(); n > 0 {
			if status.Refused == nil {
				status.Refused = map[string]uint64{}
			}
			status.Refused[refusalNames[i]] = n
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lastError != "" {
		at := s.errorTime
		status.LastError, status.ErrorTime = s.lastError, &at
	}
	return status
}
