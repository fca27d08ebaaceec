package main

import (
	"net/netip"
	"slices"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/packet"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// answerers tells whether answers of a public address come from the home: the VPS itself answers pings that no forward
// takes.
type answerers struct {
	relays []*config.Relay // of this machine
	before []uint64        // what had come out of their tunnels, see outOfTunnel
}

// answerers reads the configuration, if there is one, and the tunnels' counters before the first ping.
func (a *app) answerers() answerers {
	var w answerers
	if c, _, err := config.Load(a.path, a.defaults()); err == nil {
		w.relays = c.Relays
	}
	for _, r := range w.relays {
		counters, _ := kernel.LinkCounters(r.Device) // 0 if it is not up
		w.before = append(w.before, outOfTunnel(r, &counters))
	}
	return w
}

// outOfTunnel is the number of packets that came out of a tunnel. Those of WireGuard also have keepalives and
// handshakes among them, so it is how many echoes fit into their bytes.
func outOfTunnel(r *config.Relay, c *kernel.Counters) uint64 {
	const echo = 84 // bytes, as ping sends it
	if r.Transport == config.WireGuard {
		return c.RxBytes / uint64(transport.Padded(echo, transport.DefaultPathMTU))
	}
	return c.RxPackets
}

// home returns an error if the home has not sent so many answers. known is false if the address is not one of this
// machine's relays: no packet shows who has answered.
func (w answerers) home(addr netip.Addr, answers int) (known bool, err error) {
	echo := func(s config.PortSet) bool { return s.Contains(packet.ICMP, 0) }
	taken := false
	var through uint64 // both an echo request to a router and an answer to a VPS come out of the tunnel
	for i, r := range w.relays {
		if !r.Has(addr) || !r.Enabled {
			continue
		}
		known = true
		for _, f := range r.Forwards {
			taken = taken || !slices.ContainsFunc(r.Keep, echo) && (f.All || slices.ContainsFunc(f.Ports, echo))
		}
		if counters, err := kernel.LinkCounters(r.Device); err == nil {
			now := outOfTunnel(r, &counters)
			through += now - min(w.before[i], now)
		}
	}
	switch {
	case !known:
	case !taken:
		err = message.New("the VPS itself has answered for %s, not the home: no forward takes ICMP", addr)
	case through < uint64(answers):
		err = message.New("the home has not answered for %s: fewer packets came through the tunnel than answers (%d "+
			"of %d)", addr, through, answers)
	}
	return known, err
}
