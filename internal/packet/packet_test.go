package packet

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"testing"
)

var (
	client   = netip.MustParseAddrPort("203.0.113.10:40000")
	host     = netip.MustParseAddrPort("192.168.1.210:443")
	vps      = netip.MustParseAddr("2001:db8:6ef9:0:198:51:100:144")
	router   = netip.MustParseAddr("2001:db8:fdd2:0:198:51:100:144")
	inTunnel = Make4in6(vps, router, 64, MakeTCP(client, host, SYN, 63, 1, 0))
)

// sumOK tells whether a checksum over an IPv4 packet's transport is right: with its own sum it is zero.
func sumOK(p []byte) bool {
	body := p[20:]
	if p[9] == ICMP {
		return Checksum(body) == 0
	}
	pseudo := append([]byte{}, p[12:20]...)
	pseudo = append(pseudo, 0, p[9], byte(len(body)>>8), byte(len(body)))
	return Checksum(append(pseudo, body...)) == 0
}

func TestMade(t *testing.T) {
	for name, made := range map[string][]byte{
		"TCP":           MakeTCP(client, host, SYN|ACK, 64, 7, 8),
		"TCP with data": MakeTCP(client, host, SYN, 64, 7, 8, []byte("odd")...),
		"UDP":           MakeUDP(client, host, 64, []byte("odd")),
		"UDP-Lite":      MakeUDPLite(client, host, 64, []byte("odd")),
		"ICMP":          MakeEcho(client.Addr(), host.Addr(), 64, 1, 2, 33),
	} {
		if Checksum(made[:20]) != 0 || !sumOK(made) {
			t.Errorf("%s: checksums are wrong: % x", name, made)
		}
		if int(binary.BigEndian.Uint16(made[2:])) != len(made) {
			t.Errorf("%s: length", name)
		}
	}
}

func TestDecode(t *testing.T) {
	p, ok := Decode(inTunnel)
	if !ok || p.Outer == nil || p.Outer.Src != vps || p.Outer.Dst != router || p.Outer.EncapLimit != -1 ||
		p.Outer.Len != 80 {
		t.Fatalf("outer: %+v %+v", p, p.Outer)
	}
	if netip.AddrPortFrom(p.Src, p.SrcPort) != client || netip.AddrPortFrom(p.Dst, p.DstPort) != host ||
		p.Flags != SYN || p.TTL != 63 || !p.DF || p.Len != 40 {
		t.Errorf("inner: %+v", p)
	}

	limit := append([]byte{IPIP, 0, 4, 1, 4, 1, 1, 0}, inTunnel[40:]...) // RFC 2473 §4.1.1, as Linux writes it
	withLimit := append(append([]byte{}, inTunnel[:40]...), limit...)
	withLimit[6] = 60
	if p, ok = Decode(withLimit); !ok || p.Outer == nil || p.Outer.EncapLimit != 4 || p.DstPort != 443 {
		t.Errorf("with an encapsulation limit: %+v %+v", p, p.Outer)
	}

	tooBig := append([]byte{TooBig6, 0, 0, 0, 0, 0, 1492 >> 8, 1492 & 0xff}, inTunnel...)
	packet := Make4in6(router, vps, 64, tooBig)
	packet[6] = ICMPv6
	if p, ok = Decode(packet); !ok || p.MTU != 1492 || !p.IsError() || p.Quoted == nil || p.Quoted.Outer == nil ||
		p.Quoted.DstPort != 443 {
		t.Errorf("packet too big: %+v, quoting %+v", p, p.Quoted)
	}

	exceeded := Make4(host.Addr(), client.Addr(), ICMP, 64,
		append([]byte{TimeExceeded, 0, 0, 0, 0, 0, 0, 0}, MakeEcho(client.Addr(), host.Addr(), 1, 5, 6, 8)[:28]...))
	if p, ok = Decode(exceeded); !ok || !p.IsError() || p.Quoted == nil || p.Quoted.EchoID != 5 ||
		p.Quoted.EchoSeq != 6 {
		t.Errorf("time exceeded: %+v, quoting %+v", p, p.Quoted)
	}

	fragment := MakeUDP(client, host, 64, make([]byte, 64))
	binary.BigEndian.PutUint16(fragment[6:], 0x2001)
	if p, _ = Decode(fragment); p.Offset != 8 || !p.More || p.SrcPort != 0 {
		t.Errorf("a later fragment: %+v", p)
	}
}

// FuzzDecode: what comes from a network must not end the program.
func FuzzDecode(f *testing.F) {
	f.Add(inTunnel)
	f.Add([]byte{0x4f, 0, 0, 0})
	f.Add([]byte{0x60, 0, 0, 0, 0, 8, 44, 0})
	f.Fuzz(func(t *testing.T, data []byte) { Decode(data) })
}

// TestTruncated decodes each beginning of packets.
func TestTruncated(t *testing.T) {
	for _, whole := range [][]byte{inTunnel, MakeEcho(client.Addr(), host.Addr(), 1, 1, 1, 8),
		MakeUDP(client, host, 1, nil)} {
		for n := range whole {
			Decode(whole[:n])
		}
	}
}

// TestSCTP: the first packet of an association has the checksum of RFC 9260, and the length that was asked for.
func TestSCTP(t *testing.T) {
	for _, padding := range []int{0, 4, 1408} {
		made := MakeSCTPInit(client, host, 64, padding)
		p, ok := Decode(made)
		if !ok || p.SrcPort != client.Port() || p.DstPort != host.Port() || p.Type != 1 || len(made) != 52+padding {
			t.Errorf("%d: %+v", padding, p)
		}
		sum := binary.LittleEndian.Uint32(made[28:])
		clear(made[28:32])
		if want := crc32.Checksum(made[20:], crc32.MakeTable(crc32.Castagnoli)); sum != want {
			t.Errorf("%d: the checksum is %#x, want %#x", padding, sum, want)
		}
	}
}

// TestPuzzle: a packet with an unknown option is one of the tunnel.
func TestPuzzle(t *testing.T) {
	p, ok := Decode(MakePuzzle(vps, router, 64, MakeTCP(client, host, SYN, 63, 1, 0)))
	if !ok || p.Outer == nil || p.Outer.Src != vps || p.Outer.EncapLimit != -1 || p.DstPort != host.Port() {
		t.Errorf("%+v %+v", p, p.Outer)
	}
}
