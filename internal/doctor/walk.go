package doctor

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/packet"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// maxAttempts limits how much is tested, maxPorts how many ports of a range, the others how long it takes. This machine
// reacts at once; hosts may be slow, and the router at home reports a missing host only after three seconds.
const (
	maxAttempts = 64
	maxPorts    = 8
	ownTime     = 700 * time.Millisecond
	hostTime    = 1500 * time.Millisecond
	homeTime    = 4 * time.Second
)

// walk is the path of a test packet, which seems to arrive where clients' packets do, and of its answer.
type walk struct {
	entrance
	forward *config.Forward
	client  netip.Addr
	id      uint16 // port of the client, or of its echo request
	seen    Seen
	entered *Sighting // it came in
	inside  *Sighting // router: it came out of the tunnel
	on      *Sighting // it went on: into the tunnel (VPS), to the home's network (router)
	hidden  *Sighting // VPS: it went into the tunnel with another source
	astray  *Sighting // it, or the answer, left by another device
	self    *Sighting // this machine answered itself
	answer  *Sighting // came from the host, or an error about the packet from the other end
	back    *Sighting // the answer went on: to the client (VPS), into the tunnel (router)
	near    bool      // the host answers this router itself
}

// entrance is what a forward is tested with: a protocol, and the ports before and after DNAT.
type entrance struct {
	proto        uint8
	public, port uint16
}

// attempt is a test of one of a forward's mappings.
type attempt struct {
	forward *config.Forward
	walks   []*walk // none: nothing of it can be tried
	partly  bool    // it has ports that are not tried
	others  []entrance
}

// knownPorts are tried where a forward has many: somebody may listen there.
var knownPorts = []uint16{443, 80, 22, 25, 53, 993, 3389, 8080, 8443, 25565, 32400}

// entrances are tried until one is answered. With a forward of all or of many ports it is not known which ports a host
// answers: partly is true.
func (p *patient) entrances(f *config.Forward, m config.Mapping) (free []entrance, partly bool) {
	var relays []*config.Relay // the ports of one address may be shared
	for _, r := range p.config.Relays {
		if r == p.Relay || r.Enabled && r.Role == p.Role {
			relays = append(relays, r)
		}
	}
	set := m.Public
	add := func(proto uint8, public uint16) {
		e := entrance{proto, public, public}
		if set.HasPorts() {
			e.port = m.Port + (public - set.First)
		}
		_, taker := config.Takes(relays, p.IPAddr, clientOf(f), proto, public)
		if f.Same(taker) && testable(proto) && len(free) < maxPorts && !slices.Contains(free, e) {
			free = append(free, e)
		}
	}
	switch {
	case m.All:
		add(packet.ICMP, 0)
		for _, port := range knownPorts {
			add(packet.TCP, port)
		}
		return free, true
	case !set.HasPorts():
		add(set.Proto, 0)
		return free, false
	}
	for port := int(set.First); port <= int(set.Last) && len(free) == 0; port++ {
		add(set.Proto, uint16(port))
	}
	if set.Last-set.First >= maxPorts {
		for _, port := range knownPorts {
			if set.Contains(set.Proto, port) && len(free) < maxPorts-1 {
				add(set.Proto, port)
			}
		}
		add(set.Proto, set.Last)
		return free, true
	}
	for port := int(set.First); port <= int(set.Last); port++ {
		add(set.Proto, uint16(port))
	}
	return free, false
}

