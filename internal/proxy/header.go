package proxy

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/pires/go-proxyproto"
)

// streamHeader returns the PROXY header that tells a TCP target who the client is and what it connected to.
func streamHeader(version int, from, to netip.AddrPort) ([]byte, error) {
	return header(version, net.TCPAddrFromAddrPort(from), net.TCPAddrFromAddrPort(to))
}

// datagramHeader is the same for UDP. PROXY version 1 does not support UDP.
func datagramHeader(from, to netip.AddrPort) ([]byte, error) {
	return header(2, net.UDPAddrFromAddrPort(from), net.UDPAddrFromAddrPort(to))
}

func header(version int, from, to net.Addr) ([]byte, error) {
	text, err := proxyproto.HeaderProxyFromAddrs(byte(version), from, to).Format()
	if err != nil {
		return nil, fmt.Errorf("PROXY header for %s: %w", from, err)
	}
	return text, nil
}
