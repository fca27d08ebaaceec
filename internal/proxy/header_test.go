package proxy

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/pires/go-proxyproto"
)

// FuzzHeader: the PROXY headers that the proxy writes parse back to the same addresses, and the data after them is not
// changed.
func FuzzHeader(f *testing.F) {
	f.Add([]byte{203, 0, 113, 7}, []byte{198, 51, 100, 144}, uint16(40000), uint16(443), []byte("GET / HTTP/1.1"))
	f.Add(bytes.Repeat([]byte{0xfe, 0x80, 0}, 6)[:16], bytes.Repeat([]byte{0x20, 0x01}, 8), uint16(1), uint16(65535),
		[]byte{})
	f.Add(make([]byte, 16), make([]byte, 4), uint16(0), uint16(0), []byte("PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r\n"))
	f.Add(mappedBytes(), mappedBytes(), uint16(0), uint16(0), []byte("\r\n\r\n\x00\r\nQUIT\n"))
	f.Fuzz(func(t *testing.T, from, to []byte, fromPort, toPort uint16, payload []byte) {
		source, ok := netip.AddrFromSlice(from)
		destination, ok2 := netip.AddrFromSlice(to)
		// Both ends of a connection have the same family, and addrPort turns IPv4-mapped addresses into IPv4.
		source, destination = source.Unmap(), destination.Unmap()
		if !ok || !ok2 || source.Is4() != destination.Is4() || len(payload) > maxDatagram {
			return
		}
		a, b := netip.AddrPortFrom(source, fromPort), netip.AddrPortFrom(destination, toPort)
		check := func(h *proxyproto.Header, err error, version byte, wantFrom, wantTo net.Addr, rest []byte) {
			t.Helper()
			if err != nil {
				t.Fatalf("%s → %s, version %d: %v", a, b, version, err)
			}
			if h.Version != version || !h.Command.IsProxy() || h.SourceAddr.String() != wantFrom.String() ||
				h.DestinationAddr.String() != wantTo.String() || h.SourceAddr.Network() != wantFrom.Network() ||
				!bytes.Equal(rest, payload) {
				t.Fatalf("%s → %s, version %d: read as %v → %v, %q; want %q", a, b, version, h.SourceAddr,
					h.DestinationAddr, rest, payload)
			}
		}
		for version := 1; version <= 2; version++ {
			text, err := streamHeader(version, a, b)
			if err != nil {
				t.Fatalf("%s → %s, version %d: %v", a, b, version, err)
			}
			r := bufio.NewReader(bytes.NewReader(append(text, payload...)))
			h, err := proxyproto.Read(r)
			rest, _ := io.ReadAll(r)
			check(h, err, byte(version), net.TCPAddrFromAddrPort(a), net.TCPAddrFromAddrPort(b), rest)
		}
		text, err := datagramHeader(a, b)
		if err != nil {
			t.Fatal(err)
		}
		h, rest, err := parseDatagram(append(text, payload...))
		check(h, err, 2, net.UDPAddrFromAddrPort(a), net.UDPAddrFromAddrPort(b), rest)
	})
}

// parseDatagram reads the PROXY header of a datagram, and returns what is behind it.
func parseDatagram(data []byte) (h *proxyproto.Header, rest []byte, err error) {
	r := bufio.NewReaderSize(bytes.NewReader(data), len(data))
	if h, err = proxyproto.Read(r); err != nil {
		return nil, nil, err
	}
	rest, err = io.ReadAll(r)
	return h, rest, err
}

func mappedBytes() []byte {
	m := mapped([4]byte{192, 0, 2, 1})
	return m[:]
}