// attempts tests all forwards, once: first one packet for each mapping, then more for those without a useful answer.
func (p *patient) attempts() []*attempt {
	if p.tried != nil {
		return p.tried
	}
	var walks []*walk
	for _, f := range p.Forwards {
		for _, m := range f.Mappings() {
			if len(p.tried) == maxAttempts {
				p.untried++
				continue
			}
			a := &attempt{forward: f}
			a.others, a.partly = p.entrances(f, m)
			if len(a.others) > 0 {
				walks = append(walks, a.next(p))
			}
			p.tried = append(p.tried, a)
		}
	}
	wait := hostTime
	if p.Role == config.VPS {
		wait = homeTime
	}
	p.send(walks, wait, false)
	walks = nil
	for _, a := range p.tried {
		if len(a.walks) == 0 || !a.walks[0].passed() || a.answered() || p.nothingComes() || p.absent(a.walks[0]) {
			continue
		}
		for len(a.others) > 0 {
			walks = append(walks, a.next(p))
		}
	}
	if len(walks) > 0 {
		p.send(walks, hostTime, false)
	}
	p.knock()
	for _, a := range p.tried { // where on this machine the first one ends
		w := a.best()
		if w == nil || w.seen.Err != nil || w.back != nil || w.on != nil && w.answer == nil {
			continue
		}
		if w.on != nil || !p.absent(w) {
			again := &walk{entrance: w.entrance, forward: w.forward, client: w.client}
			p.send([]*walk{again}, hostTime, true)
			a.walks = []*walk{again}
			break
		}
	}
	return p.tried
}

// knock finds out on a router whether hosts that do not answer a client answer the router itself.
func (p *patient) knock() {
	var silent []*walk
	t := Trial{Wait: hostTime}
	for _, a := range p.tried {
		if p.Role != config.Router || a.best() == nil || a.answered() || p.path.Self[a.forward.DestIP] {
			continue
		}
		for _, w := range a.walks {
			if w.on != nil && w.answer == nil && (w.proto == packet.TCP || w.proto == packet.ICMP) && !p.absent(w) {
				silent = append(silent, w)
				t.Dials = append(t.Dials, Dial{w.proto, w.forward.DestIP, w.port})
			}
		}
	}
	if len(silent) == 0 {
		return
	}
	answers := func(w *walk, s Sighting) bool {
		return !s.Out && s.Outer == nil && s.Src == w.forward.DestIP && s.Dst != w.client && s.Proto == w.proto &&
			s.SrcPort == w.port && (s.Proto == packet.TCP || s.Type == packet.EchoReply)
	}
	t.Match = func(s Sighting) bool { return slices.ContainsFunc(silent, func(w *walk) bool { return answers(w, s) }) }
	t.Done = func(s Sighting) bool {
		all := true
		for _, w := range silent {
			w.near = w.near || answers(w, s)
			all = all && w.near
		}
		return all
	}
	p.prober.Try(t)
}

// next takes the attempt's next entrance.
func (a *attempt) next(p *patient) *walk {
	w := &walk{entrance: a.others[0], forward: a.forward, client: clientOf(a.forward)}
	a.walks, a.others = append(a.walks, w), a.others[1:]
	return w
}

// answered reports whether traffic passes: for a forward of all, a refusal shows that too.
func (a *attempt) answered() bool {
	return slices.ContainsFunc(a.walks, func(w *walk) bool {
		return w.answer != nil && (!w.refused() || a.forward.All && w.noService())
	})
}

// best is the walk to judge this machine by: one that was answered, if any, or nil if nothing can be tried.
func (a *attempt) best() *walk {
	for _, w := range a.walks {
		if w.answer != nil {
			return w
		}
	}
	if len(a.walks) == 0 {
		return nil
	}
	return a.walks[0]
}

// passed reports whether this machine let the packet through.
func (w *walk) passed() bool { return w.on != nil || w.answer != nil }

// refused reports whether the answer says that there is no service.
func (w *walk) refused() bool {
	return w.answer != nil && (w.answer.IsError() || w.answer.Proto == packet.TCP && w.answer.Flags&packet.RST != 0 ||
		w.answer.Proto == packet.SCTP && w.answer.Type == packet.Abort)
}

// noService reports whether the host itself says that there is no service: it is there, and reached.
func (w *walk) noService() bool {
	return w.refused() && w.answer.Src == w.forward.DestIP &&
		(!w.answer.IsError() || w.answer.Code == packet.PortUnreachable || w.answer.Code == packet.ProtocolUnreachable)
}

