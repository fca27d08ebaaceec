package probe

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/alive"
	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/doctor"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/packet"
	"github.com/ds4relay/ds4relay/internal/packetio"
	"github.com/ds4relay/ds4relay/internal/state"
)

const (
	knocks     = 2               // per run: kernels limit errors to one a second
	knockTime  = time.Second     // covers a round trip around the world and a busy machine
	clientTime = 3 * time.Second // for the answer to a client
	atOnce     = 64              // relays that are probed at the same time, each with a socket
	maxFrames  = 1000            // that are read after that time: others may have waited longer
)

// listening is one relay in a run.
type listening struct {
	relay  *config.Relay
	link   *state.Link
	record *alive.Record
	knock  *doctor.Knock
	tap    *packetio.Tap
	sent   bool
	answer bool
}

// keepsOpen reports whether an end's probe has another purpose, for which it is sent each minute: a firewall in front
// of the home lets the VPS's packets in only as long as it remembers one of the home's. WireGuard has its own
// keepalive.
func keepsOpen(r *config.Relay) bool { return r.Role == config.Router && r.Transport == config.IPIP6 }

// Listen compares the relays' tunnels with the records of the last run. It probes the other ends of which nothing has
// come since, on a router over IPv6 always, and returns the records of the relays that are up. On a router it makes the
// kernel ask for the hosts.
func (m *Prober) Listen(relays []*config.Relay, last map[string]*alive.Record) (map[string]*alive.Record, error) {
	o, err := m.Kernel.Observe(state.State{})
	if err != nil {
		return last, err
	}
	now := kernel.Uptime()
	records := map[string]*alive.Record{}
	hosts := map[netip.Addr]string{}
	var quiet []*listening
	for i := range o.Links {
		link := &o.Links[i]
		for _, r := range relays {
			if r.Name != link.Relay || r.Device != link.Name {
				continue
			}
			counters, err := kernel.LinkCounters(link.Name)
			if err != nil {
				continue // somebody takes it down
			}
			record := last[r.Name]
			if record == nil {
				record = &alive.Record{}
			}
			records[r.Name] = record
			needed := record.Look(kernel.TunnelOf(link, &counters), now)
			if needed || keepsOpen(r) || r.Role == config.VPS && apart(&o, link.Name) {
				quiet = append(quiet, &listening{relay: r, link: link, record: record})
			}
			if r.Role == config.Router {
				for _, f := range r.Forwards {
					hosts[f.DestIP] = ""
				}
			}
		}
	}
	kernel.AskHosts(hosts)
	for len(quiet) > 0 {
		n := min(len(quiet), atOnce)
		probe(quiet[:n], now)
		for _, l := range quiet[:n] {
			if port, ok := doctor.Entrance(l.relay); ok && l.relay.Role == config.Router &&
				l.record.TryClient(now) {
				knockAsClient(l.relay.IPAddr, port) // whether packets come out of the tunnel counts
				l.end(now)
			}
		}
		quiet = quiet[n:]
	}
	return records, nil
}

// knockAsClient begins a connection to an address, by TCP or, with port 0, by an echo request, and waits for an answer.
func knockAsClient(to netip.Addr, port uint16) {
	d, events := doctor.Dial{Proto: packet.TCP, To: to, Port: port}, int16(unix.POLLOUT)
	if port == 0 {
		d.Proto, events = packet.ICMP, unix.POLLIN
	}
	socket, err := begin(d)
	if err != nil {
		return
	}
	defer unix.Close(socket)
	wait := []unix.PollFd{{Fd: int32(socket), Events: events}}
	for deadline := time.Now().Add(clientTime); ; {
		if _, err := unix.Poll(wait, int(max(time.Until(deadline), 0).Milliseconds())); err != unix.EINTR {
			return
		}
	}
}

// apart reports whether a home has addresses that another home of the VPS has too. The answers to its probes go to the
// other home, so it depends on the VPS's probes, even if the VPS has heard of it.
func apart(o *state.Observed, device string) bool {
	for i := range o.Routes {
		if o.Routes[i].Device == device && o.Routes[i].Table != state.MainTable {
			return true
		}
	}
	return false
}

// probe sends a packet into each tunnel, and once more where nothing comes back.
func probe(all []*listening, now int64) {
	for _, l := range all {
		l.tap, _ = packetio.OpenOn(l.relay.Device, l.record.Index) // without a tap nothing is sent
	}
	for try := range knocks {
		for _, l := range all {
			l.send(try)
		}
		deadline := time.Now().Add(knockTime)
		for _, l := range all {
			l.wait(deadline)
		}
	}
	for _, l := range all {
		if l.tap != nil {
			l.tap.Close()
		}
		l.end(now)
	}
}

// send puts the packet of a try into the tunnel: of another forward each time, because the other end may not have all.
func (l *listening) send(try int) {
	if l.answer || l.tap == nil || len(l.relay.Forwards) == 0 {
		return
	}
	const first, count = 20000, 40000 // the doctor's ports
	l.knock = doctor.NewKnock(l.relay, l.relay.Forwards[try%len(l.relay.Forwards)],
		first+uint16(time.Now().UnixMilli()%count), 0)
	l.sent = packetio.Send(l.relay.Device, l.knock.Packet) == nil || l.sent
}

// wait waits for the answer.
func (l *listening) wait(deadline time.Time) {
	for n := 0; l.sent && !l.answer && (n < maxFrames || time.Now().Before(deadline)); n++ {
		frame, ok, err := l.tap.Next(deadline)
		if err != nil || !ok {
			return
		}
		s := &doctor.Sighting{Device: frame.Device, Out: frame.Out}
		if s.Packet, ok = packet.Decode(frame.Data); !ok || !l.knock.Answers(s) {
			continue
		}
		l.answer = true
		if end := l.knock.HangUp(s); end != nil {
			_ = packetio.Send(l.relay.Device, end) // the host ends it by itself, later
		}
	}
}

// end writes down what has come.
func (l *listening) end(now int64) {
	tunnel := &l.record.Tunnel
	if c, err := kernel.LinkCounters(l.relay.Device); err == nil && c.Index == l.record.Index {
		tunnel = kernel.TunnelOf(l.link, &c)
	}
	l.record.Tried(l.sent, l.answer, tunnel, now)
}
