package proxy

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
)

// logSession writes the access log's line for a session that has ended.
func (s *Service) logSession(c *config.Proxy, from, to netip.AddrPort, took time.Duration, up, down uint64,
	why string) {
	if !c.AccessLog {
		return
	}
	target := c.Target.String()
	if to.IsValid() {
		target = to.String()
	}
	if why != "" {
		why = " (" + why + ")"
	}
	s.server.journal.add(fmt.Sprintf("proxy %s: %s → %s: %.3f s, %d bytes up, %d down%s", s.name, from, target,
		took.Seconds(), up, down, why))
}

func (s *Service) logRefusal(c *config.Proxy, from netip.AddrPort, why refusal) {
	if c.AccessLog {
		s.server.journal.add(fmt.Sprintf("proxy %s: %s refused (%s)", s.name, from, refusalNames[why]))
	}
}

// journal buffers lines from the loops, which must not wait for a slow reader of the log. Lines that do not fit are
// dropped and counted.
type journal struct {
	lines chan string
	lost  atomic.Uint64
	done  chan struct{}
}

// journalLines is the size of the buffer.
const journalLines = 4096

func newJournal(write func(string)) *journal {
	j := &journal{lines: make(chan string, journalLines), done: make(chan struct{})}
	go func() {
		defer close(j.done)
		for line := range j.lines {
			write(line)
			if lost := j.lost.Swap(0); lost > 0 {
				write(fmt.Sprintf("%d lines of the log are lost: it is read too slowly", lost))
			}
		}
	}()
	return j
}

func (j *journal) add(line string) {
	select {
	case j.lines <- line:
	default:
		j.lost.Add(1)
	}
}

// close waits until all lines are written. Nothing may be added after it.
func (j *journal) close() {
	close(j.lines)
	<-j.done
}