// absent reports whether nobody has the host's address, as far as this end can tell.
func (p *patient) absent(w *walk) bool {
	if w.answer != nil {
		return w.answer.IsError() && w.answer.Src != w.forward.DestIP
	}
	return p.Role == config.Router && p.neighbour(w.forward.DestIP) == NoAnswer
}

// neighbour asks for a host at home, once.
func (p *patient) neighbour(host netip.Addr) string {
	if _, known := p.asked[host]; !known {
		p.asked[host] = p.prober.Neighbour(p.path.LAN[host], host)
	}
	return p.asked[host]
}

// nothingComes reports that a VPS need not wait for packets out of the tunnel.
func (p *patient) nothingComes() bool { return p.Role == config.VPS && p.blocked }

// send sends the walks' packets at once, and observes them. follow is for one walk only.
func (p *patient) send(walks []*walk, wait time.Duration, follow bool) {
	t := Trial{By: p.path.Access, Wait: ownTime, Longer: wait}
	if p.Role == config.Router {
		t.By = p.injected()
	}
	for _, w := range walks {
		w.id = p.nextPort()
		t.Packets = append(t.Packets, p.clientPacket(w, func(client, to netip.Addr, port uint16) []byte {
			return p.testPacket(w.proto, client, to, port, w.id, 64, 0)
		}))
		if follow {
			t.Follow = w.client
		}
	}
	t.Match = func(s Sighting) bool { return slices.ContainsFunc(walks, func(w *walk) bool { return p.has(w, s) }) }
	left, begun := len(walks), false
	t.Done = func(s Sighting) bool {
		for _, w := range walks {
			if p.has(w, s) && !p.ended(w) {
				was := w.on != nil
				p.sight(w, s)
				begun = begun || !was && w.on != nil
				if p.ended(w) {
					left--
				}
			}
		}
		return left == 0
	}
	t.More = func(Sighting) bool {
		first := begun
		begun = false
		return first
	}
	seen := p.prober.Try(t)
	end := t
	end.Packets, end.Wait, end.Follow = nil, 0, netip.Addr{}
	for _, w := range walks {
		w.seen = seen
		if w.answer != nil && w.proto == packet.TCP && w.answer.Flags&packet.SYN != 0 { // do not leave it half open
			end.Packets = append(end.Packets, p.clientPacket(w, func(client, to netip.Addr, port uint16) []byte {
				return packet.MakeTCP(netip.AddrPortFrom(client, w.id), netip.AddrPortFrom(to, port), packet.RST, 64,
					2, 0)
			}))
		}
	}
	if len(end.Packets) > 0 {
		p.prober.Try(end)
	}
}

// clientPacket makes a packet of a client as it arrives at this end.
func (p *patient) clientPacket(w *walk, of func(client, to netip.Addr, port uint16) []byte) []byte {
	if p.Role == config.VPS {
		return of(w.client, cmp.Or(p.path.Card, p.IPAddr), w.public)
	}
	inner := of(w.client, w.forward.DestIP, w.port)
	if tunnel, ok := p.carrier().(transport.IPIP6); ok {
		return tunnel.Encapsulate(inner)
	}
	return inner
}

// injected is the device that a client's packet seems to come in by at a router. WireGuard's are encrypted before: it
// is the tunnel itself.
func (p *patient) injected() string {
	if p.Transport == config.WireGuard {
		return p.Device
	}
	return p.path.Uplink
}

// left reports whether the answer has left this machine. WireGuard's packets cannot be told apart after the tunnel.
func (p *patient) left(w *walk) bool {
	return w.back != nil && (p.Role == config.VPS || p.Transport == config.WireGuard || w.back.Outer != nil)
}

// ended reports whether nothing more is to be seen of a walk.
func (p *patient) ended(w *walk) bool {
	return w.self != nil || w.astray != nil || w.hidden != nil || p.nothingComes() && w.on != nil || p.left(w)
}

