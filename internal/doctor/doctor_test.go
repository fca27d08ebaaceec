package doctor

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/message/messagetest"
	"github.com/ds4relay/ds4relay/internal/packet"
	"github.com/ds4relay/ds4relay/internal/state"
	"github.com/ds4relay/ds4relay/internal/transport"
)

var update = flag.Bool("update", false, "write docs/troubleshooting.md anew")

// docs/troubleshooting.md has a hand-written text, followed by all findings of the doctor.
const (
	troubleshooting = "../../docs/troubleshooting.md"
	generated       = "<!-- What follows is written by `go test ./internal/doctor -update`. -->\n"
)

const relayText = `config relay 'home'
	option role '%s'
	option ipaddr '198.51.100.144'
	option ip6addr '%s'
	option peeraddr '%s'
	option device 'ds4-home'
config forward 'web'
	option proto 'tcp'
	option src_dport '443'
	option dest_ip '192.168.1.210'
`

const encryptedText = `config relay 'home'
	option role '%s'
	option transport 'wireguard'
	option ipaddr '198.51.100.144'
	option public_key '%s'
	option device 'ds4-home'
%sconfig forward 'web'
	option proto 'tcp'
	option src_dport '443'
	option dest_ip '192.168.1.210'
`

var (
	now    = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	vps6   = netip.MustParseAddr("2001:db8:6ef9:0:198:51:100:144")
	home6  = netip.MustParseAddr("2001:db8:fdd2:0:198:51:100:144")
	host4  = netip.MustParseAddr("192.168.1.210")
	public = netip.MustParseAddr("198.51.100.144")
	home4  = netip.MustParseAddrPort("203.0.113.77:40123")
	vps4   = netip.AddrPortFrom(public, transport.DefaultPort)
)

// fake is a machine without faults, except what a case changes.
type fake struct {
	role      config.Role
	text      string
	sys       System
	installed Installed
	path      Path
	pathErr   error
	neighbour string
	connect   error
	ping      func(from netip.Addr, bytes int) Pong

	// What happens to a probe through the tunnel.
	sendErr     error
	notOut      bool           // it does not leave this machine
	refusal     *packet.Packet // ICMPv6 about it
	lost        bool           // on the way
	hostAtEnd   bool           // VPS: the host is the router at home, which answers as such
	others      bool           // packets of others come in
	notIn       bool           // the answer comes, and not out of the tunnel
	there       int            // how large a packet may be
	probeDrop   *Verdict
	walkErr     error
	outside     bool           // router: a client's packet does not come out of the tunnel
	stuck       bool           // it does not go on
	elsewhere   *Sighting      // it, or the answer, leaves by another device, or this machine answers
	hostAnswer  *packet.Packet // nil for none
	container   bool           // router: a container answers on the port of this machine that it publishes
	answerStuck bool
	walkVerdict *Verdict
	counters    map[string]uint64
	clients     int  // open connections, but one
	arrives     bool // a packet of protocol 4 at the other end, which may not answer by the tunnel

	// What happens to a packet over a router's own line.
	lineLost     bool       // it does not arrive
	lineNotHere  bool       // it does not come in by the tunnel
	lineNoAnswer bool       // nothing comes back
	otherHost    netip.Addr // where the VPS sends it
	direct       bool       // the line has a public address

	// With WireGuard.
	session Session
	shakes  []shake // of the handshake, in order
	foreign bool    // an initiation for another key
	taker   netip.AddrPort
	plain   bool // the home has no ds4relay
}

// withoutDS4relay makes the home of a VPS a WireGuard client without ds4relay.
func withoutDS4relay(f *fake) {
	f.plain, f.text = true, strings.Replace(f.text, "\toption device", "\toption peer 'plain'\n\toption device", 1)
}

// shake is a packet of WireGuard by its type.
type shake struct {
	out  bool
	kind uint8
}

func well(role config.Role) *fake {
	f := &fake{role: role, sys: System{Kernel: "6.6.1", MaxTracked: 65536, Now: now, IPv4Default: true,
		Modules: map[string]bool{ModuleIPIP6: true, ModuleWireGuard: true}},
		path: Path{Local: vps6, Peer: home6, MTU: 1460, Uplink: "eth0", Access: "eth0"}, there: 65536}
	if role == config.Router {
		f.path = Path{Local: home6, Peer: vps6, MTU: 1460, Uplink: "eth1", LAN: map[netip.Addr]string{host4: "br-lan"}}
		f.sys.OpenWrt = true
	}
	f.text = fmt.Sprintf(relayText, role, f.path.Local, f.path.Peer)
	f.ping = func(netip.Addr, int) Pong { return Pong{Answered: true} }
	f.hostAnswer = &packet.Packet{Src: host4, Dst: TestClient, Proto: packet.TCP, Flags: packet.SYN | packet.ACK}
	return f
}

// encrypted is like well, with transport wireguard.
func encrypted(role config.Role) *fake {
	f := well(role)
	f.path = Path{MTU: 1420, Uplink: "eth0", Access: "eth0", Remote: home4}
	peer := ""
	if role == config.Router {
		f.path = Path{Peer: public, Remote: vps4, MTU: 1440, Uplink: "eth1",
			LAN: map[netip.Addr]string{host4: "br-lan"}}
		peer = "\toption peeraddr '198.51.100.144'\n"
	}
	f.text = fmt.Sprintf(encryptedText, role, transport.Key{1}, peer)
	f.session = Session{Key: transport.Key{2}, Remote: f.path.Remote, Handshake: now.Add(-12 * time.Second), Now: now}
	return f
}

// noHandshake is a machine whose handshakes get as far as the packets, after the last one that was so long ago (0:
// never).
func noHandshake(f *fake, ago time.Duration, shakes ...shake) {
	e := encrypted(f.role)
	e.lost, e.lineLost, e.shakes = true, true, shakes
	e.session.Handshake = time.Time{}
	if ago != 0 {
		e.session.Handshake = now.Add(-ago)
	}
	*f = *e
}

func (f *fake) Session(*config.Relay) Session                         { return f.session }
func (f *fake) Taker(_ *config.Relay, from netip.Addr) netip.AddrPort { return f.taker }

