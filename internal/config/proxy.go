package config

import (
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/uci"
)

// The IP protocols of proxies.
const (
	TCP uint8 = 6
	UDP uint8 = 17
)

// Proxy is a listener in user space on the VPS that connects to a target.
type Proxy struct {
	Section     string // name of the section, or "proxy[N]" for the Nth anonymous one
	Line        int
	Proto       uint8 // TCP or UDP
	Listen      []Listen
	Target      Target
	TargetLocal bool // the target's name may lead to this machine itself
	// Version of the PROXY protocol that tells the target the client's address; 0 for none.
	ProxyProtocol  int
	Clients        []netip.Prefix // who may use it; nil for everybody
	MaxSessions    int
	MaxPerClient   int           // 0 for no limit
	ConnectTimeout time.Duration // TCP
	IdleTimeout    time.Duration // 0 for none
	Keepalive      time.Duration // TCP; 0 for none
	AccessLog      bool

	Public []netip.Addr // addresses of this VPS, which its network cards lack where a cloud translates them
}

// Listen is an address of this machine with one port or a range.
type Listen struct {
	Addr        netip.Addr // unspecified for every address of its family
	First, Last uint16
}

// String writes it as `list listen` does.
func (l Listen) String() string {
	text := netip.AddrPortFrom(l.Addr, l.First).String()
	if l.Last != l.First {
		text += fmt.Sprintf("-%d", l.Last)
	}
	return text
}

// takes reports whether it includes the given address and port of this machine.
func (l Listen) takes(addr netip.AddrPort) bool {
	// Which other addresses belong to this machine is only known at run time.
	wild := l.Addr.IsUnspecified() && l.Addr.Is4() == addr.Addr().Is4() && addr.Addr().IsLoopback()
	return (wild || l.Addr == addr.Addr()) && l.First <= addr.Port() && addr.Port() <= l.Last
}

// Target is where a proxy connects to.
type Target struct {
	Addr netip.Addr // not valid where Name is set
	Name string     // DNS name
	Port uint16     // for the first listening port; 0 for the port that the client came to
	Each bool       // Port is the first of a range that goes with the listening ports one to one
}

// String writes it as `option target` does; a range is written by its first port.
func (t Target) String() string {
	host := t.Name
	if t.Addr.IsValid() {
		host = t.Addr.String()
		if t.Addr.Is6() && t.Port != 0 {
			host = "[" + host + "]"
		}
	}
	if t.Port == 0 {
		return host
	}
	return fmt.Sprintf("%s:%d", host, t.Port)
}

// PortFor returns the target's port for a client that connected to port of l.
func (t Target) PortFor(l Listen, port uint16) uint16 {
	switch {
	case t.Port == 0:
		return port
	case t.Each:
		return t.Port + port - l.First
	}
	return t.Port
}

// String describes it in one line for status: `tcp 0.0.0.0:443 → [2001:db8::1]:443`.
func (p *Proxy) String() string {
	var listen []string
	for _, l := range p.Listen {
		listen = append(listen, l.String())
	}
	return fmt.Sprintf("%s %s → %s", ProtoName(p.Proto), strings.Join(listen, ", "), p.Target)
}

func listen(s string) (Listen, bool) {
	host, first, last, ok := hostPort(s)
	addr, err := netip.ParseAddr(host)
	bracket := strings.HasPrefix(s, "[")
	if !ok || err != nil || addr.Is4In6() || addr.IsMulticast() || addr.Is6() != bracket || addr.Zone() != "" &&
		!addr.IsLinkLocalUnicast() {
		return Listen{}, false
	}
	return Listen{addr, first, last}, true
}

// hostPort cuts HOST:PORT, HOST:FIRST-LAST or the same with [HOST].
func hostPort(s string) (host string, first, last uint16, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", 0, 0, false
	}
	host = s[:i]
	if inner, bracket := strings.CutPrefix(host, "["); bracket {
		if host, ok = strings.CutSuffix(inner, "]"); !ok {
			return "", 0, 0, false
		}
	} else if strings.Contains(host, ":") {
		return "", 0, 0, false
	}
	first, last, ok = portRange(s[i+1:])
	return host, first, last, ok
}

// target reads a host with a port, a range of ports or none; last is the last port of the range.
func target(s string) (t Target, last uint16, ok bool) {
	host := s
	if h, first, l, hasPort := hostPort(s); hasPort {
		host, t.Port, t.Each, last = h, first, l != first, l
		if strings.HasPrefix(s, "[") && !strings.Contains(h, ":") {
			return t, last, false
		}
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		t.Addr = addr
		unusable := addr.IsUnspecified() || addr.IsMulticast() || addr.Is4In6() ||
			addr == netip.AddrFrom4([4]byte{255, 255, 255, 255})
		return t, last, !unusable && (addr.Zone() == "" || addr.IsLinkLocalUnicast())
	}
	t.Name = host
	return t, last, dnsName(host) || host == "localhost"
}