// unhidden returns a packet with the client's address, where a home without ds4relay sees the VPS's instead, or a host
// this router's (option masq).
func (p *patient) unhidden(w *walk, s Sighting) Sighting {
	if host := w.forward.DestIP; p.Role == config.Router && w.forward.Masq && s.Device == p.path.LAN[host] &&
		s.Outer == nil {
		switch {
		case s.Out && s.Dst == host:
			s.Src = w.client
		case !s.Out && s.Src == host:
			s.Dst = w.client
		}
	}
	if p.WireGuard.Plain && s.Device == p.Device {
		for _, addr := range []*netip.Addr{&s.Src, &s.Dst} {
			if *addr == config.PlainAddr {
				*addr = w.client
			}
		}
	}
	return s
}

// has reports whether a packet belongs to the walk.
func (p *patient) has(w *walk, s Sighting) bool {
	s = p.unhidden(w, s)
	mine := func(q *packet.Packet) bool {
		switch {
		case q.Proto != w.proto:
			return false
		case config.HasPorts(w.proto):
			return q.SrcPort == w.id || q.DstPort == w.id
		case q.IsEcho():
			return q.EchoID == w.id
		}
		return !q.IsError()
	}
	if s.Src != w.client && s.Dst != w.client && !p.isHidden(w, s) {
		return false
	}
	return mine(&s.Packet) || s.Quoted != nil && mine(s.Quoted)
}

// sight assigns a packet to a step of the path.
func (p *patient) sight(w *walk, s Sighting) {
	s = p.unhidden(w, s)
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
		if p.Transport == config.WireGuard {
			set(&w.entered)
		}
	case s.Out && s.Device == p.Device && toClient && p.path.Self[w.forward.DestIP]:
		set(&w.answer)
		set(&w.back)
	case s.Out && s.Device == lan && toHost:
		set(&w.on)
	case !s.Out && s.Device == lan && toClient:
		set(&w.answer)
	case s.Out && s.Device == p.Device && toClient:
		set(&w.back)
	case s.Out && s.Device == lan && toClient && w.answer != nil:
		set(&w.astray)
	case s.Out && toClient && w.answer == nil && w.on == nil && s.IsError():
		set(&w.self)
	case s.Out && s.Src == w.client && p.path.Self[w.forward.DestIP]: // to a container that publishes the port
	case s.Out && (toClient || s.Src == w.client) && s.Device != p.Device && s.Device != lan:
		set(&w.astray)
	}
}

// Part is the part of a Finding that is about one protocol, and its ports, of a forward.
type Part struct {
	Section string // of the forward
	Finding
}

// each judges every attempt. The finding is about the first that failed, otherwise the first warning; what could not be
// tried stands beside what works.
func (p *patient) each(judge func(*attempt) Finding) Finding {
	var good, open []*message.Text
	var first *Finding
	var parts []Part
	for _, a := range p.attempts() {
		finding := skipped("nothing of it can be tried: keep and other forwards have its ports, or no test packet " +
			"has its protocol")
		if len(a.walks) > 0 {
			if err := a.walks[0].seen.Err; err != nil {
				finding = skipped("cannot send a test packet: %v", err)
			} else {
				finding = judge(a)
			}
		}
		parts = append(parts, Part{a.forward.Section, finding})
		named := message.New("forward %s: %s", a.forward.Section, finding.Codes.Evidence)
		list, text := &good, finding.Codes.Evidence
		switch finding.State {
		case OK:
		case Skipped:
			list, text = &open, named
		default:
			if first == nil || finding.State == Failed && first.State == Warning {
				finding = NewFinding(finding.State, named, finding.Codes.Remedy)
				first = &finding
			}
			continue
		}
		if !slices.ContainsFunc(*list, func(t *message.Text) bool { return t.Error() == text.Error() }) {
			*list = append(*list, text) // once for forwards to one host
		}
	}
	if p.untried > 0 {
		open = append(open, message.New("(%d more not tried)", p.untried))
	}
	state := OK
	if len(open) > 0 {
		state = Skipped
	}
	f := NewFinding(state, message.Join("; ", append(good, open...)...), nil)
	if first != nil {
		f = *first
	}
	f.Parts = parts
	return f
}

