package doctor

import (
	"net/netip"
	"slices"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/packet"
	"github.com/ds4relay/ds4relay/internal/state"
	"github.com/ds4relay/ds4relay/internal/transport"
)

const (
	smallPing  = 96 // bytes of an echo request
	minIPv6MTU = 1280
	minIPv4MTU = 576 // what is tried at least

	// probeTime covers a round trip around the world and a busy machine. Kernels limit errors to one a second, so a
	// second try after this time is answered.
	probeTime = time.Second
)

// Addresses of test packets. TestClient is in TEST-NET-1 (RFC 5737): nobody has it. Nowhere is IPv4's dummy address
// (RFC 7600): a packet to it whose hop limit is exceeded comes back as an error.
var (
	TestClient = netip.MustParseAddr("192.0.2.53")
	Nowhere    = netip.MustParseAddr("192.0.0.8")
)

func (p *patient) otherEnd() *message.Text {
	if p.Role == config.VPS {
		return message.New("the router at home")
	}
	return message.New("the VPS")
}

func (p *patient) peer() Finding {
	if p.path.Uplink == "" {
		return failed(message.New("this machine has no IPv6 route to %s", p.path.Peer),
			"bring the IPv6 line up first: `ip -6 route get %s` has to name a device", p.path.Peer)
	}
	pong := p.prober.Ping(netip.Addr{}, p.path.Peer, smallPing)
	if pong.Answered {
		return ok("%s answers ping over %s", p.path.Peer, p.path.Uplink)
	}
	if t := p.probe(0, false); t.answered {
		return ok("%s does not answer ping, but packets through the tunnel come back", p.path.Peer)
	} else if t.fromPeer() {
		return ok("%s does not answer ping, but refuses a packet of the tunnel", p.path.Peer)
	}
	p.blocked = true
	evidence := message.New("%s does not answer ping", p.path.Peer)
	if pong.Error != nil {
		evidence = message.New("%s does not answer ping: %s", p.path.Peer, pong.Error)
	}
	return failed(evidence, "at %s run `ds4relay status`: its endpoint has to be %s (else correct option peeraddr "+
		"here), and it has to be up; then `ds4relay doctor` there", p.otherEnd(), p.path.Peer)
}

func (p *patient) routed() Finding {
	if !p.prober.Ping(netip.Addr{}, p.path.Peer, smallPing).Answered {
		return skipped("%s does not answer ping, so that it cannot tell", p.path.Peer)
	}
	pong := p.prober.Ping(p.path.Local, p.path.Peer, smallPing)
	if pong.Answered {
		return ok("%s answers also to %s", p.path.Peer, p.path.Local)
	}
	remedy := message.New("take an address that is routed to this machine for option ip6addr (one that the provider " +
		"has given to it), and the same for peeraddr at the other end")
	if p.Role == config.Router {
		remedy = message.New("option ip6addr has to lie in the prefix that the provider delegates to this router " +
			"(`ifstatus wan6`: ipv6-prefix), and peeraddr at the VPS has to be the same")
	}
	return NewFinding(Failed, message.New("%s answers to this machine's own address, but not to the endpoint %s: %s",
		p.path.Peer, p.path.Local,
		either(pong.Error, message.New("answers to it do not arrive"))), remedy)
}

func either(text, other *message.Text) *message.Text {
	if text == nil {
		return other
	}
	return text
}

// probing is the result of a packet that was put into the tunnel with a hop limit that ends at the machine behind it.
type probing struct {
	patient  *patient
	seen     Seen
	out, in  int // packets of the tunnel that left this machine, and that came to it
	back     int // of these, those that seem to be the answer
	answered bool
	refused  *Sighting // an ICMPv6 error about the outer packet
	mtu      int       // in bytes of the outer packet, from an error about the size
}

// testPacket returns a client's packet to an address and port. size 0 means the smallest size.
func (p *patient) testPacket(proto uint8, client, to netip.Addr, port, id uint16, ttl uint8, size int) []byte {
	from, dst := netip.AddrPortFrom(client, id), netip.AddrPortFrom(to, port)
	fill := func(header int) []byte { return make([]byte, max(size-header, 0)) }
	switch proto {
	case packet.TCP:
		return packet.MakeTCP(from, dst, packet.SYN, ttl, 1, 0, fill(40)...)
	case packet.UDP:
		return packet.MakeUDP(from, dst, ttl, fill(28))
	case packet.ICMP:
		return packet.MakeEcho(client, to, ttl, id, 1, max(size-28, 8))
	}
	return packet.Make4(client, to, proto, ttl, fill(20))
}

