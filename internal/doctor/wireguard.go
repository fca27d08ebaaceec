package doctor

import (
	"net/netip"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/packet"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// How long to wait for a handshake. The kernel begins one at most every five seconds and a third (REKEY_TIMEOUT and its
// jitter, drivers/net/wireguard/messages.h), and while it has keys only if fifteen seconds bring no packet in
// (KEEPALIVE_TIMEOUT and REKEY_TIMEOUT). The other end answers what it takes after ten seconds at the latest
// (KEEPALIVE_TIMEOUT). responseTime covers a round trip around the world and a busy machine.
const (
	handshakeTime = 6 * time.Second
	renewTime     = 17 * time.Second
	keepaliveTime = 12 * time.Second
	responseTime  = time.Second
)

// peerOfWireGuard says as much about the other end as can be said without WireGuard's packets.
func (p *patient) peerOfWireGuard() Finding {
	remote := p.path.Peer
	if p.Role == config.VPS {
		if !p.path.Remote.IsValid() {
			return skipped("nothing has come from the home since %s is up; its packets tell where it is", p.Device)
		}
		remote = p.path.Remote.Addr()
	}
	if p.path.Uplink == "" {
		return failed(message.New("this machine has no route to %s", remote),
			"bring the line up first: `ip route get %s` has to name a device", remote)
	}
	if p.Role == config.VPS {
		return ok("the home was last at %s", p.path.Remote)
	}
	pong := p.prober.Ping(netip.Addr{}, remote, smallPing)
	switch {
	case pong.Answered:
		return ok("%s answers ping over %s", remote, p.path.Uplink)
	case pong.Error != nil:
		return skipped("%s does not answer ping, which WireGuard does not need: %s", remote, pong.Error)
	}
	return skipped("%s does not answer ping, which WireGuard does not need", remote)
}

// exchange is what was seen of WireGuard's packets on the wire: by their type (transport.Initiation …) how many went
// out and came in, and where from.
type exchange struct {
	probing
	sent, got     [transport.MessageTypes]int
	from          netip.AddrPort // the last one that came in
	before, after Session
}

// works reports whether a handshake was completed, or the keys of the last one are in use.
func (x *exchange) works() bool {
	return x.after.Handshake.After(x.before.Handshake) || x.fresh() && x.got[transport.Data] > 0
}

// fresh reports whether the keys of the last handshake were good when the exchange began.
func (x *exchange) fresh() bool {
	return !x.before.Handshake.IsZero() && x.before.Now.Sub(x.before.Handshake) < transport.SessionTime*time.Second
}

// observe waits for a handshake, and finds out how far it gets. A VPS that does not know where the home is can only
// listen.
func (p *patient) observe() (x exchange) {
	x.patient, x.before = p, p.prober.Session(p.Relay)
	carrier, knock := p.carrier(), p.knockBy(p.via, p.nextPort(), 0)
	t := Trial{Into: p.Device, Packets: [][]byte{knock.Packet}, Wait: handshakeTime, Longer: responseTime,
		FollowPort: p.WireGuard.Port, Key: x.before.Key}
	begun := func(s Sighting) bool { return s.Type == transport.Initiation && s.Out == (p.Role == config.Router) }
	switch {
	case p.Role == config.VPS && !x.before.Remote.IsValid():
		t.Into, t.Packets = "", nil
	case x.fresh() && p.Role == config.VPS:
		t.Wait = keepaliveTime
	case x.fresh():
		t.Wait = renewTime
	}
	outer := func(s Sighting) bool {
		return carrier.Sends(&s.Packet) && s.Out || carrier.Receives(&s.Packet) && !s.Out
	}
	refusal := func(s Sighting) bool { return !s.Out && carrier.Refused(&s.Packet) }
	t.Match = func(s Sighting) bool { return knock.Answers(&s) || outer(s) || refusal(s) }
	t.Done = func(s Sighting) bool { // a VPS may know only where the home was before
		return knock.Answers(&s) || refusal(s) && s.MTU == 0 && p.Role == config.Router
	}
	first := true
	t.More = func(s Sighting) bool { // from the first one on: they are repeated
		more := first && outer(s) && begun(s)
		first = first && !more
		return more
	}
	x.seen = p.prober.Try(t)
	for i, s := range x.seen.Sightings {
		kind := s.Type
		if kind >= transport.MessageTypes {
			kind = 0
		}
		switch {
		case knock.Answers(&s):
			x.answered = true
			if end := knock.HangUp(&s); end != nil {
				p.prober.Try(Trial{Into: p.Device, Packets: [][]byte{end}, Match: t.Match, Done: t.Done})
			}
		case refusal(s) && s.MTU == 0:
			x.refused = &x.seen.Sightings[i]
		case refusal(s):
		case s.Out:
			x.out++
			x.sent[kind]++
		default:
			x.in++
			x.got[kind]++
			x.from = netip.AddrPortFrom(s.Src, s.SrcPort)
		}
	}
	x.after = p.prober.Session(p.Relay)
	return x
}

// tunnelOfWireGuard finds out whether packets pass through the tunnel, and if not, how far WireGuard's handshake gets.
func (p *patient) tunnelOfWireGuard() Finding {
	t := p.probe(0, false)
	p.passes, p.blocked = t.answered, !t.answered
	session := p.prober.Session(p.Relay)
	lost := t.seen.Err != nil && (p.Role == config.Router || session.Remote.IsValid())
	switch {
	case t.answered:
		return p.tunnelAnswers(session)
	case lost:
		return failed(message.New("no packet goes into the tunnel: %v", t.seen.Err), "run `ds4relay up`")
	}
	x := p.observe()
	works := x.works()
	if !x.answered && works { // the home may have begun only now, or the other end has other forwards
		first := p.via
		for _, p.via = range p.entries() {
			if x.answered = p.probe(0, false).answered; x.answered {
				break
			}
		}
		if !x.answered {
			p.via = first
		}
	}
	if p.passes, p.blocked = x.answered, !x.answered; p.passes {
		return p.tunnelAnswers(x.after)
	}
	if works && p.Role == config.Router && p.sys().IPv4Default {
		if f, _ := p.tunnelByLine(); f != nil {
			return *f
		}
	}
	nothing := message.New("packets of the tunnel come from %s, but no answer to what goes through %s", p.otherEnd(),
		p.Device)
	switch {
	case works && p.WireGuard.Plain:
		return NewFinding(Failed, nothing, p.comparePlain())
	case works:
		return failed(nothing, "compare the forwards of both ends: option dest_ip has to name the same hosts; "+
			"if it does, run `ds4relay doctor` there: it tells whether packets arrive")
	}
	if f := p.obstacle(&x); f != nil {
		return *f
	}
	if p.Role == config.Router {
		return p.failedAtRouter(&x)
	}
	f := p.failedAtVPS(&x)
	if p.WireGuard.Plain && x.in > 0 {
		f = NewFinding(Failed, f.Codes.Evidence, p.comparePlain())
	}
	return f
}

// comparePlain is what to do about a home without ds4relay.
func (p *patient) comparePlain() *message.Text {
	return message.New("compare the WireGuard client's configuration at home with what `ds4relay export --wireguard "+
		"%s` prints here: keys, Endpoint and AllowedIPs; its clock has to be right, and the host on", p.Name)
}

// tunnelAnswers is what to say if packets pass.
func (p *patient) tunnelAnswers(s Session) Finding {
	if s.Handshake.IsZero() {
		return ok("a packet through %s came back from %s", p.Device, p.otherEnd())
	}
	return ok("a packet through %s came back from %s (the last handshake was %d s ago)", p.Device, p.otherEnd(),
		max(int(s.Now.Sub(s.Handshake).Seconds()), 0))
}

// obstacle is what is said about a handshake that something on this machine, or an error from outside, prevents; nil if
// nothing does.
func (p *patient) obstacle(x *exchange) *Finding {
	drop, port := dropped(x.seen.Verdicts), int(p.WireGuard.Port)
	var taken netip.AddrPort
	if p.Role == config.VPS && x.in > 0 {
		taken = p.prober.Taker(p.Relay, x.from.Addr())
	}
	var f Finding
	switch {
	case x.refused != nil && (p.Role == config.Router || x.in == 0):
		f = p.refusedHandshake(x)
	case x.out == 0 && drop != nil && (p.Role == config.Router || x.after.RxBytes > x.before.RxBytes || x.in == 0):
		f = NewFinding(Failed, message.New("no packet out: this machine's firewall drops WireGuard's packets (%s)",
			drop.name()), drop.allow(p.udp(true)))
	case x.in > 0 && drop != nil:
		f = NewFinding(Failed, message.New("packets of the tunnel arrive, and this machine's firewall drops them (%s)",
			drop.name()), drop.allow(p.udp(false)))
	case x.in > 0 && taken.IsValid():
		f = failed(message.New("packets to UDP port %d arrive, and this machine sends them on to %s%s", port, taken,
			by(translator(x.seen.Verdicts))), "remove the rule that takes this port (`nft list ruleset`, "+
			"`iptables-legacy -t nat -L`), then end the connection with `conntrack -D -p udp --orig-port-dst %d`", port)
	case x.out == 0 && p.Role == config.Router:
		f = failed(message.New("no packet out: what goes into the tunnel does not leave this machine"),
			"look at `ip route get %s`, and run `ds4relay up`", p.path.Peer)
	default:
		return nil
	}
	return &f
}

// udp matches the tunnel's packets that go out or come in (nft(8)).
func (p *patient) udp(out bool) string {
	listens := p.Role == config.VPS
	o := transport.Opening{Family: transport.IPv4, Proto: packet.UDP, Port: p.WireGuard.Port}
	if !listens && p.path.Peer.Is6() {
		o.Family = transport.IPv6
	}
	if !listens && out {
		o.To = p.path.Peer
	} else if !listens {
		o.From = p.path.Peer
	}
	if listens == out {
		return o.NftFrom()
	}
	return o.Nft()
}

// refusedHandshake is about an ICMP error that answers WireGuard's packets.
func (p *patient) refusedHandshake(x *exchange) Finding {
	port := int(p.WireGuard.Port)
	s := x.refused
	switch {
	case p.Role == config.VPS:
		return failed(message.New("packets to the home at %s are refused: %s", x.before.Remote, x.error()),
			"run `ds4relay doctor` at home: it has to be up, and its next packet tells where it is")
	case s.Src == p.path.Peer && s.PortUnreachable():
		return failed(message.New("%s says: nothing listens on UDP port %d", s.Src, port),
			"run `ds4relay up` and `ds4relay doctor` at the VPS; option listen_port there has to be %d (option "+
				"endpoint_port here)", port)
	}
	return failed(message.New("packets of the tunnel are refused on the way: %s", x.error()),
		"allow UDP port %d in the firewall of the VPS and of its provider (security group, control panel); where this "+
			"home's network forbids it, try another port, such as 443 or 53 (option listen_port at the VPS, "+
			"endpoint_port here)", port)
}

// failedAtRouter is about a handshake that fails between this router and the VPS.
func (p *patient) failedAtRouter(x *exchange) Finding {
	port, now := int(p.WireGuard.Port), x.after.Now
	switch {
	case x.got[transport.Response] > 0:
		return failed(message.New("the VPS answers the handshake, but its answer is not valid here"),
			"the preshared key has to be the same at both ends, or at neither (option preshared_key_file): compare "+
				"the files, then run `ds4relay up` at both")
	case now.Year() < firstYear, now.Before(x.after.Handshake):
		return NewFinding(Failed, message.New("the VPS does not answer the handshake, and it is %s here: it ignores "+
			"handshakes that are older than the last one", now.UTC().Format(minutes)), p.setClock())
	case x.sent[transport.Response] > 0:
		return failed(message.New("the VPS's handshakes are answered, but never completed"),
			"the preshared key has to be the same at both ends, or at neither (option preshared_key_file): compare "+
				"the files, then run `ds4relay up` at both")
	case x.in > 0:
		return failed(message.New("packets come from the VPS, but no answer to the handshake"),
			"run `ds4relay doctor` at the VPS: it tells whether packets arrive there; UDP port %d has to be open in "+
				"the firewall of its provider (security group, control panel)", port)
	}
	remedy := message.New("run `ds4relay doctor` at the VPS: it tells whether packets arrive there. If none does, "+
		"open UDP port %d in the firewall of its provider (security group, control panel), or this home's network "+
		"forbids it: try another port, such as 443 or 53. If they do, the keys are wrong: option public_key at each "+
		"end is what `ds4relay pubkey %s` prints at the other", port, p.Name)
	return NewFinding(Failed, message.New("no packet in: %d went out to %s, and nothing comes back", x.out,
		netip.AddrPortFrom(p.path.Peer, p.WireGuard.Port)), remedy)
}

// failedAtVPS is about a handshake that fails between the home and this VPS.
func (p *patient) failedAtVPS(x *exchange) Finding {
	port := int(p.WireGuard.Port)
	opened := message.New("open UDP port %d in the firewall of this VPS's provider (security group, control panel), "+
		"and run `ds4relay doctor` at home: option peeraddr there has to be this VPS, option endpoint_port %d", port,
		port)
	if p.WireGuard.Plain {
		opened = message.New("open UDP port %d in the firewall of this VPS's provider (security group, control "+
			"panel); %s", port, p.comparePlain())
	}
	switch {
	case x.sent[transport.Response] > 0 && p.WireGuard.PresharedFile != "":
		return failed(message.New("the handshakes of the home at %s are answered, but never completed", x.from),
			"the preshared key has to be the same at both ends (option preshared_key_file): compare the "+
				"files, then run `ds4relay up` at both; else run `ds4relay doctor` at home: it tells whether the "+
				"answers arrive")
	case x.sent[transport.Response] > 0:
		return failed(message.New("the handshakes of the home at %s are answered, but never completed", x.from),
			"run `ds4relay doctor` at home: it tells whether the answers arrive. If they do, the home has a "+
				"preshared key (option preshared_key_file), and this end needs the same")
	case x.got[transport.Initiation] > 0 && x.seen.Foreign:
		return failed(message.New("handshakes come from the home at %s, made for another public key than this "+
			"end's", x.from), "at home option public_key has to be %s", x.after.Key)
	case x.got[transport.Initiation] > 0 && x.after.Handshake.IsZero():
		return failed(message.New("handshakes come from the home at %s, with another key than option public_key "+
			"has", x.from), "write what `ds4relay pubkey %s` prints at home into option public_key, then run "+
			"`ds4relay up`", p.Name)
	case x.got[transport.Initiation] > 0:
		return failed(message.New("handshakes come from the home at %s, with a time before the last one's (%s), or "+
			"with a new key", x.from, x.after.Handshake.UTC().Format(minutes)), "set the clock at home: handshakes "+
			"that are older than the last one do not count; if it is right, write what `ds4relay pubkey %s` prints "+
			"there into option public_key, then run `ds4relay up`", p.Name)
	case x.got[transport.Response] > 0:
		return failed(message.New("the home answers the handshake, but its answer is not valid here"),
			"the preshared key has to be the same at both ends, or at neither (option preshared_key_file): compare "+
				"the files, then run `ds4relay up` at both")
	case x.in > 0:
		return failed(message.New("packets come from the home at %s, encrypted with old keys", x.from),
			"wait for half a minute until the home begins a new handshake, then run `ds4relay doctor` again")
	case p.path.Unheard != nil:
		return failed(message.New("no packet in: nothing comes to UDP port %d; %v", port, p.path.Unheard),
			"let the provider pass UDP port %d of its public address on to this machine, and open it in its firewall "+
				"(security group)", port)
	case x.before.Handshake.IsZero():
		return NewFinding(Failed, message.New("no packet in: nothing came to UDP port %d since %s is up", port,
			p.Device), message.New("wait for two minutes if it has been up for less: the home notices; else %s",
			opened))
	}
	return NewFinding(Failed, message.New("no packet in: nothing comes to UDP port %d (the last handshake was %d s "+
		"ago)", port, max(int(x.after.Now.Sub(x.after.Handshake).Seconds()), 0)), opened)
}

// mtuOfWireGuard tries the way to the other end. The way back is tried there: nothing that comes back is large.
func (p *patient) mtuOfWireGuard(lost func(what *message.Text, size int) Finding) Finding {
	mtu, learnt := p.path.MTU, p.path.LearntMTU
	there := largest(mtu, func(size int) bool { return p.passesWith(size, &learnt) })
	if there < mtu {
		return lost(message.New("to %s", p.otherEnd()), there)
	}
	overhead := transport.WireGuard{Remote: p.path.Remote}.Overhead()
	if inner := learnt - overhead; learnt > 0 && inner < mtu {
		return warning(message.New("the path carries %d bytes, the tunnel has an MTU of %d: large packets go in "+
			"fragments, which is slow, and some networks drop them", inner, mtu),
			"set option mtu '%d' in the relay's section at both ends, then run `ds4relay up` there", inner)
	}
	if p.WireGuard.Plain {
		return ok("%d bytes pass to %s", mtu, p.otherEnd())
	}
	return ok("%d bytes pass to %s (`ds4relay doctor` there measures the way back)", mtu, p.otherEnd())
}