func (p *patient) forward() Finding {
	return p.each(func(a *attempt) Finding {
		w, host := a.best(), a.forward.DestIP
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
			return skipped("the test packet was not seen on %s", p.injected())
		case w.inside == nil:
			if drop := dropped(w.seen.Verdicts); drop != nil {
				return NewFinding(Failed, message.New("this machine's firewall drops the tunnel's packets (%s)",
					drop.name()),
					drop.allow(p.opening().Anywhere().Nft()))
			}
			return failed(message.New("a packet from %s did not come out of %s", p.path.Peer, p.Device),
				"run `ds4relay down` and `ds4relay up`")
		case p.neighbour(host) == NoAnswer:
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
	case p.noWayBack(counters):
		return NewFinding(Failed, message.New("a client's packet %s, and this machine has no IPv4 route to clients",
			where), p.defaultRoute())
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
	case noRoute(counters):
		return failed(message.New("a client's packet %s, and there is no route for it", where),
			"look at `ip rule` and `ip route`: a rule or route of another program (blackhole, unreachable) comes first")
	}
	return failed(message.New("a client's packet %s and does not go on", where),
		"look for filters that nft does not show (`iptables-legacy -S`, `tc filter`, eBPF), and see `ds4relay trace`")
}

// noWayBack reports whether a VPS lacks the route to clients: then rp_filter may drop their packets, too.
func (p *patient) noWayBack(counters map[string]uint64) bool {
	return p.Role == config.VPS && !p.sys().IPv4Default &&
		(counters["TcpExtIPReversePathFilter"] > 0 || noRoute(counters))
}

func noRoute(counters map[string]uint64) bool {
	return counters["IpExtInNoRoutes"]+counters["IpOutNoRoutes"] > 0
}

func (p *patient) defaultRoute() *message.Text {
	return message.New("add the default route of the provider: `ip route add default via GATEWAY dev %s`, and in the "+
		"network's configuration for the next boot", p.path.Access)
}

func (p *patient) hosts() Finding {
	if p.nothingComes() {
		return skipped("nothing comes through the tunnel")
	}
	return p.each(func(a *attempt) Finding {
		f := p.host(a)
		if f.State == Failed && slices.ContainsFunc(p.tried, func(other *attempt) bool {
			return other.forward == a.forward && other.answered()
		}) {
			if w := a.best(); w.answer != nil && w.answer.Src == a.forward.DestIP {
				f.Codes.Remedy = message.New("nothing, if no service uses it: then leave it out of the forward " +
					"(option proto, option src_dport) at both ends; else start the service on the host")
			}
			f = NewFinding(Warning, f.Codes.Evidence, f.Codes.Remedy) // the forward is of use
		}
		return f
	})
}

// target is what an attempt tried: an address, and a port if there is only one.
func (a *attempt) target() string {
	return address(a.forward.DestIP, a.best().port)
}

// ports are what was tried at the host, such as `tcp 80, tcp 443`.
func (a *attempt) ports() string {
	var b strings.Builder
	for i, w := range a.walks {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(config.PortSet{Proto: w.proto, First: w.port, Last: w.port}.String())
	}
	return b.String()
}

func (p *patient) host(a *attempt) Finding {
	w, host, target := a.best(), a.forward.DestIP, a.target()
	switch {
	case a.answered():
		return ok("%s answers", target)
	case w.answer != nil && w.answer.IsError() && w.answer.Src != host:
		return failed(message.New("the router at home says about %s: %s", target, w.answer.Refusal()),
			"switch %s on, or correct option dest_ip at both ends if its address has changed", host)
	case p.absent(w):
		return failed(message.New("nobody on %s has the address %s (no answer to ARP)", p.path.LAN[host], host),
			"switch %s on, or correct option dest_ip at both ends if its address has changed (give it a fixed one: a "+
				"static DHCP lease)", host)
	case w.noService() && a.partly:
		return warning(message.New("%s is there, and refuses what was tried: %s", host, a.ports()),
			"nothing, if the service listens on other ports of this forward; else start it on the host, on its LAN "+
				"address (not 127.0.0.1 only)")
	case w.answer != nil && !w.noService():
		return failed(message.New("%s refuses: %s", target, w.answer.Refusal()),
			"on %s: let it in its own firewall, for addresses beyond the LAN too", host)
	case w.answer != nil && w.port == 0:
		return failed(message.New("%s refuses: it takes no %s", target, config.ProtoName(w.proto)),
			"start the service on the host, or remove the protocol from option proto at both ends")
	case w.answer != nil:
		return p.serviceMissing(a, target)
	case !answers(w.proto):
		return skipped("%s may answer nothing to a test packet over %s", target, config.ProtoName(w.proto))
	case p.path.Self[host]:
		return a.silent(message.New("nothing on this router answers at %s", target),
			"let the service listen on that address, and look for filters that nft does not show "+
				"(`iptables-legacy -S`)")
	case p.Role == config.Router:
		return p.silentHost(a, target)
	}
	return a.silent(message.New("%s does not answer, though packets come to the router at home", target),
		"run `ds4relay doctor` on the router: it needs the same forward; else the host is down, its own firewall or "+
			"the router's drops the packet, or its default gateway is another (option masq there)")
}

// answers reports whether a host answers to the first packet of a protocol, if a service uses it.
func answers(proto uint8) bool {
	return proto == packet.TCP || proto == packet.ICMP || proto == packet.SCTP
}

// silent is a failure, unless a host may still answer on other ports.
func (a *attempt) silent(evidence *message.Text, code string, args ...any) Finding {
	if !a.partly {
		return failed(evidence, code, args...)
	}
	return warning(message.New("%s (tried: %s)", evidence, a.ports()), code, args...)
}

func (p *patient) serviceMissing(a *attempt, target string) Finding {
	return failed(message.New("%s refuses: nothing listens there over %s", target, config.ProtoName(a.best().proto)),
		"start the service on the host, let it listen on its LAN address (not 127.0.0.1 only), or correct option "+
			"dest_port at both ends")
}

// silentHost looks on the LAN for a host that does not answer a client.
func (p *patient) silentHost(a *attempt, target string) Finding {
	host := a.forward.DestIP
	if slices.ContainsFunc(a.walks, func(w *walk) bool { return w.near }) {
		return failed(message.New("%s answers this router, but not a client from the internet", target),
			"on %s: its default gateway has to be this router (else set option masq '1' in the forward here, which hides "+
				"clients' addresses from it), and its firewall has to let in addresses beyond the LAN", host)
	}
	return a.silent(message.New("%s is there, but answers neither a client nor this router", target),
		"on %s: let it in its own firewall, for addresses beyond the LAN too", host)
}

// foreignRule is what to do about a policy rule that answers meet before ours.
func (p *patient) foreignRule() *message.Text {
	return message.New("a rule of another program comes before ours (`ip rule`): delete it, give it a priority above "+
		"%d, or take lower ones with option priority", p.Priority+5)
}

func (p *patient) answer() Finding {
	return p.each(func(a *attempt) Finding {
		w, host := a.best(), a.forward.DestIP
		switch {
		case w.answer == nil:
			return skipped("%s did not answer", host)
		case w.back != nil && p.Role == config.VPS:
			return ok("%s: out by %s", host, w.back.Device)
		case p.left(w):
			return ok("%s: into the tunnel %s", host, p.Device)
		case w.back != nil:
			return failed(message.New("the answer of %s goes into %s and does not leave this machine", host, p.Device),
				"run `ds4relay doctor` again: the check tunnel says why")
		case w.astray != nil:
			return NewFinding(Failed, message.New("the answer of %s leaves by %s instead of by %s", host,
				w.astray.Device, p.Device),
				p.foreignRule())
		case p.noWayBack(w.seen.Counters):
			return NewFinding(Failed, message.New("the answer of %s comes in, and this machine has no IPv4 route to "+
				"clients", host), p.defaultRoute())
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
