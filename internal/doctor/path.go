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
	if p.Role == config.VPS {
		return failed(evidence, "the prefix of the home may have changed: `ds4relay status` on the router names its "+
			"endpoint, which has to be %s (else correct option peeraddr here, then run `ds4relay up`); it has to be "+
			"up; then run `ds4relay doctor` there", p.path.Peer)
	}
	return failed(evidence, "at the VPS run `ds4relay status`: its endpoint has to be %s (else correct option "+
		"peeraddr here), and it has to be up; then `ds4relay doctor` there", p.path.Peer)
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
	switch {
	case p.Role == config.Router && p.sys().OpenWrt:
		remedy = message.New("option ip6addr has to lie in the prefix that the provider delegates to this router " +
			"(`ifstatus wan6`: ipv6-prefix), and peeraddr at the VPS has to be the same")
	case p.Role == config.Router:
		remedy = message.New("leave out option ip6addr, or write a prefix that %s has (`ip -6 address show dev %s`) or "+
			"that is routed here; then run `ds4relay up`, and write the endpoint that `ds4relay status` prints here into "+
			"option peeraddr at the VPS; else take transport wireguard at both ends", p.path.Uplink, p.path.Uplink)
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

// testable reports whether testPacket makes packets of a protocol: it does not know DCCP.
func testable(proto uint8) bool {
	switch proto {
	case packet.TCP, packet.UDP, packet.UDPLite, packet.SCTP:
		return true
	}
	return !config.HasPorts(proto)
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
	case packet.UDPLite:
		return packet.MakeUDPLite(from, dst, ttl, fill(28))
	case packet.SCTP:
		return packet.MakeSCTPInit(from, dst, ttl, max(size-52, 0)&^3)
	case packet.ICMP:
		return packet.MakeEcho(client, to, ttl, id, 1, max(size-28, 8))
	}
	return packet.Make4(client, to, proto, ttl, make([]byte, max(size-20, 8)))
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

// clientInside returns the client's address inside the tunnel: a home without ds4relay sees the VPS's instead.
func (p *patient) clientInside(f *config.Forward) netip.Addr {
	if p.WireGuard.Plain {
		return config.PlainAddr
	}
	return clientOf(f)
}

// lone is a relay alone, for which packets are made.
func lone(r *config.Relay) *patient {
	return &patient{Doctor: &Doctor{config: &config.Config{Relays: []*config.Relay{r}}}, Relay: r}
}

// entry is what a packet through the tunnel is made of, for a forward of each host.
type entry struct {
	entrance
	forward *config.Forward
}

// entries has at least one item, and one for each of the first hosts: the other end may have other forwards.
func (p *patient) entries() []entry {
	const most = 3
	var list []entry
	for _, f := range p.Forwards {
		if len(list) == most || slices.ContainsFunc(list, func(e entry) bool { return e.forward.DestIP == f.DestIP }) {
			continue
		}
		if e, ok := p.entryOf(f); ok {
			list = append(list, e)
		}
	}
	if len(list) == 0 {
		list = append(list, entry{entrance{proto: packet.ICMP}, p.Forwards[0]})
	}
	return list
}

// entryOf returns the entry of a forward; not ok if keep and other forwards leave nothing of it.
func (p *patient) entryOf(f *config.Forward) (e entry, ok bool) {
	for _, m := range f.Mappings() {
		if free, _ := p.entrances(f, m); len(free) > 0 {
			return entry{free[0], f}, true
		}
	}
	return entry{entrance{proto: packet.ICMP}, f}, false
}

// probe sends a Knock of size bytes (0: a small one) through the tunnel.
func (p *patient) probe(size int, follow bool) probing {
	if p.via.forward == nil {
		p.via = p.entries()[0]
	}
	carrier := p.carrier()
	knock := p.knockBy(p.via, p.nextPort(), size)
	from, to := knock.from, knock.to
	answer := func(s Sighting) bool { return knock.Answers(&s) }
	own := func(s Sighting) bool { // the outer packet; of WireGuard any one
		return s.Out && carrier.Sends(&s.Packet) && (p.Transport == config.WireGuard || s.Src == from && s.Dst == to)
	}
	refusal := func(s Sighting) bool { return !s.Out && carrier.Refused(&s.Packet) }
	arrived := func(s Sighting) bool { return !s.Out && carrier.Receives(&s.Packet) }
	t := Trial{Into: p.Device, Packets: [][]byte{knock.Packet}, Wait: probeTime,
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
				p.prober.Try(Trial{Into: t.Into, Packets: [][]byte{end}, Match: t.Match, Done: t.Done})
			}
		case own(s):
			result.out++
		case refusal(s):
			result.refused = &result.seen.Sightings[i]
			result.mtu = max(result.mtu, s.MTU)
		case arrived(s):
			result.in++
			if knock.answeredBy(&s) {
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
	silent := !t.answered && t.out > 0 && t.back == 0 && t.refused == nil
	if silent {
		first := p.via
		for _, p.via = range p.entries() {
			if other := p.via.forward != first.forward && p.probe(0, false).answered; other {
				t.answered, silent = true, false
				break
			}
		}
		if silent {
			p.via = first
		}
	}
	p.passes, p.blocked = t.answered, !t.answered
	tried := false
	if silent && p.Role == config.Router && p.sys().IPv4Default {
		var f *Finding
		if f, tried = p.tunnelByLine(); f != nil {
			return *f
		}
	}
	if p.passes {
		return ok("a packet through %s came back from %s", p.Device, p.otherEnd())
	}
	arrives := silent && p.arrives()
	filter := message.New("allow IP protocol 4 (IPv4 in IPv6) between %s and %s in the firewalls of both providers "+
		"(the VPS's control panel; at home the modem, or the provider's router, such as a FRITZ!Box: IPv6 exposed host), "+
		"or take transport wireguard at both ends", p.path.Local, p.path.Peer)
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
				drop.name()), drop.allow(p.opening().Anywhere().Outwards().Nft()))
		}
		return failed(message.New("no packet out: what goes into the tunnel does not leave this machine"),
			"look at `ip -6 route get %s`, and run `ds4relay up`", p.path.Peer)
	case t.back > 0:
		if drop := dropped(t.seen.Verdicts); drop != nil {
			return NewFinding(Failed, message.New("packets of the tunnel arrive, and this machine's firewall drops "+
				"them (%s)", drop.name()),
				drop.allow(p.opening().Anywhere().Nft()))
		}
		return failed(message.New("packets of the tunnel arrive on %s, and do not come out of %s", p.path.Uplink,
			p.Device), "run `ds4relay down` and `ds4relay up`")
	case arrives && tried:
		return failed(message.New("packets of the tunnel arrive at %s, and no answer comes back", p.otherEnd()),
			"%s, and run `ds4relay doctor` at the other end", filter)
	case arrives && p.Role == config.Router: // the VPS may have sent the answer to another home
		return warning(message.New("packets of the tunnel arrive at %s, and no answer comes back", p.otherEnd()),
			"nothing, if clients get through: another home of the VPS may have the same addresses; else compare the "+
				"forwards of both ends (option dest_ip), and %s", filter)
	case arrives:
		return failed(message.New("packets of the tunnel arrive at %s, and no answer comes back", p.otherEnd()),
			"compare the forwards of both ends: option dest_ip has to name the same hosts; if it does, run `ds4relay "+
				"doctor` there, and %s", filter)
	case t.in > 0:
		return failed(message.New("packets of the tunnel arrive from %s, but no answer to what goes out: it is lost "+
			"on the way there", p.otherEnd()),
			"%s, and run `ds4relay doctor` at the other end", filter)
	}
	nothing := message.New("no packet in: %d went out to %s, nothing of protocol 4 comes back (since %s is up: %d "+
		"packets)", t.out, p.path.Peer, p.Device, p.path.RxPackets)
	if p.Role == config.Router {
		return failed(nothing, "at the VPS option peeraddr has to be %s: the prefix of this home may have changed "+
			"(correct it there, then run `ds4relay up`); if it is, %s, and run `ds4relay doctor` there", p.path.Local,
			filter)
	}
	return failed(nothing, "%s, and run `ds4relay doctor` at the other end: it tells whether packets arrive there",
		filter)
}