// clientOf returns a client that may use the forward.
func clientOf(f *config.Forward) netip.Addr {
	if len(f.Clients) == 0 {
		return TestClient
	}
	if c := f.Clients[0]; c.Bits() < 31 {
		return c.Masked().Addr().Next()
	}
	return f.Clients[0].Addr()
}

// protoOf returns the protocol for testing a forward, and the ports before and after DNAT: the first that the VPS does
// not keep for itself.
func (p *patient) protoOf(f *config.Forward) (proto uint8, public, host uint16) {
	if f.All {
		return packet.ICMP, 0, 0
	}
	mappings := f.Mappings()
	best := slices.IndexFunc(mappings, func(m config.Mapping) bool { return m.Public.Proto == packet.TCP })
	if best < 0 {
		best = max(0, slices.IndexFunc(mappings, func(m config.Mapping) bool { return m.Public.Proto == packet.ICMP }))
	}
	m := mappings[best]
	public, host = m.Public.First, m.Port
	keeps := func(s config.PortSet) bool { return s.Contains(m.Public.Proto, public) }
	for public < m.Public.Last && slices.ContainsFunc(p.Keep, keeps) {
		public, host = public+1, host+1
	}
	return m.Public.Proto, public, host
}

// probe sends a Knock of size bytes (0: a small one) through the tunnel.
func (p *patient) probe(size int, follow bool) probing {
	carrier := p.carrier()
	knock := NewKnock(p.Relay, p.Forwards[0], p.nextPort(), size)
	from, to := knock.from, knock.to
	answer := func(s Sighting) bool { return knock.Answers(&s) }
	own := func(s Sighting) bool { // the outer packet, or an error about it
		return s.Out && s.Src == from && s.Dst == to && carrier.Sends(&s.Packet)
	}
	refusal := func(s Sighting) bool { return !s.Out && carrier.Refused(&s.Packet) }
	arrived := func(s Sighting) bool { return !s.Out && carrier.Receives(&s.Packet) }
	t := Trial{Into: p.Device, Packet: knock.Packet, Wait: probeTime,
		Match: func(s Sighting) bool { return answer(s) || own(s) || refusal(s) || arrived(s) },
		Done:  func(s Sighting) bool { return answer(s) || refusal(s) && s.Type != packet.TooBig6 }}
	if follow {
		t.Follow = from
	}
	result := probing{patient: p, seen: p.prober.Try(t)}
	for i, s := range result.seen.Sightings {
		switch {
		case answer(s):
			result.answered = true
			if end := knock.HangUp(&s); end != nil {
				p.prober.Try(Trial{Into: t.Into, Packet: end, Match: t.Match, Done: t.Done})
			}
		case own(s):
			result.out++
		case refusal(s):
			result.refused = &result.seen.Sightings[i]
			result.mtu = max(result.mtu, s.MTU)
		case arrived(s):
			result.in++
			if s.Dst == from {
				result.back++
			}
		}
	}
	return result
}

func (t probing) fromPeer() bool { return t.refused != nil && t.refused.Src == t.patient.path.Peer }

func (t probing) error() *message.Text {
	if t.refused == nil {
		return nil
	}
	return message.New("%s says: %s", t.refused.Src, t.refused.Refusal())
}

