package config

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/ds4relay/ds4relay/internal/message"
)

const (
	// longestLoop is the greatest number of proxies in a loop that is found here. At run time the service stops longer
	// loops, and loops through names.
	longestLoop = 8
	// loopSteps bounds the search.
	loopSteps = 100000
)

// loops finds proxies whose clients reach the same proxy again through others.
type loops struct {
	proxies []*Proxy
	steps   int
}

// loops reports proxies whose targets lead back to them.
func (r *reader) loops() {
	search := loops{r.config.Proxies, loopSteps}
	listened := map[netip.Addr]bool{}
	for _, p := range r.config.Proxies {
		for _, l := range p.Listen {
			listened[l.Addr] = true
		}
	}
	for _, p := range r.config.Proxies {
		if !listened[p.Target.Addr] && !p.Target.Addr.IsLoopback() {
			continue
		}
		for _, l := range p.Listen {
			if way := search.from(p, l); len(way) > 0 {
				r.problems.add(r.at(r.lineOf(p, "target"), fmt.Sprintf("proxy %q", p.Section), "target",
					p.Target.String(),
					message.New("leads back to what it listens on (%s) "+
						"by way of proxy %s; allowed is another address or port", l, strings.Join(way, ", "))))
				break
			}
		}
	}
}

// from names the proxies through which a client of l reaches the same port of l again.
func (s *loops) from(p *Proxy, l Listen) []string {
	for port := int(l.First); port <= int(l.Last) && s.steps > 0; port++ {
		at := netip.AddrPortFrom(p.Target.Addr, p.Target.PortFor(l, uint16(port)))
		var way []string
		for len(way) < longestLoop {
			next, by := s.listening(p.Proto, at)
			if next == nil {
				break
			}
			if next == p && by == l && int(at.Port()) == port {
				return way
			}
			way = append(way, fmt.Sprintf("%q", next.Section))
			at = netip.AddrPortFrom(next.Target.Addr, next.Target.PortFor(by, at.Port()))
		}
	}
	return nil
}

// listening returns the proxy that listens on an address of this machine, or nil.
func (s *loops) listening(proto uint8, addr netip.AddrPort) (*Proxy, Listen) {
	for _, p := range s.proxies {
		if p.Proto != proto {
			continue
		}
		for _, l := range p.Listen {
			if s.steps--; s.steps < 0 {
				return nil, Listen{}
			}
			if l.takes(addr) {
				return p, l
			}
		}
	}
	return nil, Listen{}
}