func (f *fake) Config() (*config.Config, config.Problems, error) {
	file, err := os.CreateTemp("", "ds4relay")
	if err != nil {
		return nil, nil, err
	}
	defer os.Remove(file.Name())
	if _, err := file.WriteString(f.text); err != nil {
		return nil, nil, err
	}
	file.Close()
	c, problems, err := config.Load(file.Name(), config.Defaults{Role: f.role})
	named := func(problems config.Problems) config.Problems {
		for i := range problems {
			problems[i].File = config.DefaultPath
		}
		return problems
	}
	named(problems)
	var mistakes config.Problems
	if errors.As(err, &mistakes) {
		return nil, nil, named(mistakes)
	}
	if c != nil {
		c.Path = config.DefaultPath
	}
	return c, problems, err
}
func (f *fake) System() System                              { return f.sys }
func (f *fake) Installed(*config.Config) (Installed, error) { return f.installed, nil }
func (f *fake) Path(*config.Relay) (Path, error)            { return f.path, f.pathErr }
func (f *fake) Clients(*config.Relay) int                   { return 1 + f.clients }
func (f *fake) Neighbour(string, netip.Addr) string         { return f.neighbour }
func (f *fake) Ping(from, _ netip.Addr, bytes int) Pong     { return f.ping(from, bytes) }

func (f *fake) Try(t Trial) (seen Seen) {
	see := func(device string, out bool, p packet.Packet) {
		if s := (Sighting{device, out, p}); t.Match(s) {
			seen.Sightings = append(seen.Sightings, s)
			t.Done(s)
		}
	}
	for _, d := range t.Dials {
		if d.To == public {
			f.line(d, see)
		} else if f.connect == nil {
			see("br-lan", false, packet.Packet{Src: host4, Dst: netip.MustParseAddr("192.168.1.1"), Proto: d.Proto,
				SrcPort: d.Port, Flags: packet.SYN | packet.ACK})
		}
	}
	seen.Foreign = f.foreign
	if t.FollowPort != 0 && len(t.Packets) == 0 {
		f.handshake(t, see)
		if f.probeDrop != nil {
			seen.Verdicts = []Verdict{*f.probeDrop}
		}
	}
	for _, data := range t.Packets {
		p, ok := packet.Decode(data)
		if !ok {
			panic("the doctor sends what is no packet")
		}
		verdict := f.walkVerdict
		switch {
		case t.Into != "":
			verdict = f.probeDrop
			seen.Err = f.sendErr
			f.probe(t, p, see)
			f.handshake(t, see)
		case t.By == "":
			if f.arrives {
				see(f.path.Uplink, false, packet.Packet{Src: f.path.Peer, Dst: f.path.Local, Proto: packet.ICMPv6,
					Type: packet.Parameter6})
			}
		default:
			if seen.Err = f.walkErr; seen.Err == nil {
				f.walk(p, see)
				seen.Counters = f.counters
			}
		}
		if verdict != nil && (t.Follow.IsValid() || t.FollowPort != 0) {
			seen.Verdicts = []Verdict{*verdict}
		}
	}
	return seen
}

// line is what happens to a packet that a router sends over its own line.
func (f *fake) line(t Dial, see func(string, bool, packet.Packet)) {
	p := packet.Packet{Src: netip.MustParseAddr("192.0.0.2"), Dst: t.To, Proto: t.Proto, SrcPort: 40000,
		DstPort: t.Port}
	if t.Proto == packet.TCP {
		p.Flags = packet.SYN
	}
	see("ds-wan6_4", true, p)
	if f.lineLost {
		return
	}
	answer := packet.Packet{Src: t.To, Dst: p.Src, Proto: t.Proto, SrcPort: t.Port, DstPort: 40000,
		Flags: packet.SYN | packet.ACK}
	if !f.lineNotHere {
		p.Dst = host4
		if f.otherHost.IsValid() {
			p.Dst = f.otherHost
		}
		if !f.direct {
			p.Src = netip.MustParseAddr("203.0.113.1")
		}
		outer := p
		outer.Outer = &packet.Outer{Src: f.path.Peer, Dst: f.path.Local}
		if f.path.Remote.IsValid() {
			outer = f.udp(shake{false, transport.Data})
		}
		see(f.path.Uplink, false, outer)
		if p.Dst != host4 && outer.Outer != nil {
			return
		}
		see("ds4-home", false, p)
		if p.Dst != host4 {
			return
		}
	}
	if !f.direct && !f.lineNoAnswer {
		see("ds-wan6_4", false, answer)
	}
}

func (f *fake) probe(t Trial, p packet.Packet, see func(string, bool, packet.Packet)) {
	if f.sendErr != nil || f.notOut {
		return
	}
	outer := p
	outer.Outer = &packet.Outer{Src: f.path.Local, Dst: f.path.Peer}
	if f.path.Remote.IsValid() {
		outer = f.udp(shake{true, transport.Data})
	}
	see(f.path.Uplink, true, outer)
	if f.refusal != nil {
		r := *f.refusal
		r.Dst, r.Quoted = f.path.Local, &outer
		if r.Proto == 0 {
			r.Proto = packet.ICMPv6
		}
		see(f.path.Uplink, false, r)
		return
	}
	from := &packet.Outer{Src: f.path.Peer, Dst: f.path.Local}
	if f.others {
		see(f.path.Uplink, false, packet.Packet{Src: host4, Dst: public, Proto: packet.UDP, Outer: from})
		see(f.path.Uplink, false, packet.Packet{Src: public, Dst: p.Src, Proto: packet.UDP, Outer: from})
	}
	if f.lost || p.Len > f.there {
		return
	}
	answer := packet.Packet{Src: netip.MustParseAddr("192.0.0.2"), Dst: p.Src, Proto: packet.ICMP,
		Type: packet.TimeExceeded, Quoted: &p}
	if f.hostAtEnd {
		answer = packet.Packet{Src: p.Dst, Dst: p.Src, Proto: packet.TCP, SrcPort: p.DstPort, DstPort: p.SrcPort,
			Flags: packet.SYN | packet.ACK}
	}
	arrived := answer
	arrived.Outer = from
	if f.path.Remote.IsValid() {
		arrived = f.udp(shake{false, transport.Data})
	}
	see(f.path.Uplink, false, arrived)
	if !f.notIn {
		see(t.Into, false, answer)
	}
}

