package doctor

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/packet"
)

// maxWalks limits how many forwards are tested, the others how long it takes. This machine reacts at once; hosts may be
// slow, and the router at home reports a missing host only after three seconds.
const (
	maxWalks = 8
	ownTime  = 700 * time.Millisecond
	hostTime = 1500 * time.Millisecond
	homeTime = 4 * time.Second
)

// walk is the path of a test packet, which seems to arrive where clients' packets do, and of its answer.
type walk struct {
	forward *config.Forward
	proto   uint8
	client  netip.Addr
	seen    Seen
	entered *Sighting // it came in
	inside  *Sighting // router: it came out of the tunnel
	on      *Sighting // it went on: into the tunnel (VPS), to the home's network (router)
	hidden  *Sighting // VPS: it went into the tunnel with another source
	astray  *Sighting // it, or the answer, left by another device
	self    *Sighting // this machine answered itself
	answer  *Sighting // came from the host, or an error about the packet from the other end
	back    *Sighting // the answer went on: to the client (VPS), into the tunnel (router)
}

// entrance is what a forward is tested with: a protocol, and the ports before and after DNAT.
type entrance struct {
	proto        uint8
	public, port uint16
}

// entrances are tried in turn until one is answered. With a forward of all it is not known which ports a host answers.
func (p *patient) entrances(f *config.Forward) []entrance {
	if !f.All {
		proto, public, port := p.protoOf(f)
		return []entrance{{proto, public, port}}
	}
	var free []entrance
	for _, e := range []entrance{{packet.ICMP, 0, 0}, {packet.TCP, 443, 443}, {packet.TCP, 80, 80},
		{packet.TCP, 9, 9}} {
		if _, taker := config.Takes([]*config.Relay{p.Relay}, p.IPAddr, clientOf(f), e.proto, e.public); taker == f {
			free = append(free, e)
		}
	}
	return free
}

// walkOf tests a forward, once.
func (p *patient) walkOf(f *config.Forward) *walk {
	if w := p.walks[f]; w != nil {
		return w
	}
	w := &walk{forward: f, seen: Seen{Err: message.New("keep and other forwards leave nothing of it to try")}}
	var used entrance
	for i, e := range p.entrances(f) {
		if i > 0 && (p.nothingComes() || w.seen.Err != nil || w.answer != nil || w.on == nil ||
			p.prober.Neighbour(p.path.LAN[f.DestIP], f.DestIP) == NoAnswer) {
			break
		}
		wait := hostTime
		if i > 0 {
			wait = ownTime
		}
		// Many services do not answer a datagram that they do not understand.
		if i == 0 && p.Role == config.VPS && e.proto != packet.UDP {
			wait = homeTime
		}
		if next := p.send(f, e, wait, false); i == 0 || next.answer != nil {
			w, used = next, e
		}
	}
	if w.seen.Err == nil && w.back == nil && (w.on == nil || w.answer != nil) {
		w = p.send(f, used, hostTime, true) // where on this machine it ends
	}
	p.walks[f] = w
	return w
}

// nothingComes reports that a VPS need not wait for packets out of the tunnel.
func (p *patient) nothingComes() bool { return p.Role == config.VPS && p.blocked }

