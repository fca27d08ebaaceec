package proxy

import (
	"net/netip"
	"sync"
)

// clients counts the sessions of each client.
type clients struct {
	mu     sync.Mutex
	counts map[netip.Addr]int
}

// clientKey returns an IPv4 address, or the /64 of an IPv6 address: its user usually has all of it.
func clientKey(a netip.Addr) netip.Addr {
	if a.Is4() {
		return a
	}
	network, _ := a.WithZone("").Prefix(64)
	return network.Addr()
}

// enter counts a session; it returns false if the client already has limit sessions.
func (c *clients) enter(a netip.Addr, limit int) bool {
	key := clientKey(a)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = map[netip.Addr]int{}
	}
	if c.counts[key] >= limit {
		return false
	}
	c.counts[key]++
	return true
}

func (c *clients) leave(a netip.Addr) {
	key := clientKey(a)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts[key]--; c.counts[key] <= 0 {
		delete(c.counts, key)
	}
}