// network reads an address, or a network without host bits, of IPv4 or IPv6.
func network(s string) (netip.Prefix, bool) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(addr, addr.BitLen()), addr.Zone() == "" && !addr.Is4In6()
	}
	p, err := netip.ParsePrefix(s)
	return p, err == nil && p == p.Masked() && !p.Addr().Is4In6()
}

func protocol(s string) (uint8, bool) {
	switch s {
	case "tcp":
		return TCP, true
	case "udp":
		return UDP, true
	}
	return 0, false
}

// Limits of a proxy's options.
const (
	maxSessions = 1000000
	maxSeconds  = 30 * 24 * 3600
)

// udpIdle is the default idle_timeout of UDP in seconds: longer than the keepalive of WireGuard (25 s) and conntrack's
// time-out of assured streams (120 s).
const udpIdle = 180

func (s *section) proxy(name string) (p *Proxy, enabled bool) {
	seconds := func(option string, low int64) time.Duration {
		return time.Duration(parse(s, option, number(low, maxSeconds))) * time.Second
	}
	p = &Proxy{
		Section:        name,
		Line:           s.line,
		Proto:          parse(s, "proto", protocol),
		ProxyProtocol:  parse(s, "proxy_protocol", number(0, 2)),
		TargetLocal:    parse(s, "target_local", boolean),
		MaxSessions:    parse(s, "max_sessions", number(1, maxSessions)),
		MaxPerClient:   parse(s, "max_per_client", number(0, maxSessions)),
		ConnectTimeout: seconds("connect_timeout", 1),
		IdleTimeout:    seconds("idle_timeout", 0),
		Keepalive:      seconds("keepalive", 0),
		AccessLog:      parse(s, "access_log", boolean),
	}
	for _, value := range s.values("listen") {
		if l, ok := listen(value.Text); ok {
			p.Listen = append(p.Listen, l)
		} else {
			s.refuse(value, "listen")
		}
	}
	for _, value := range s.values("src_ip") {
		if client, ok := network(value.Text); ok {
			p.Clients = append(p.Clients, client)
		} else {
			s.refuse(value, "src_ip")
		}
	}
	if s.has("target") {
		s.target(p, s.values("target")[0])
	}
	if p.Proto == UDP {
		for _, option := range []string{"connect_timeout", "keepalive"} {
			if s.has(option) {
				s.problem(option, "is for tcp; udp has no connections")
			}
		}
		switch {
		case !s.has("idle_timeout"):
			p.IdleTimeout = udpIdle * time.Second
		case p.IdleTimeout == 0:
			s.problem("idle_timeout", "udp sessions end only by it; allowed is a number of seconds from 1 to %d",
				maxSeconds)
		}
		if p.ProxyProtocol == 1 {
			s.problem("proxy_protocol", "version 1 knows only tcp; allowed with udp is 0 or 2")
		}
	}
	s.r.owned = append(s.r.owned, owned{p, s})
	return p, parse(s, "enabled", boolean)
}

// target sets the target; its ports must match those of listen.
func (s *section) target(p *Proxy, value uci.Value) {
	t, last, ok := target(value.Text)
	if !ok {
		s.refuse(value, "target")
		return
	}
	p.Target = t
	for _, l := range p.Listen {
		switch {
		case t.Each && l.Last-l.First != last-t.Port:
			s.problemAt(value, "target", "has %d ports, listen %s has %d; allowed is as many (mapped one to one), "+
				"one port for all, or none (the port that the client came to)",
				int(last)-int(t.Port)+1, l, int(l.Last)-int(l.First)+1)
			return
		case l.reaches(t):
			s.problemAt(value, "target", "is what it listens on itself (%s); allowed is another address or port", l)
			return
		}
	}
}

// reaches reports whether the target may lead a client of l back to l.
func (l Listen) reaches(t Target) bool {
	first, last := t.PortFor(l, l.First), t.PortFor(l, l.Last)
	return l.takes(netip.AddrPortFrom(t.Addr, min(max(first, l.First), last)))
}

// wanted is a `listen` of a proxy; order is its place in the file.
type wanted struct {
	Listen
	proxy *Proxy
	order int
}

// sockets identifies a protocol at an address.
type sockets struct {
	proto uint8
	addr  netip.Addr
}