// tunnelByLine connects to the public address over this router's own line. If homes of the VPS have equal addresses,
// its errors about a probe may go to another home. If its forwards have other hosts, this shows it. nil means that
// nothing came, although something was sent if tried is true.
func (p *patient) tunnelByLine() (f *Finding, tried bool) {
	for i, w := range p.lines() {
		if i == 2 { // each may take as long as lineTime
			break
		}
		l := p.dial(w)
		tried = tried || l.own != nil && l.own.Device != p.Device
		var f Finding
		switch {
		case l.arrived != nil:
			p.blocked = false
			f = ok("what is sent to %s over this router's own line comes in by %s", p.IPAddr, p.Device)
		case l.outer != nil && !slices.ContainsFunc(p.Forwards, func(f *config.Forward) bool {
			return f.DestIP == l.outer.Dst
		}):
			f = failed(message.New("the VPS sends packets to %s by the tunnel, and no forward here has that host",
				l.outer.Dst), "write the same address into option dest_ip at both ends, then run `ds4relay up` there")
		default:
			continue
		}
		return &f, true
	}
	return nil, tried
}

// arrives reports whether the other end gets packets of protocol 4, whatever its forwards are. They have a destination
// option that is unknown to it, so it answers with an error (RFC 8200 §4.2).
func (p *patient) arrives() bool {
	carrier, says := p.carrier(), func(s Sighting) bool {
		return !s.Out && s.Src == p.path.Peer && s.Dst == p.path.Local && s.Proto == packet.ICMPv6 &&
			s.Type == packet.Parameter6
	}
	data := carrier.(transport.IPIP6).Puzzle(packet.MakeEcho(p.via.forward.DestIP, Nowhere, 1, p.nextPort(), 1, 8))
	seen := p.prober.Try(Trial{Packets: [][]byte{data}, Wait: probeTime, Match: says, Done: says})
	return len(seen.Sightings) > 0
}