func (p *patient) send(f *config.Forward, e entrance, wait time.Duration, follow bool) *walk {
	proto, public, port := e.proto, e.public, e.port
	w := &walk{forward: f, proto: proto, client: clientOf(f)}
	id := p.nextPort()
	t := Trial{By: p.path.Access, Wait: ownTime, Longer: wait}
	if p.Role == config.VPS {
		t.Packet = p.testPacket(proto, w.client, p.IPAddr, public, id, 64, 0)
	} else {
		t.By = p.path.Uplink
		t.Packet = p.carrier().Encapsulate(p.testPacket(proto, w.client, f.DestIP, port, id, 64, 0))
	}
	if follow {
		t.Follow = w.client
	}
	mine := func(q *packet.Packet) bool {
		switch {
		case q.Proto != proto:
			return false
		case config.HasPorts(proto):
			return q.SrcPort == id || q.DstPort == id
		case q.IsEcho():
			return q.EchoID == id
		}
		return true
	}
	t.Match = func(s Sighting) bool {
		if s.Src != w.client && s.Dst != w.client && !p.isHidden(w, s) {
			return false
		}
		return mine(&s.Packet) || s.Quoted != nil && mine(s.Quoted)
	}
	done, begun := &walk{forward: f, proto: proto, client: w.client}, false
	t.Done = func(s Sighting) bool {
		p.sight(done, s)
		if p.nothingComes() && done.on != nil {
			return true
		}
		return done.self != nil || done.astray != nil || done.back != nil && (p.Role == config.VPS || s.Outer != nil)
	}
	t.More = func(Sighting) bool {
		first := done.on != nil && !begun
		begun = begun || first
		return first
	}
	w.seen = p.prober.Try(t)
	for _, s := range w.seen.Sightings {
		p.sight(w, s)
	}
	if w.answer != nil && proto == packet.TCP && w.answer.Flags&packet.SYN != 0 {
		p.hangUp(t, id, e, w)
	}
	return w
}

// hangUp ends the half-open connection that a test left.
func (p *patient) hangUp(t Trial, id uint16, e entrance, w *walk) {
	if p.Role == config.VPS {
		t.Packet = packet.MakeTCP(netip.AddrPortFrom(w.client, id), netip.AddrPortFrom(p.IPAddr, e.public), packet.RST,
			64, 2, 0)
	} else {
		t.Packet = packet.Make4in6(p.path.Peer, p.path.Local, 64,
			packet.MakeTCP(netip.AddrPortFrom(w.client, id), netip.AddrPortFrom(w.forward.DestIP, e.port), packet.RST,
				64, 2, 0))
	}
	t.Wait, t.Follow = 0, netip.Addr{}
	p.prober.Try(t)
}

// sight assigns a packet to a step of the path.
func (p *patient) sight(w *walk, s Sighting) {
	set := func(step **Sighting) {
		if *step == nil {
			*step = &s
		}
	}
	toHost := s.Src == w.client && s.Dst == w.forward.DestIP
	toClient := s.Dst == w.client
	lan := p.path.LAN[w.forward.DestIP]
	if p.Role == config.VPS {
		switch {
		case s.Outer != nil, s.Device == "lo":
		case !s.Out && s.Device == p.path.Access && s.Src == w.client:
			set(&w.entered)
		case s.Out && s.Device == p.Device && toHost:
			set(&w.on)
		case p.isHidden(w, s):
			set(&w.hidden)
		case s.Out && s.Src == w.client:
			set(&w.astray)
		case !s.Out && s.Device == p.Device && toClient:
			set(&w.answer)
		case s.Out && toClient && w.answer != nil:
			set(&w.back)
		case s.Out && toClient:
			set(&w.self)
		}
		return
	}
	switch {
	case s.Outer != nil && !s.Out && s.Src == w.client:
		set(&w.entered)
	case s.Out && toClient && p.carrier().Sends(&s.Packet) && w.back != nil:
		w.back = &s
	case s.Outer != nil:
	case !s.Out && s.Device == p.Device && s.Src == w.client:
		set(&w.inside)
	case s.Out && s.Device == p.Device && toClient && p.path.Self[w.forward.DestIP]:
		set(&w.answer)
		set(&w.back)
	case s.Out && s.Device == lan && toHost:
		set(&w.on)
	case !s.Out && s.Device == lan && toClient:
		set(&w.answer)
	case s.Out && s.Device == p.Device && toClient:
		set(&w.back)
	case s.Out && toClient && w.answer == nil && w.on == nil && s.IsError():
		set(&w.self)
	case s.Out && (toClient || s.Src == w.client) && s.Device != p.Device && s.Device != lan:
		set(&w.astray)
	}
}

