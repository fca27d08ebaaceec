package doctor

import (
	"net/netip"
	"testing"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/packet"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// TestPathMTU looks for the largest packet on paths that carry so much, lose some packets, and may say so.
func TestPathMTU(t *testing.T) {
	for _, c := range []struct {
		name         string
		now, carries int
		says         int   // in errors about larger packets
		lost         []int // packets that get lost whatever their size, counted from 1
		higher       bool
		want, most   int // packets that it takes
	}{
		{name: "wide", now: 1460, carries: 1460, want: 1460, most: 1},
		{name: "narrow, and nothing says so", now: 1460, carries: 1360, want: 1360, most: 30},
		{name: "narrow, and said", now: 1460, carries: 1452, says: 1452, want: 1452, most: 14},
		{name: "a wrong error", now: 1460, carries: 1452, says: 1300, want: 1452, most: 35},
		{name: "an error, though all pass", now: 1460, carries: 1460, says: 600, want: 1460, most: 1},
		{name: "the least that IPv6 allows", now: 1460, carries: 1240, want: 1240, most: 30},
		{name: "less than that", now: 1460, carries: 1000, want: 1000, most: 40},
		{name: "a tunnel in a narrow path that gets narrower", now: 1360, carries: 1352, want: 1352, most: 30},
		{name: "hardly anything passes", now: 1460, carries: 200, want: 0, most: 20},
		{name: "silence", now: 1460, carries: 0, want: 0, most: 2},
		{name: "one packet is lost", now: 1460, carries: 1460, lost: []int{1}, want: 1460, most: 3},
		{name: "the link is down for a while", now: 1460, carries: 1460, lost: []int{1, 2}, want: 0, most: 2},
		{name: "four packets are lost", now: 1460, carries: 1460, lost: []int{1, 3, 5, 7}, want: 1460, most: 9},
		{name: "narrow, and packets are lost", now: 1460, carries: 1400, lost: []int{11, 17}, want: 1400, most: 30},
		{name: "within the hour", now: 1360, carries: 1460, want: 1360, most: 1},
		{name: "wide again", now: 1360, carries: 1460, higher: true, want: 1460, most: 3},
		{name: "as narrow as before", now: 1360, carries: 1360, higher: true, want: 1360, most: 3},
		{name: "wider than before", now: 1360, carries: 1420, higher: true, want: 1420, most: 20},
	} {
		sent := 0
		got := PathMTU(c.now, 1460, c.higher, func(size int) (bool, int) {
			if sent++; sent > 100 {
				t.Fatalf("%s: it does not end", c.name)
			}
			for _, n := range c.lost {
				if n == sent {
					return false, 0
				}
			}
			if size > c.carries {
				return false, c.says
			}
			return true, 0
		})
		if got != c.want || sent > c.most {
			t.Errorf("%s: %d with %d packets, want %d with at most %d", c.name, got, sent, c.want, c.most)
		}
	}
}

// TestSounding: the packet has the size of the tunnel's on the wire, and only an answer to it counts.
func TestSounding(t *testing.T) {
	addr := netip.MustParseAddr
	local, peer, host := addr("2001:db8::1"), addr("2001:db8::2"), addr("192.168.1.210")
	r := &config.Relay{Name: "home", Role: config.VPS, Device: "wrap1", EncapLimit: 4, IPAddr: addr("198.51.100.144"),
		Forwards: []*config.Forward{{All: true, DestIP: host}}}
	s := NewSounding(r, transport.IPIP6{Local: local, Remote: peer, EncapLimit: 4}, 0xb507, 1452)
	if len(s.Packet) != 1500 {
		t.Errorf("%d bytes on the wire, want 1500", len(s.Packet))
	}
	outer, ok := packet.Decode(s.Packet)
	if !ok || outer.Outer == nil || outer.Outer.Src != local || outer.Outer.Dst != peer || outer.TTL != 1 ||
		outer.Src != TestClient || outer.Dst != host {
		t.Errorf("sent: %+v", outer)
	}
	inner := outer
	inner.Outer = nil
	exceeded := packet.Packet{Src: addr("192.168.1.1"), Dst: TestClient, Proto: packet.ICMP,
		Type: packet.TimeExceeded, Quoted: &inner}
	another := inner
	another.EchoID++
	small := inner
	small.Len = 96
	of := func(quoted *packet.Packet) packet.Packet {
		p := exceeded
		p.Quoted = quoted
		return p
	}
	for _, c := range []struct {
		name   string
		device string
		packet packet.Packet
		want   bool
	}{
		{"time exceeded", "wrap1", exceeded, true},
		{"on another device", "eth0", exceeded, false},
		{"about another packet", "wrap1", of(&another), false},
		{"about a smaller packet", "wrap1", of(&small), false},
		{"a reply", "wrap1", packet.Packet{Src: host, Dst: TestClient, Proto: packet.ICMP, EchoID: 0xb507}, true},
		{"another's reply", "wrap1", packet.Packet{Src: host, Dst: TestClient, Proto: packet.ICMP, EchoID: 1}, false},
	} {
		if got := s.Answer(c.device, c.packet); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	tooBig := packet.Packet{Src: addr("2001:db8::3"), Dst: local, Proto: packet.ICMPv6, Type: packet.TooBig6,
		MTU: 1400, Quoted: &outer}
	if got := s.TooBig(tooBig); got != 1352 {
		t.Errorf("packet too big: %d, want 1352", got)
	}
	tooBig.Quoted = &inner
	if got := s.TooBig(tooBig); got != 0 {
		t.Errorf("packet too big about something else: %d", got)
	}
}

// TestSoundingWireGuard: the packet goes through the tunnel, and has the size of what goes into it.
func TestSoundingWireGuard(t *testing.T) {
	r := &config.Relay{Name: "home", Role: config.Router, Transport: config.WireGuard, Device: "wrap1", IPAddr: public,
		Forwards: []*config.Forward{{All: true, DestIP: host4}}}
	s := NewSounding(r, transport.WireGuard{Remote: vps4}, 0xb507, 1420)
	inner, ok := packet.Decode(s.Packet)
	if !ok || s.Into != "wrap1" || len(s.Packet) != 1420 || inner.Outer != nil || inner.TTL != 1 || inner.Src != host4 {
		t.Errorf("into %q, %d bytes: %+v", s.Into, len(s.Packet), inner)
	}
	exceeded := packet.Packet{Src: public, Dst: host4, Proto: packet.ICMP, Type: packet.TimeExceeded, Quoted: &inner}
	if !s.Answer("wrap1", exceeded) || s.Answer("eth0", exceeded) {
		t.Error("the answer is not the answer")
	}
	refused := packet.Packet{Src: public, Proto: packet.ICMP, Type: packet.Unreachable, Code: 4, MTU: 1300,
		Quoted: &packet.Packet{Dst: public, DstPort: transport.DefaultPort, Proto: packet.UDP}}
	if told := s.TooBig(refused); told != 0 {
		t.Errorf("told %d by an error, after which packets go in fragments", told)
	}
}