// proxies reports sockets that two proxies use, or a proxy and a forward of a relay on this VPS.
func (r *reader) proxies(relays []*Relay) {
	if len(r.config.Proxies) == 0 {
		return
	}
	r.loops()
	var all []wanted
	at := map[sockets][]span{}
	for _, p := range r.config.Proxies {
		for _, l := range p.Listen {
			key := sockets{p.Proto, l.Addr}
			at[key] = append(at[key], span{l.First, l.Last, len(all)})
			all = append(all, wanted{l, p, len(all)})
		}
	}
	for key, spans := range at {
		at[key] = r.shared(all, spans)
	}
	for _, relay := range relays {
		for _, p := range r.config.Proxies {
			if relay.Role == VPS && !slices.Contains(p.Public, relay.IPAddr) {
				p.Public = append(p.Public, relay.IPAddr)
			}
		}
	}
	forwarded := forwardedPorts(relays)
	for _, w := range all {
		if i := slices.IndexFunc(relays, func(relay *Relay) bool {
			return relay.Translated() && relay.IPAddr == w.Addr
		}); i >= 0 {
			r.proxyProblem(w, "no packet to this machine has this address: relay %q says that it is translated to %s "+
				"(option nicaddr); allowed is that one, or 0.0.0.0", relays[i].Name, relays[i].NICAddr)
			continue
		}
		if !w.Addr.IsUnspecified() {
			every := netip.IPv6Unspecified()
			if w.Addr.Is4() {
				every = netip.IPv4Unspecified()
			}
			if i, ok := find(at[sockets{w.proxy.Proto, every}], w.First, w.Last); ok {
				r.listenTwice(w, all[i])
			}
		}
		r.forwarded(w, forwarded)
	}
}

// shared reports spans of one address that begin within an earlier one, and returns the spans without overlaps.
func (r *reader) shared(all []wanted, spans []span) []span {
	sort.SliceStable(spans, func(i, j int) bool {
		a, b := &spans[i], &spans[j]
		return a.first < b.first || a.first == b.first && a.owner < b.owner
	})
	for i, furthest := 1, 0; i < len(spans); i++ {
		if spans[i].first <= spans[furthest].last {
			r.listenTwice(all[spans[i].owner], all[spans[furthest].owner])
		}
		if spans[i].last > spans[furthest].last {
			furthest = i
		}
	}
	return disjoint(spans)
}

// listenTwice reports the later one of two that overlap.
func (r *reader) listenTwice(later, earlier wanted) {
	if later.order < earlier.order {
		later, earlier = earlier, later
	}
	if later.proxy == earlier.proxy {
		r.proxyProblem(later, "overlaps with %s of the same proxy; remove one of the two", earlier.Listen)
		return
	}
	r.proxyProblem(later, "overlaps with proxy %q (%s %s); a socket can belong to one proxy only",
		short(earlier.proxy.Section), ProtoName(later.proxy.Proto), earlier.Listen)
}

// taken is a forward for everybody: it takes all packets to its ports. A forward for some clients leaves the others to
// the proxy.
type taken struct {
	forward *Forward
	relay   *Relay
}

// ports are the ports that forwards take from addresses: single ones, and by protocol those of forwards of all. Each is
// also listed for 0.0.0.0.
type ports struct {
	forwards []taken
	own, all map[sockets][]span
}

func forwardedPorts(relays []*Relay) *ports {
	p := &ports{own: map[sockets][]span{}, all: map[sockets][]span{}}
	add := func(to map[sockets][]span, proto uint8, relay *Relay, spans ...span) {
		for _, addr := range append(relay.Addresses(), netip.IPv4Unspecified()) {
			to[sockets{proto, addr}] = append(to[sockets{proto, addr}], spans...)
		}
	}
	for _, relay := range relays {
		if relay.Role != VPS {
			continue
		}
		_, keep := keeps(relay)
		for _, f := range relay.Forwards {
			if len(f.Clients) > 0 {
				continue
			}
			for _, set := range f.Ports {
				add(p.own, set.Proto, relay, within(gaps(keep[set.Proto], len(p.forwards)), set.First, set.Last)...)
			}
			if f.All {
				for _, proto := range []uint8{TCP, UDP} {
					add(p.all, proto, relay, gaps(keep[proto], len(p.forwards))...)
				}
			}
			p.forwards = append(p.forwards, taken{f, relay})
		}
	}
	for _, of := range []map[sockets][]span{p.own, p.all} {
		for key, spans := range of {
			of[key] = disjoint(spans)
		}
	}
	return p
}

// forwarded reports a socket that no packet would reach because a forward takes them all.
func (r *reader) forwarded(w wanted, p *ports) {
	key := sockets{w.proxy.Proto, w.Addr}
	if i, ok := find(p.all[key], w.First, w.Last); ok {
		t := p.forwards[i]
		r.proxyProblem(w, "forward %q of relay %q hands all of %s to the home; keep the port for the proxy (in the "+
			"relay section): list keep '%s'",
			short(t.forward.Section), t.relay.Name, t.relay.IPAddr, PortSet{w.proxy.Proto, w.First, w.Last})
	}
	if i, ok := find(p.own[key], w.First, w.Last); ok {
		t := p.forwards[i]
		r.proxyProblem(w, "overlaps with forward %q of relay %q (%s); a port of %s can go one way only",
			short(t.forward.Section), t.relay.Name, t.forward.brief(), t.relay.IPAddr)
	}
}

func (r *reader) proxyProblem(w wanted, code string, args ...any) {
	r.problems.add(r.at(r.lineOf(w.proxy, "listen"), label("proxy", w.proxy.Section), "listen", w.Listen.String(),
		message.New(code, args...)))
}