// each tests the forwards until one fails. It reports that one, otherwise a warning, otherwise success.
func (p *patient) each(judge func(*walk) Finding) Finding {
	var good []*message.Text
	var first *Finding
	for i, f := range p.Forwards {
		if i == maxWalks {
			good = append(good, message.New("(%d more not tried)", len(p.Forwards)-maxWalks))
			break
		}
		finding := judge(p.walkOf(f))
		if finding.State == OK {
			english := func(t *message.Text) bool { return t.Error() == finding.Evidence }
			if !slices.ContainsFunc(good, english) { // forwards to one host
				good = append(good, finding.Codes.Evidence)
			}
			continue
		}
		if first == nil || first.State == Skipped || finding.State == Failed && first.State == Warning {
			finding = NewFinding(finding.State, message.New("forward %s: %s", f.Section, finding.Codes.Evidence),
				finding.Codes.Remedy)
			first = &finding
		}
		if finding.State == Failed { // enough to begin with
			break
		}
	}
	if first != nil && (first.State != Skipped || len(good) == 0) {
		return *first
	}
	return NewFinding(OK, message.Join("; ", good...), nil)
}

func (p *patient) forward() Finding {
	return p.each(func(w *walk) Finding {
		host := w.forward.DestIP
		if w.seen.Err != nil {
			return skipped("cannot send a test packet: %v", w.seen.Err)
		}
		if p.Role == config.VPS {
			return p.forwardVPS(w)
		}
		lan := p.path.LAN[host]
		switch {
		case lan == "":
			return failed(message.New("this router has no route to %s in its networks", host),
				"correct option dest_ip, or bring up the network that %s is in: `ip route get %s` has to name its "+
					"device", host, host)
		case w.on != nil:
			return ok("%s: to %s on %s", host, host, lan)
		case p.path.Self[host] && w.inside != nil && (w.answer != nil || dropped(w.seen.Verdicts) == nil):
			return ok("%s: this router itself", host)
		case w.entered == nil:
			return skipped("the test packet was not seen on %s", p.path.Uplink)
		case w.inside == nil:
			if drop := dropped(w.seen.Verdicts); drop != nil {
				return NewFinding(Failed, message.New("this machine's firewall drops the tunnel's packets (%s)",
					drop.name()),
					drop.allow(p.carrier().Opening().Anywhere().Nft()))
			}
			return failed(message.New("a packet from %s did not come out of %s", p.path.Peer, p.Device),
				"run `ds4relay down` and `ds4relay up`")
		case p.prober.Neighbour(lan, host) == NoAnswer:
			return ok("%s: on %s, which asks for %s", host, lan, host)
		}
		return p.stopped(w, message.New("came out of %s", p.Device))
	})
}

// NoAnswer is the result of Neighbour for a host that does not answer.
const NoAnswer = "does not answer"

func (p *patient) forwardVPS(w *walk) Finding {
	switch {
	case w.hidden != nil:
		return p.hidden(w)
	case w.on != nil:
		return ok("%s: translated, into %s", w.forward.DestIP, p.Device)
	case w.entered == nil:
		return skipped("the test packet was not seen on %s", p.path.Access)
	case w.astray != nil:
		return NewFinding(Failed, message.New("a client's packet leaves by %s to %s instead of by %s%s",
			w.astray.Device, w.astray.Dst, p.Device, by(translator(w.seen.Verdicts))),
			p.freePort(w))
	case w.self != nil:
		return NewFinding(Failed, message.New("this machine answers a client's packet itself%s",
			by(translator(w.seen.Verdicts))), p.freePort(w))
	}
	return p.stopped(w, message.New("came in by %s", p.path.Access))
}

func by(v *Verdict) *message.Text {
	if v == nil {
		return nil
	}
	return message.New(" (nft table %s %s, chain %s, comes first)", v.Family, v.Table, v.Chain)
}

func (p *patient) freePort(w *walk) *message.Text {
	if v := translator(w.seen.Verdicts); v != nil && v.Hint == "docker" {
		return message.New("the port is published by a container: let it publish another one, or forward another one " +
			"here (option src_dport)")
	} else if v != nil {
		return message.New("remove the rule that takes this port: `nft list chain %s %s %s`", v.Family, v.Table,
			v.Chain)
	}
	return message.New("find what else takes this port (`nft list ruleset`, `iptables-legacy -t nat -L`), and remove " +
		"it")
}