// udp is a packet of WireGuard on the wire.
func (f *fake) udp(s shake) packet.Packet {
	here, there := netip.AddrPortFrom(public, transport.DefaultPort), home4
	if f.role == config.Router {
		here, there = netip.MustParseAddrPort("192.168.178.2:40123"), vps4
	}
	if !s.out {
		here, there = there, here
	}
	return packet.Packet{Src: here.Addr(), SrcPort: here.Port(), Dst: there.Addr(), DstPort: there.Port(),
		Proto: packet.UDP, Type: s.kind}
}

// handshake shows WireGuard's packets to a trial that waits for them.
func (f *fake) handshake(t Trial, see func(string, bool, packet.Packet)) {
	if t.FollowPort == 0 || f.notOut {
		return
	}
	for _, s := range f.shakes {
		see(f.path.Uplink, s.out, f.udp(s))
	}
}

func (f *fake) walk(p packet.Packet, see func(string, bool, packet.Packet)) {
	inner := p
	inner.Outer, inner.Dst = nil, host4
	answer := packet.Packet{}
	if f.hostAnswer != nil {
		answer = *f.hostAnswer
		answer.DstPort = p.SrcPort
		if answer.IsError() {
			answer.Quoted = &inner
		}
	}
	if f.role == config.VPS {
		see("eth0", false, p)
		if f.elsewhere != nil {
			other := f.elsewhere.Packet
			other.SrcPort, other.Proto = p.SrcPort, p.Proto
			see(f.elsewhere.Device, true, other)
			return
		}
		if f.stuck {
			return
		}
		through := answer
		if f.plain {
			inner.Src, through.Dst = config.PlainAddr, config.PlainAddr
		}
		see("ds4-home", true, inner)
		if f.hostAnswer == nil {
			return
		}
		see("ds4-home", false, through)
		answer.Src = public
		if !f.answerStuck {
			see("eth0", true, answer)
		}
		return
	}
	if p.Outer != nil {
		see("eth1", false, p)
	}
	if f.outside {
		return
	}
	see("ds4-home", false, inner)
	if f.stuck {
		return
	}
	if !f.path.Self[host4] {
		see("br-lan", true, inner)
	}
	if f.container {
		inner.Dst = netip.MustParseAddr("172.17.0.2")
		see("docker0", true, inner)
	}
	if f.hostAnswer == nil {
		return
	}
	if !f.path.Self[host4] {
		see("br-lan", false, answer)
	}
	if f.elsewhere != nil {
		see(f.elsewhere.Device, true, answer)
		return
	}
	if f.answerStuck {
		return
	}
	see("ds4-home", true, answer)
	if p.Outer != nil {
		answer.Outer = &packet.Outer{Src: f.path.Local, Dst: f.path.Peer}
		see("eth1", true, answer)
	}
}

// diagnosis is a fault and the check that finds it. They are in the order of the checks.
type diagnosis struct {
	check string
	role  config.Role
	state State
	fault func(*fake)
	says  string // in the evidence
}

var foreign = Verdict{Family: "inet", Table: "filter", Chain: "input", Policy: true, Drop: true}

func forwardChain(hint string) *Verdict {
	return &Verdict{Family: "ip", Table: "filter", Chain: "FORWARD", Policy: true, Drop: true, Hint: hint}
}