// measured is what to do about an MTU that each end finds by itself.
func measured(size int) *message.Text {
	return message.New("wait, if `ds4relay watch` runs each minute at both ends: with mtu auto it lowers the tunnel's "+
		"MTU to what passes, and tries larger packets again once an hour; else set option mtu '%d' in the relay's "+
		"section at both ends, then run `ds4relay up` there", size)
}

func (p *patient) mtu() Finding {
	mtu := p.path.MTU
	if !p.passes && !p.probe(0, false).answered {
		return skipped("no packet through the tunnel is answered")
	}
	lost := func(what *message.Text, size int) Finding {
		evidence := message.New("packets of %d bytes %s are lost and nothing says so; %d pass", mtu, what, size)
		if p.MTU == 0 {
			return NewFinding(Failed, evidence, measured(size))
		}
		if p.Transport == config.WireGuard {
			return failed(evidence, "set option mtu '%d' in the relay's section at both ends, then run `ds4relay up` "+
				"there", size)
		}
		return failed(evidence, "set option mtu '%d' in the relay's section at both ends, then run `ds4relay up` "+
			"there; or let ICMPv6 \"packet too big\" through on the way", size)
	}
	if p.Transport == config.WireGuard {
		return p.mtuOfWireGuard(lost)
	}
	learnt := p.path.LearntMTU
	there := mtu
	if learnt == 0 || learnt-p.carrier().Overhead() >= mtu {
		there = largest(mtu, func(size int) bool { return p.passesWith(size, &learnt) })
	}
	if inner := learnt - p.carrier().Overhead(); learnt > 0 && inner < mtu {
		evidence := message.New("the path carries %d bytes, the tunnel has an MTU of %d: large datagrams may be lost",
			inner, mtu)
		if p.MTU == 0 {
			return NewFinding(Warning, evidence, measured(inner))
		}
		return warning(evidence, "set option mtu '%d' in the relay's section, then run `ds4relay up`", inner)
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

// passesWith reports whether a packet of a size is answered, and notes the MTU that an error names.
func (p *patient) passesWith(size int, learnt *int) bool {
	for range 2 {
		t := p.probe(size, false)
		if t.mtu > 0 {
			*learnt = t.mtu
		}
		if t.answered {
			return true
		}
	}
	return false
}

// carrier returns the relay's tunnel as it should be. A VPS's tunnel of WireGuard has no fixed other end.
func (p *patient) carrier() transport.Tunnel {
	return state.TunnelOf(p.Relay, p.path.Local, p.path.Peer)
}

// opening is what the relay's tunnel of IPIP6 needs let in.
func (p *patient) opening() transport.Opening { return p.carrier().(transport.IPIP6).Opening() }

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