// translator returns somebody else's chain that decided about the packet's destination before ours.
func translator(verdicts []Verdict) *Verdict {
	var last *Verdict
	for i := range verdicts {
		if v := &verdicts[i]; !v.Drop && !v.Policy && !v.ours() && v.Family != "ip6" {
			last = v
		}
	}
	return last
}

// stopped says what ended a packet within this machine.
func (p *patient) stopped(w *walk, where *message.Text) Finding {
	if drop := dropped(w.seen.Verdicts); drop != nil {
		return NewFinding(Failed, message.New("a client's packet %s and this machine's firewall drops it (%s)", where,
			drop.name()), drop.allowForward(p.Device))
	}
	counters := w.seen.Counters
	switch {
	case counters["TcpExtIPReversePathFilter"] > 0:
		remedy := p.foreignRule() // the filter of a tunnel at home is ours, and lets through what has our mark
		if p.Role == config.VPS {
			remedy = message.New("loosen the filter: `sysctl -w net.ipv4.conf.all.rp_filter=0 "+
				"net.ipv4.conf.%s.rp_filter=0`, and in /etc/sysctl.d for the next boot",
				strings.ReplaceAll(p.path.Access, ".", "/"))
		}
		return NewFinding(Failed, message.New("a client's packet %s and rp_filter drops it", where), remedy)
	case w.self != nil && w.self.IsError():
		return failed(message.New("a client's packet %s, and this machine says: %s", where, w.self.Refusal()),
			"look at `ip route get %s` and `ip rule`: another program's rule or route comes first", w.forward.DestIP)
	case counters["IpInNoRoutes"] > 0 || counters["IpOutNoRoutes"] > 0:
		return failed(message.New("a client's packet %s, and there is no route for it", where),
			"look at `ip rule` and `ip route`: a rule or route of another program (blackhole, unreachable) comes first")
	}
	return failed(message.New("a client's packet %s and does not go on", where),
		"look for filters that nft does not show (`iptables-legacy -S`, `tc filter`, eBPF), and see `ds4relay trace`")
}

func (p *patient) hosts() Finding {
	if p.nothingComes() {
		return skipped("nothing comes through the tunnel")
	}
	return p.each(func(w *walk) Finding {
		host := w.forward.DestIP
		target := host.String()
		if _, _, port := p.protoOf(w.forward); port != 0 {
			target = netip.AddrPortFrom(host, port).String()
		}
		lan := p.path.LAN[host]
		a := w.answer
		switch {
		case w.seen.Err != nil:
			return skipped("cannot send a test packet: %v", w.seen.Err)
		case a != nil && a.IsError() && a.Proto == packet.ICMP:
			if a.Src == host {
				return p.serviceMissing(target)
			}
			return failed(message.New("the router at home says about %s: %s", target, a.Refusal()),
				"switch %s on, or correct option dest_ip at both ends if its address has changed", host)
		case a != nil && a.Flags&packet.RST != 0 && !w.forward.All:
			return p.serviceMissing(target)
		case a != nil:
			return ok("%s answers", target)
		case p.Role == config.Router && p.prober.Neighbour(lan, host) == NoAnswer:
			return failed(message.New("nobody on %s has the address %s (no answer to ARP)", lan, host),
				"switch %s on, or correct option dest_ip at both ends if its address has changed (give it a fixed "+
					"one: a static DHCP lease)", host)
		case w.proto == packet.UDP || !config.HasPorts(w.proto) && w.proto != packet.ICMP:
			return skipped("%s may answer nothing to a test packet over %s", target, config.ProtoName(w.proto))
		case p.path.Self[host]:
			return failed(message.New("nothing on this router answers at %s", target),
				"let the service listen on that address, and look for filters that nft does not show "+
					"(`iptables-legacy -S`)")
		case p.Role == config.Router:
			return p.silentHost(w, target)
		}
		return failed(message.New("%s does not answer, though packets come to the router at home", target),
			"run `ds4relay doctor` on the router: the host is down, its own firewall or the router's drops the "+
				"packet, or its default gateway is another")
	})
}