var diagnoses = []diagnosis{
	{"config", config.VPS, Failed, func(f *fake) { f.text = strings.Replace(f.text, "198.51.100.144", "10.0.0.1", 1) },
		`option ipaddr "10.0.0.1"`},
	{"config", config.VPS, Warning, func(f *fake) { f.text += "\toption enabled '0'\n" }, "no forward that is enabled"},
	{"config", config.VPS, Warning, func(f *fake) {
		f.text = strings.Replace(f.text, "\toption role", "\tlist allow 'tcp:1-65535'\n\toption role", 1) +
			"\toption enabled '0'\n"
	}, "the home has told none"},
	{"config", config.VPS, Failed, func(f *fake) {
		f.text = strings.Replace(f.text, "option role", "option enabled '0'\n\toption role", 1)
	}, "no relay that is enabled"},
	{"config", config.VPS, Warning, func(f *fake) { f.text += "\toption colour 'red'\n" }, "colour"},
	{"system", config.VPS, Failed, func(f *fake) { f.sys.Modules = nil }, "the module ip6_tunnel is not loaded"},
	{"system", config.Router, Failed, func(f *fake) { f.sys.Modules = nil }, "the module ip6_tunnel is not loaded"},
	{"system", config.VPS, Failed, func(f *fake) {
		*f = *encrypted(f.role)
		f.sys.Modules[ModuleWireGuard] = false
	}, "the module wireguard is not loaded"},
	{"system", config.Router, Failed, func(f *fake) {
		*f = *encrypted(f.role)
		f.sys.Modules[ModuleWireGuard] = false
	}, "the module wireguard is not loaded"},
	{"system", config.VPS, Failed, func(f *fake) { f.sys.NftErr = errors.New("the program nft is missing") },
		"nft does not run"},
	{"endpoints", config.VPS, Failed, func(f *fake) {
		f.text = strings.Replace(f.text, home6.String(), "home.example.org", 1)
		f.pathErr = message.New("look up peeraddr %s: %v", "home.example.org", errors.New("no such host"))
	}, "no such host"},
	{"endpoints", config.VPS, Warning, func(f *fake) {
		f.path.PeerNote = message.New("relay %q: %v; the tunnel keeps the last address, %s", "home",
			message.New("look up peeraddr %s: %v", "home.example.org", errors.New("timeout")), home6)
	}, "keeps the last address"},
	{"endpoints", config.Router, Failed, func(f *fake) {
		f.pathErr = state.Waiting("home",
			message.New("a delegated IPv6 prefix, or a lasting public IPv6 address (`ifstatus wan6`)"))
	}, "waits for"},
	{"endpoints", config.Router, Failed, func(f *fake) {
		f.sys.OpenWrt = false
		f.pathErr = state.Waiting("home", message.New("a lasting public IPv6 address on %s (`ip -6 address show dev %s`: "+
			"global, not temporary or deprecated)", "eth0", "eth0"))
	}, "waits for"},
	{"endpoints", config.VPS, Warning, func(f *fake) { // as `ds4relay setup` leaves it
		f.text = "config relay 'home'\n\toption role 'vps'\n\toption ipaddr '198.51.100.144'\n\toption ip6addr '" +
			vps6.String() + "'\n\tlist allow 'tcp:1-65535'\n"
		f.pathErr = state.Waiting("home", message.New("its home (`ds4relay invite %s` prints an invitation for it)",
			"home"))
	}, "waits for its home"},
	{"endpoints", config.VPS, Failed, func(f *fake) {
		f.pathErr = message.New("relay %q: %v", "home",
			message.New("there is no device %s (option tunlink); this machine has: %s", "ens3", "lo, eth0"))
	}, "no device ens3"},
	{"endpoints", config.Router, Failed, func(f *fake) {
		*f = *encrypted(f.role)
		f.text = strings.Replace(f.text, "peeraddr '198.51.100.144'", "peeraddr 'vps.example.org'", 1)
		f.pathErr = message.New("relay %q: %v", "home",
			message.New("look up peeraddr %s: %v", "vps.example.org", errors.New("no such host")))
	}, "no such host"},
	{"endpoints", config.VPS, Failed, func(f *fake) {
		*f = *encrypted(f.role)
		f.pathErr = message.New("relay %q: %v", "home", message.New("there is no file %s with the private key; make "+
			"one: ds4relay genkey %s", "/etc/ds4relay/keys/home", "home"))
	}, "there is no file"},
	{"installed", config.VPS, Failed, func(f *fake) {
		f.installed.Differs = []string{"ip -4 route add 192.168.1.210/32 dev ds4-home proto 46"}
	}, "ip -4 route add"},
	{"installed", config.VPS, Failed, func(f *fake) {
		f.installed.Blocked = []*message.Text{message.New("relay %q: there is a device %s already "+
			"that ds4relay did not make (%s); "+
			"remove it, or give the tunnel another name with: option device", "home", "ds4-home", "dummy")}
	}, "there is a device ds4-home already"},
	{"conntrack", config.VPS, Failed, func(f *fake) { f.sys.Tracked = 65000 }, "new ones are dropped"},
	{"conntrack", config.VPS, Warning, func(f *fake) { f.sys.Tracked = 55000 }, "55000 connections"},
	{"peer", config.VPS, Failed, func(f *fake) { f.path.Uplink = "" }, "no IPv6 route"},
	{"peer", config.VPS, Failed, func(f *fake) {
		f.ping = func(netip.Addr, int) Pong {
			return Pong{Error: message.New("%s says: %s", "2001:db8:fdd1::1", message.New("destination unreachable"))}
		}
		f.lost = true
	}, "does not answer ping: 2001:db8:fdd1::1 says"},
	{"peer", config.Router, Failed, func(f *fake) {
		*f = *encrypted(f.role)
		f.path.Uplink = ""
	}, "no route to 198.51.100.144"},
	{"routed", config.VPS, Failed, func(f *fake) {
		f.ping = func(from netip.Addr, _ int) Pong { return Pong{Answered: from != vps6} }
	}, "answers to it do not arrive"},
	{"routed", config.Router, Failed, func(f *fake) {
		f.ping = func(from netip.Addr, _ int) Pong { return Pong{Answered: from != home6} }
	}, "answers to it do not arrive"},
	{"routed", config.Router, Failed, func(f *fake) {
		f.sys.OpenWrt = false
		f.ping = func(from netip.Addr, _ int) Pong { return Pong{Answered: from != home6} }
	}, "answers to it do not arrive"},
	{"tunnel", config.VPS, Failed, func(f *fake) { f.sendErr = errors.New("send into ds4-home: network is down") },
		"no packet goes into the tunnel"},
	{"tunnel", config.VPS, Failed, func(f *fake) {
		f.notOut, f.probeDrop = true, &Verdict{Family: "inet", Table: "filter", Chain: "output", Drop: true}
	}, "no packet out: this machine's firewall drops protocol 4 (nft table inet filter, a rule of chain output)"},
	{"tunnel", config.VPS, Failed, func(f *fake) { f.notOut = true }, "no packet out: what goes into the tunnel does " +
		"not leave"},
	{"tunnel", config.VPS, Failed, func(f *fake) {
		f.refusal = &packet.Packet{Src: home6, Type: packet.Unreachable6, Code: 4}
	}, "which refuses them"},
	{"tunnel", config.VPS, Failed, func(f *fake) {
		f.refusal = &packet.Packet{Src: netip.MustParseAddr("2001:db8:fdd1::1"), Type: packet.Unreachable6, Code: 1}
	}, "forbidden by a firewall"},
	{"tunnel", config.VPS, Failed, func(f *fake) { f.lost = true }, "no packet in: 1 went out"},
	{"tunnel", config.VPS, Failed, func(f *fake) { f.lost, f.others = true, true }, "lost on the way there"},
	{"tunnel", config.Router, Failed, func(f *fake) { f.lost, f.lineLost = true, true }, "no packet in: 1 went out"},
	{"tunnel", config.VPS, Failed, func(f *fake) { f.lost, f.arrives = true, true },
		"arrive at the router at home, and no answer comes back"},
	{"tunnel", config.Router, Warning, func(f *fake) { f.lost, f.arrives, f.sys.IPv4Default = true, true, false },
		"arrive at the VPS, and no answer comes back"},
	{"tunnel", config.Router, Failed, func(f *fake) { f.lost, f.arrives, f.lineLost = true, true, true },
		"arrive at the VPS, and no answer comes back"},
	{"tunnel", config.Router, Failed, func(f *fake) {
		f.lost, f.otherHost = true, netip.MustParseAddr("192.168.1.99")
	}, "sends packets to 192.168.1.99"},
	{"tunnel", config.VPS, Failed, func(f *fake) { f.notIn, f.probeDrop = true, &foreign },
		"drops them (nft table inet filter, the policy of chain input)"},
	{"tunnel", config.Router, Failed, func(f *fake) {
		f.notIn, f.probeDrop = true, &Verdict{Family: "inet", Table: "fw4", Chain: "input_wan", Drop: true, Hint: "fw4"}
	}, "nft table inet fw4"},
	{"tunnel", config.VPS, Failed, func(f *fake) { f.notIn = true }, "do not come out of ds4-home"},
	{"tunnel", config.Router, Failed, func(f *fake) {
		noHandshake(f, 0)
		f.sendErr = errors.New("send into ds4-home: network is down")
	}, "no packet goes into the tunnel"},
	{"tunnel", config.Router, Failed, func(f *fake) {
		noHandshake(f, 0)
		f.notOut, f.probeDrop = true, &Verdict{Family: "inet", Table: "filter", Chain: "output", Drop: true}
	}, "no packet out: this machine's firewall drops WireGuard's packets"},
	{"tunnel", config.Router, Failed, func(f *fake) {
		noHandshake(f, 0)
		f.notOut = true
	}, "no packet out: what goes into the tunnel does not leave"},
	{"tunnel", config.Router, Failed, func(f *fake) {
		noHandshake(f, 0, begins, answersIt)
		f.probeDrop = &foreign
	}, "this machine's firewall drops them"},
	{"tunnel", config.Router, Failed, func(f *fake) {
		noHandshake(f, 0, begins)
		f.refusal = &packet.Packet{Src: public, Proto: packet.ICMP, Type: packet.Unreachable, Code: 3}
	}, "nothing listens on UDP port 51846"},
	{"tunnel", config.Router, Failed, func(f *fake) {
		noHandshake(f, 0, begins)
		f.refusal = &packet.Packet{Src: netip.MustParseAddr("203.0.113.1"), Proto: packet.ICMP,
			Type: packet.Unreachable, Code: 13}
	}, "refused on the way: 203.0.113.1 says: forbidden by a firewall"},
	{"tunnel", config.Router, Failed, func(f *fake) { noHandshake(f, 0, begins, answersIt) }, "its answer is not " +
		"valid here"},
	{"tunnel", config.Router, Failed, func(f *fake) {
		noHandshake(f, 0, begins)
		f.session.Now = time.Date(2025, 10, 1, 3, 0, 0, 0, time.UTC)
	}, "it is 2025-10-01 03:00 UTC here"},
	{"tunnel", config.Router, Failed, func(f *fake) { noHandshake(f, -time.Hour, begins) },
		"it is 2026-11-01 12:00 UTC here"},
	{"tunnel", config.Router, Failed, func(f *fake) { noHandshake(f, time.Hour, begins) },
		"no packet in: 2 went out to 198.51.100.144:51846"},
	{"tunnel", config.Router, Failed, func(f *fake) {
		noHandshake(f, time.Hour, begins, shake{false, transport.Initiation})
	}, "packets come from the VPS, but no answer"},
	{"tunnel", config.Router, Failed, func(f *fake) {
		noHandshake(f, time.Minute, shake{false, transport.Data})
	}, "no answer to what goes through ds4-home"},
	{"tunnel", config.Router, Failed, func(f *fake) {
		noHandshake(f, time.Minute, shake{false, transport.Data})
		f.lineLost, f.otherHost = false, netip.MustParseAddr("192.168.1.99")
	}, "sends packets to 192.168.1.99"},
	{"tunnel", config.Router, Failed, func(f *fake) {
		noHandshake(f, 0, shake{false, transport.Initiation}, shake{true, transport.Response})
	}, "the VPS's handshakes are answered, but never completed"},
	{"tunnel", config.VPS, Failed, func(f *fake) {
		noHandshake(f, 0)
		f.path.Remote, f.session.Remote, f.sendErr = netip.AddrPort{}, netip.AddrPort{}, errors.New("no endpoint")
	}, "no packet in: nothing came to UDP port 51846"},
	{"tunnel", config.VPS, Failed, func(f *fake) { noHandshake(f, time.Hour) }, "(the last handshake was 3600 s ago)"},
	{"tunnel", config.VPS, Failed, func(f *fake) {
		noHandshake(f, 0)
		f.path.Unheard = message.Plain("no device has the address 198.51.100.144 (option ipaddr), and ens5 has only " +
			"10.0.0.5: the provider translates the address, and clients' packets carry the private one")
	}, "the provider translates"},
	{"tunnel", config.VPS, Failed, func(f *fake) {
		noHandshake(f, 0, arrivesThere)
		f.probeDrop = &foreign
	}, "this machine's firewall drops them"},
	{"tunnel", config.VPS, Failed, func(f *fake) {
		noHandshake(f, time.Hour, arrivesThere)
		f.taker = netip.MustParseAddrPort("172.17.0.2:51820")
	}, "sends them on to 172.17.0.2:51820"},
	{"tunnel", config.VPS, Failed, func(f *fake) {
		noHandshake(f, 0, arrivesThere)
		f.foreign = true
	}, "made for another public key"},
	{"tunnel", config.VPS, Failed, func(f *fake) { noHandshake(f, 0, arrivesThere) }, "with another key than option"},
	{"tunnel", config.VPS, Failed, func(f *fake) {
		noHandshake(f, 0, arrivesThere)
		withoutDS4relay(f)
	}, "with another key than option"},
	{"tunnel", config.VPS, Failed, func(f *fake) {
		noHandshake(f, 0)
		withoutDS4relay(f)
	}, "no packet in: nothing came to UDP port 51846"},
	{"tunnel", config.VPS, Failed, func(f *fake) {
		noHandshake(f, time.Minute, shake{false, transport.Data})
		withoutDS4relay(f)
	}, "but no answer to what goes through ds4-home"},
	{"tunnel", config.VPS, Failed, func(f *fake) { noHandshake(f, time.Hour, arrivesThere) }, "with a time before " +
		"the last one's"},
	{"tunnel", config.VPS, Failed, func(f *fake) { noHandshake(f, 0, arrivesThere, shake{true, transport.Response}) },
		"are answered, but never completed"},
	{"tunnel", config.VPS, Failed, func(f *fake) {
		noHandshake(f, 0, arrivesThere, shake{true, transport.Response})
		f.text = strings.Replace(f.text, "\toption device", "\toption preshared_key_file '/etc/ds4relay/keys/psk'\n"+
			"\toption device", 1)
	}, "are answered, but never completed"},
	{"tunnel", config.VPS, Failed, func(f *fake) { noHandshake(f, time.Minute, shake{false, transport.Data}) },
		"but no answer to what goes through ds4-home"},
	{"tunnel", config.VPS, Failed, func(f *fake) {
		noHandshake(f, time.Hour, shake{true, transport.Initiation}, shake{false, transport.Response})
	}, "the home answers the handshake, but its answer"},
	{"tunnel", config.VPS, Failed, func(f *fake) { noHandshake(f, 0, shake{false, transport.Data}) },
		"encrypted with old keys"},
	{"tunnel", config.VPS, Failed, func(f *fake) {
		noHandshake(f, time.Hour)
		f.refusal = &packet.Packet{Src: home4.Addr(), Proto: packet.ICMP, Type: packet.Unreachable, Code: 3}
	}, "packets to the home at 203.0.113.77:40123 are refused: 203.0.113.77 says: port unreachable"},
	{"mtu", config.VPS, Failed, func(f *fake) { f.there = 1372 }, "packets of 1460 bytes to the router at " +
		"home are lost"},
	{"mtu", config.VPS, Failed, func(f *fake) {
		f.ping = func(_ netip.Addr, bytes int) Pong { return Pong{Answered: bytes <= 1412} }
	}, "packets of 1460 bytes from the router at home are lost"},
	{"mtu", config.VPS, Warning, func(f *fake) { f.path.LearntMTU = 1492 }, "the path carries 1452 bytes"},
	{"mtu", config.Router, Failed, func(f *fake) {
		*f = *encrypted(f.role)
		f.there = 1372
	}, "packets of 1440 bytes to the VPS are lost"},
	{"mtu", config.Router, Failed, func(f *fake) {
		*f = *encrypted(f.role)
		f.there, f.text = 1372, strings.Replace(f.text, "\toption device", "\toption mtu '1440'\n\toption device", 1)
	}, "packets of 1440 bytes to the VPS are lost"},
	{"mtu", config.Router, Warning, func(f *fake) {
		*f = *encrypted(f.role)
		f.path.LearntMTU = 1492
	}, "large packets go in fragments"},
	{"forward", config.VPS, Failed, func(f *fake) { f.stuck, f.walkVerdict = true, forwardChain("") },
		"nft table ip filter, the policy of chain FORWARD"},
	{"forward", config.VPS, Failed, func(f *fake) { f.stuck, f.walkVerdict = true, forwardChain("firewalld") },
		"nft table ip filter"},
	{"forward", config.Router, Failed, func(f *fake) {
		f.stuck, f.walkVerdict = true, &Verdict{Family: "inet", Table: "fw4", Chain: "handle_reject", Drop: true,
			Hint: "fw4"}
	}, "nft table inet fw4"},
	{"forward", config.VPS, Failed, func(f *fake) {
		f.stuck, f.counters = true, map[string]uint64{"TcpExtIPReversePathFilter": 1}
	}, "rp_filter drops it"},
	{"forward", config.Router, Failed, func(f *fake) {
		f.stuck, f.counters = true, map[string]uint64{"IpExtInNoRoutes": 1}
	}, "there is no route for it"},
	{"forward", config.VPS, Failed, func(f *fake) {
		f.stuck, f.sys.IPv4Default, f.counters = true, false, map[string]uint64{"TcpExtIPReversePathFilter": 1}
	}, "no IPv4 route to clients"},
	{"forward", config.VPS, Failed, func(f *fake) { f.stuck = true }, "does not go on"},
	{"forward", config.VPS, Failed, func(f *fake) {
		f.elsewhere = &Sighting{Device: "docker0",
			Packet: packet.Packet{Src: TestClient, Dst: netip.MustParseAddr("172.17.0.2")}}
		f.walkVerdict = &Verdict{Family: "ip", Table: "nat", Chain: "DOCKER", Hint: "docker"}
	}, "leaves by docker0 to 172.17.0.2 instead of by ds4-home (nft table ip nat, chain DOCKER, comes first)"},
	{"forward", config.VPS, Failed, func(f *fake) {
		f.elsewhere = &Sighting{Device: "eth0", Packet: packet.Packet{Src: public, Dst: TestClient}}
	}, "this machine answers a client's packet itself"},
	{"forward", config.VPS, Failed, func(f *fake) {
		f.elsewhere = &Sighting{Device: "ds4-home", Packet: packet.Packet{Src: public, Dst: host4}}
		f.walkVerdict = &Verdict{Family: "ip", Table: "mine", Chain: "post"}
	}, "the client's address is hidden: its packet goes into ds4-home with the source 198.51.100.144"},
	{"forward", config.Router, Failed, func(f *fake) { f.path.LAN = nil }, "no route to 192.168.1.210"},
	{"forward", config.Router, Failed, func(f *fake) { f.outside = true }, "did not come out of ds4-home"},
	{"host", config.VPS, Failed, func(f *fake) {
		f.hostAnswer = &packet.Packet{Src: netip.MustParseAddr("192.168.1.1"), Dst: TestClient, Proto: packet.ICMP,
			Type: packet.Unreachable, Code: 1}
	}, "host unreachable"},
	{"host", config.VPS, Failed, func(f *fake) { f.hostAnswer.Flags = packet.RST | packet.ACK },
		"192.168.1.210:443 refuses"},
	{"host", config.VPS, Failed, func(f *fake) {
		f.hostAnswer = &packet.Packet{Src: host4, Dst: TestClient, Proto: packet.ICMP, Type: packet.Unreachable,
			Code: 10}
	}, "192.168.1.210:443 refuses: forbidden by a firewall"},
	{"host", config.VPS, Failed, func(f *fake) {
		f.text = strings.Replace(f.text, "'tcp'\n\toption src_dport '443'", "'gre'", 1)
		f.hostAnswer = &packet.Packet{Src: host4, Dst: TestClient, Proto: packet.ICMP, Type: packet.Unreachable,
			Code: 2}
	}, "it takes no gre"},
	{"host", config.VPS, Warning, func(f *fake) {
		f.text = strings.Replace(f.text, "'443'", "'1024-65535'", 1)
		f.hostAnswer.Flags = packet.RST | packet.ACK
	}, "refuses what was tried: tcp:1024, tcp:3389"},
	{"host", config.VPS, Failed, func(f *fake) { f.hostAnswer = nil }, "does not answer, though packets come to " +
		"the router"},
	{"host", config.Router, Failed, func(f *fake) { f.hostAnswer, f.neighbour = nil, NoAnswer },
		"nobody on br-lan has the address"},
	{"host", config.Router, Failed, func(f *fake) { f.hostAnswer = nil }, "answers this router, but not a client"},
	{"host", config.Router, Failed, func(f *fake) { f.hostAnswer, f.connect = nil, errors.New("no answer") },
		"answers neither a client nor this router"},
	{"host", config.Router, Failed, func(f *fake) { itself(f); f.hostAnswer = nil }, "nothing on this router answers " +
		"at 192.168.1.210:443"},
	{"answer", config.Router, Failed, func(f *fake) { f.elsewhere = &Sighting{Device: "ds-wan6_4"} },
		"leaves by ds-wan6_4 instead of by ds4-home"},
	{"answer", config.VPS, Failed, func(f *fake) { f.answerStuck, f.walkVerdict = true, forwardChain("") },
		"drops the answer"},
	{"answer", config.VPS, Failed, func(f *fake) {
		f.answerStuck, f.sys.IPv4Default, f.counters = true, false, map[string]uint64{"IpExtInNoRoutes": 1}
	}, "no IPv4 route to clients"},
	{"answer", config.VPS, Failed, func(f *fake) { f.answerStuck = true }, "does not go on"},
	{"internet", config.Router, Failed, func(f *fake) { f.lineLost = true },
		"198.51.100.144:443 does not answer from the internet"},
	{"internet", config.Router, Failed, func(f *fake) { f.lineNotHere = true }, "the VPS answers itself"},
	{"internet", config.Router, Failed, func(f *fake) { f.otherHost = netip.MustParseAddr("192.168.1.99") },
		"by the tunnel to 192.168.1.99:443, not to 192.168.1.210:443"},
	{"internet", config.Router, Failed, func(f *fake) { f.lineNoAnswer = true }, "no answer gets back"},
	{"internet", config.Router, Warning, func(f *fake) {
		f.lineLost, f.text = true, strings.Replace(f.text, "'443'", "'25'", 1)
	}, "198.51.100.144:25 does not answer"},
	{"internet", config.VPS, Failed, func(f *fake) {
		f.clients, f.path.Unheard = -1, message.Plain("no device has the address 198.51.100.144 (option ipaddr), and "+
			"ens5 has only 10.0.0.5: the provider translates the address, and clients' packets carry the private one")
	}, "the provider translates"},
	{"clock", config.VPS, Failed, func(f *fake) { f.sys.Now = time.Unix(0, 0) }, "1970-01-01"},
	{"clock", config.Router, Failed, func(f *fake) { f.sys.Now = time.Unix(0, 0) }, "1970-01-01"},
}