func (p *patient) tunnel() Finding {
	t := p.probe(0, false)
	if !t.answered && t.seen.Err == nil && t.refused == nil { // the first packet may wait for a neighbour
		t = p.probe(0, true)
	}
	p.passes, p.blocked = t.answered, !t.answered
	if p.Role == config.Router && !t.answered && t.out > 0 && t.back == 0 && t.refused == nil && p.sys().IPv4Default {
		// If homes of the VPS have equal addresses, its errors may go to another home.
		if f, target, err := p.asClient(); f != nil && err == nil {
			p.blocked = false
			return ok("%s answers over this router's own line, and so by %s", target, p.Device)
		}
	}
	if p.passes {
		return ok("a packet through %s came back from %s", p.Device, p.otherEnd())
	}
	filter := message.New("allow IP protocol 4 (IPv4 in IPv6) between %s and %s in the firewalls of both providers "+
		"(the VPS's control panel, the home's modem)",
		p.path.Local, p.path.Peer)
	switch {
	case t.seen.Err != nil:
		return failed(message.New("no packet goes into the tunnel: %v", t.seen.Err), "run `ds4relay up`")
	case t.fromPeer():
		return failed(message.New("packets arrive at %s, which refuses them: %s", p.otherEnd(), t.error()),
			"at %s peeraddr has to be %s and protocol 4 has to be let in: run `ds4relay up` and `ds4relay doctor` "+
				"there", p.otherEnd(), p.path.Local)
	case t.refused != nil:
		return failed(message.New("packets of the tunnel are refused on the way: %s", t.error()),
			"%s, then run `ds4relay doctor` at the other end", filter)
	case t.out == 0:
		if drop := dropped(t.seen.Verdicts); drop != nil {
			return NewFinding(Failed, message.New("no packet out: this machine's firewall drops protocol 4 (%s)",
				drop.name()), drop.allow(p.carrier().Opening().Anywhere().Outwards().Nft()))
		}
		return failed(message.New("no packet out: what goes into the tunnel does not leave this machine"),
			"look at `ip -6 route get %s`, and run `ds4relay up`", p.path.Peer)
	case t.back > 0:
		if drop := dropped(t.seen.Verdicts); drop != nil {
			return NewFinding(Failed, message.New("packets of the tunnel arrive, and this machine's firewall drops "+
				"them (%s)", drop.name()),
				drop.allow(p.carrier().Opening().Anywhere().Nft()))
		}
		return failed(message.New("packets of the tunnel arrive on %s, and do not come out of %s", p.path.Uplink,
			p.Device), "run `ds4relay down` and `ds4relay up`")
	case t.in > 0:
		return failed(message.New("packets of the tunnel arrive from %s, but no answer to what goes out: it is lost "+
			"on the way there", p.otherEnd()),
			"%s, and run `ds4relay doctor` at the other end", filter)
	}
	return failed(message.New("no packet in: %d went out to %s, nothing of protocol 4 comes back (since %s is up: %d "+
		"packets)", t.out, p.path.Peer, p.Device, p.path.RxPackets),
		"%s, and run `ds4relay doctor` at the other end: it tells whether packets arrive there", filter)
}

func (p *patient) mtu() Finding {
	mtu := p.path.MTU
	if !p.passes && !p.probe(0, false).answered {
		return skipped("no packet through the tunnel is answered")
	}
	lost := func(what *message.Text, size int) Finding {
		return failed(message.New("packets of %d bytes %s are lost and nothing says so; %d pass", mtu, what, size),
			"set option mtu '%d' in the relay's section at both ends, then run `ds4relay up` there; or let ICMPv6 "+
				"\"packet too big\" through on the way", size)
	}
	learnt := p.path.LearntMTU
	there := mtu
	if learnt == 0 || learnt-p.carrier().Overhead() >= mtu {
		there = largest(mtu, func(size int) bool {
			for range 2 {
				t := p.probe(size, false)
				if t.mtu > 0 {
					learnt = t.mtu
				}
				if t.answered {
					return true
				}
			}
			return false
		})
	}
	if inner := learnt - p.carrier().Overhead(); learnt > 0 && inner < mtu {
		return warning(message.New("the path carries %d bytes, the tunnel has an MTU of %d: large datagrams may be "+
			"lost", inner, mtu),
			"set option mtu '%d' in the relay's section, then run `ds4relay up`", inner)
	}
	if there < mtu {
		return lost(message.New("to %s", p.otherEnd()), there)
	}
	if !p.prober.Ping(p.path.Local, p.path.Peer, smallPing).Answered {
		return ok("%d bytes pass to %s (it does not answer ping, which would measure the way back)", mtu, p.otherEnd())
	}
	back := largest(mtu, func(size int) bool {
		return p.prober.Ping(p.path.Local, p.path.Peer, size+transport.OuterHeader).Answered
	})
	if back < mtu {
		return lost(message.New("from %s", p.otherEnd()), back)
	}
	return ok("%d bytes pass both ways", mtu)
}

// carrier returns the relay's tunnel as it should be.
func (p *patient) carrier() transport.Tunnel {
	return state.TunnelOf(p.Relay, p.path.Local, p.path.Peer)
}

// largest finds the largest size up to mtu that passes, to within eight bytes.
func largest(mtu int, passes func(size int) bool) int {
	if passes(mtu) {
		return mtu
	}
	low, high := min(minIPv6MTU-transport.OuterHeader, mtu), mtu
	if !passes(low) {
		low, high = minIPv4MTU, low
	}
	for high-low > 8 {
		if middle := (low + high) / 2; passes(middle) {
			low = middle
		} else {
			high = middle
		}
	}
	return low
}