func (p *patient) serviceMissing(target string) Finding {
	return failed(message.New("%s refuses: nothing listens there", target),
		"start the service on the host, let it listen on its LAN address (not 127.0.0.1 only), or correct option "+
			"dest_port at both ends")
}

// silentHost looks on the LAN for a host that does not answer a client.
func (p *patient) silentHost(w *walk, target string) Finding {
	_, _, port := p.protoOf(w.forward)
	host := w.forward.DestIP
	if err := p.prober.Connect(host, port); err == nil {
		return failed(message.New("%s answers this router, but not a client from the internet", target),
			"on %s: its default gateway has to be this router, and its firewall has to let in addresses beyond the "+
				"LAN", host)
	}
	return failed(message.New("%s is there, but answers neither a client nor this router", target),
		"on %s: let it in its own firewall, for addresses beyond the LAN too", host)
}

// foreignRule is what to do about a policy rule that answers meet before ours.
func (p *patient) foreignRule() *message.Text {
	return message.New("a rule of another program comes before ours (`ip rule`): delete it, give it a priority above "+
		"%d, or take lower ones with option priority", p.Priority+5)
}

func (p *patient) answer() Finding {
	return p.each(func(w *walk) Finding {
		host := w.forward.DestIP
		switch {
		case w.seen.Err != nil:
			return skipped("cannot send a test packet: %v", w.seen.Err)
		case w.answer == nil:
			return skipped("%s did not answer", host)
		case w.back != nil && (p.Role == config.VPS || w.back.Outer != nil):
			return ok("%s: out by %s", host, w.back.Device)
		case w.back != nil:
			return failed(message.New("the answer of %s goes into %s and does not leave this machine", host, p.Device),
				"run `ds4relay doctor` again: the check tunnel says why")
		case w.astray != nil:
			return NewFinding(Failed, message.New("the answer of %s leaves by %s instead of by %s", host,
				w.astray.Device, p.Device),
				p.foreignRule())
		}
		if drop := dropped(w.seen.Verdicts); drop != nil {
			return NewFinding(Failed, message.New("this machine's firewall drops the answer of %s (%s)", host,
				drop.name()), drop.allowForward(p.Device))
		}
		return failed(message.New("the answer of %s comes in and does not go on", host),
			"look at `ip rule` for rules of other programs before ours, and at filters that nft does not show "+
				"(`iptables-legacy -S`)")
	})
}

// internet connects to the public address like a client, over the router's own IPv4 line. A VPS can only check whether
// clients get through.
func (p *patient) internet() Finding {
	if p.Role == config.VPS {
		if n := p.prober.Clients(p.Relay); n > 0 {
			return ok("connections of clients that are open: %d", n)
		}
		return skipped("no client's connection is open now; ds4relay doctor on the router tries it from outside, and " +
			"ds4relay trace here shows whether a client's packets arrive")
	}
	if !p.sys().IPv4Default {
		return skipped("this router has no other IPv4 line to try it over")
	}
	f, target, err := p.asClient()
	switch {
	case f == nil:
		return skipped("no forward of TCP or ICMP is open to everybody")
	case err != nil:
		return failed(message.New("%s does not answer from the internet (over this router's own line): %v", target,
			err),
			"open it in the firewall of the VPS's provider (security group, control panel), and run `ds4relay "+
				"doctor` on the VPS; keep there (option keep) must not name %s", f.Section)
	}
	return ok("%s answers over this router's own line", target)
}

// asClient connects to the public address through a forward that is for everybody; f is nil if there is none.
func (p *patient) asClient() (f *config.Forward, target string, err error) {
	for _, f := range p.Forwards {
		proto, public, _ := p.protoOf(f)
		if len(f.Clients) > 0 || proto != packet.TCP && proto != packet.ICMP {
			continue
		}
		target := p.IPAddr.String()
		if public != 0 {
			target = netip.AddrPortFrom(p.IPAddr, public).String()
		}
		return f, target, p.prober.Connect(p.IPAddr, public)
	}
	return nil, "", nil
}