// The first two packets of a handshake at the home, and the first one at the VPS.
var (
	begins       = shake{true, transport.Initiation}
	answersIt    = shake{false, transport.Response}
	arrivesThere = shake{false, transport.Initiation}
)

func itself(f *fake) { f.path.Self = map[netip.Addr]bool{host4: true} }

// TestProxiesOnly: a proxy does not need what a relay needs, such as a kernel with tunnels.
func TestProxiesOnly(t *testing.T) {
	m := well(config.VPS)
	m.sys.Modules = nil
	m.text = "config proxy 'web'\n\toption listen '0.0.0.0:443'\n\toption target '[2001:db8:fdd2::210]:443'\n"
	d := New(m)
	checks, err := d.Checks()
	if err != nil {
		t.Fatal(err)
	}
	well, err := d.RunAll(checks, func(f Finding) {
		if f.State == Failed {
			t.Errorf("%+v", f)
		}
	})
	if !well || err != nil {
		t.Errorf("%v, %v", well, err)
	}
}

// speaks: the codes of a finding make its English, and translators have them.
func speaks(t *testing.T, f Finding) {
	t.Helper()
	messagetest.Check(t, f.Codes.Evidence, f.Evidence)
	messagetest.Check(t, f.Codes.Remedy, f.Remedy)
	if f.Codes.Evidence == nil || f.Codes.Evidence.Code == "%s" && f.ID != "clock" {
		t.Errorf("without a code: %+v", f)
	}
	messagetest.Check(t, &message.Text{Code: f.Title}, f.Title)
}

// TestDiagnoses: each fault is the first that doctor names, with a remedy, and docs/troubleshooting.md has it.
func TestDiagnoses(t *testing.T) {
	var doc strings.Builder
	title := ""
	for _, c := range diagnoses {
		m := well(c.role)
		c.fault(m)
		d := New(m)
		checks, err := d.Checks()
		if err != nil {
			t.Fatal(err)
		}
		var first *Finding
		allWell, err := d.RunAll(checks, func(f Finding) {
			speaks(t, f)
			if first == nil && f.State != OK && f.State != Skipped {
				first = &f
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if first == nil || first.ID != c.check || first.State != c.state || !strings.Contains(first.Evidence, c.says) ||
			first.Remedy == "" {
			t.Errorf("%s %s, %q: %+v", c.role, c.check, c.says, first)
			continue
		}
		if allWell != (c.state == Warning) {
			t.Errorf("%s %s, %q: well is %v", c.role, c.check, c.says, allWell)
		}
		if first.Title != title {
			title = first.Title
			fmt.Fprintf(&doc, "\n## %s (`%s`)\n\n| at | doctor says | what to do |\n| --- | --- | --- |\n", title,
				first.ID)
		}
		at := "VPS"
		if c.role == config.Router {
			at = "router"
		}
		cell := strings.NewReplacer("|", "\\|", "<", "&lt;")
		fmt.Fprintf(&doc, "| %s | %s | %s |\n", at, cell.Replace(first.Evidence), cell.Replace(first.Remedy))
	}
	compare(t, doc.String())
}

func compare(t *testing.T, doc string) {
	t.Helper()
	path := filepath.FromSlash(troubleshooting)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, have, ok := strings.Cut(string(data), generated)
	if !ok {
		t.Fatalf("%s has no line %q", path, generated)
	}
	if *update {
		if err := os.WriteFile(path, []byte(head+generated+doc), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if have != doc {
		t.Errorf("%s is not what doctor says; go test ./internal/doctor -update", path)
	}
}

// TestWell: if nothing is wrong all checks say so, at both ends, also for a host with a forward of all.
func TestWell(t *testing.T) {
	nearVPS, nearRouter := well(config.VPS), well(config.Router) // the host is the router
	client := encrypted(config.VPS)
	withoutDS4relay(client)
	nearVPS.hostAtEnd = true
	itself(nearRouter)
	container := well(config.Router)
	itself(container)
	container.container = true
	for _, m := range []*fake{well(config.VPS), well(config.Router), nearVPS, nearRouter, container,
		encrypted(config.VPS), encrypted(config.Router), client} {
		d, role := New(m), m.role
		checks, _ := d.Checks()
		ran := 0
		if well, err := d.RunAll(checks, func(f Finding) {
			ran++
			speaks(t, f)
			if f.State != OK || f.Remedy != "" {
				t.Errorf("%s: %+v", role, f)
			}
		}); err != nil || !well || ran != len(checks) {
			t.Errorf("%s: %v %v, %d of %d checks", role, well, err, ran, len(checks))
		}
	}
}

// TestEqualAddresses: if the answer to a router's probe goes to another home, a connection shows that the tunnel works.
func TestEqualAddresses(t *testing.T) {
	m := well(config.Router)
	m.lost = true
	if f, err := New(m).Run("tunnel", "home"); err != nil || f.State != OK ||
		!strings.Contains(f.Evidence, "over this router's own line comes in by ds4-home") {
		t.Errorf("%v %+v", err, f)
	}
	m.lineLost = true
	if f, err := New(m).Run("tunnel", "home"); err != nil || f.State != Failed {
		t.Errorf("%v %+v", err, f)
	}
}

// TestOneHost: two forwards to one host have the same evidence, which is said once.
func TestOneHost(t *testing.T) {
	m := well(config.Router)
	web := m.text[strings.Index(m.text, "config forward"):]
	m.text += strings.NewReplacer("'web'", "'mail'", "443", "25").Replace(web)
	d := New(m)
	checks, err := d.Checks("home")
	if err != nil || d.loadErr != nil {
		t.Fatal(err, d.loadErr)
	}
	if _, err := d.RunAll(checks, func(f Finding) {
		if f.ID == "forward" && f.Evidence != "192.168.1.210: to 192.168.1.210 on br-lan" {
			t.Errorf("%+v", f)
		}
	}); err != nil {
		t.Error(err)
	}
}

// TestNoForward: a relay without forwards, next to one with forwards, is not tested.
func TestNoForward(t *testing.T) {
	m := well(config.VPS)
	m.text += strings.NewReplacer("'home'", "'cabin'", "ds4-home", "ds4-cabin", home6.String(),
		"2001:db8:fdd6::1").Replace(m.text[:strings.Index(m.text, "config forward")])
	m.text = strings.Replace(m.text, "config forward 'web'\n", "config forward 'web'\n\toption relay 'home'\n", 1)
	d := New(m)
	checks, err := d.Checks("cabin")
	if err != nil || d.loadErr != nil {
		t.Fatal(err, d.loadErr)
	}
	if well, err := d.RunAll(checks, func(f Finding) {
		if f.Relay == "cabin" && f.ID != "endpoints" &&
			(f.State != Skipped || !strings.Contains(f.Evidence, "no forward")) {
			t.Errorf("%+v", f)
		}
	}); err != nil || !well {
		t.Errorf("%v %v", well, err)
	}
}

// TestAnswer checks the method of ubus and D-Bus: the list, one check, and mistakes.
func TestAnswer(t *testing.T) {
	m := well(config.VPS)
	list, err := Answer(m, "", "")
	if text := fmt.Sprint(list); err != nil || !strings.Contains(text, "{config  Configuration}") ||
		!strings.Contains(text, "{{tunnel home IPv4 in IPv6 (protocol 4) passes both ways} [peer routed]}") {
		t.Errorf("the list: %v %s", err, text)
	}
	if one, err := Answer(m, "tunnel", "home"); err != nil || one.(Answered).State != OK ||
		one.(Answered).Relay != "home" {
		t.Errorf("one check: %v %+v", err, one)
	}
	for _, mistake := range [][2]string{{"nothing", ""}, {"tunnel", "cabin"}} {
		if one, err := Answer(m, mistake[0], mistake[1]); err == nil {
			t.Errorf("%v: %+v", mistake, one)
		}
	}
	m.text = "config"
	if one, err := Answer(m, "config", ""); err != nil || one.(Answered).State != Failed {
		t.Errorf("a file that cannot be read: %v %+v", err, one)
	}
}

// TestEntrances: a forward is tried by ports that the VPS does not keep: all of a few, some of many.
func TestEntrances(t *testing.T) {
	r := &config.Relay{Name: "home", Role: config.VPS, IPAddr: public,
		Keep: []config.PortSet{{Proto: 6, First: 20, Last: 22}, {Proto: 17, First: 23, Last: 23}}}
	p := &patient{Doctor: &Doctor{config: &config.Config{Relays: []*config.Relay{r}}}, Relay: r}
	for _, c := range []struct {
		first, last uint16
		public      string
		partly      bool
	}{
		{20, 30, "[23 25 30]", true}, {23, 23, "[23]", false}, {21, 21, "[]", false}, {20, 24, "[23 24]", false},
		{1024, 65535, "[1024 3389 8080 8443 25565 32400 65535]", true},
		{1, 65535, "[1 443 80 25 53 993 3389 65535]", true},
	} {
		f := &config.Forward{Ports: []config.PortSet{{Proto: 6, First: c.first, Last: c.last}}, DestIP: host4,
			DestPort: c.first}
		r.Forwards = []*config.Forward{f}
		free, partly := p.entrances(f, f.Mappings()[0])
		ports := []uint16{}
		for _, e := range free {
			ports = append(ports, e.public)
			if e.port != e.public || e.proto != 6 {
				t.Errorf("%+v", e)
			}
		}
		if fmt.Sprint(ports) != c.public || partly != c.partly {
			t.Errorf("%d-%d: %v, %v; want %s", c.first, c.last, ports, partly, c.public)
		}
	}
}

// TestParts: what works does not hide what cannot be tried, and what one host does not do is not said of another.
func TestParts(t *testing.T) {
	m := well(config.VPS)
	m.text += "config forward 'vpn'\n\toption proto 'udp'\n\toption src_dport '51820'\n\toption dest_ip " +
		"'192.168.1.210'\n"
	m.hostAnswer.Proto = packet.TCP
	f, err := New(m).Run("host", "home")
	if err != nil || f.State != Skipped || len(f.Parts) != 2 || f.Parts[0].State != OK || f.Parts[1].State != Skipped ||
		!strings.Contains(f.Evidence, "192.168.1.210:443 answers; forward vpn: 192.168.1.210:51820 may answer") {
		t.Errorf("%v %+v", err, f)
	}
	m.text = strings.Replace(m.text, "'tcp'", "'tcp udp'", 1)
	m.hostAnswer.Flags = packet.RST
	if f, err = New(m).Run("host", "home"); err != nil || f.State != Failed ||
		!strings.Contains(f.Evidence, "nothing listens there over tcp") {
		t.Errorf("%v %+v", err, f)
	}
}
