package ping

import (
	"context"
	"encoding/binary"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/message"
	headers "github.com/ds4relay/ds4relay/internal/packet"
	"github.com/ds4relay/ds4relay/internal/resolve"
)

// Options say how often and how large.
type Options struct {
	Count    int           // echo requests to each host
	Interval time.Duration // between rounds
	Timeout  time.Duration // for one answer; default a second
	Size     int           // bytes of payload; default 56, as ping(8)
}

// protocol is ICMP (RFC 792) or ICMPv6 (RFC 4443): its types, and the sockets that it needs. Sockets are the kernel's
// own, not those of package net, which would add a tenth to the router's program.
type protocol struct {
	version        int
	family, number int
	request, reply byte
	errors         map[byte]*message.Text // types that are errors about a packet, which they quote
}

var (
	unreachable = &message.Text{Code: "destination unreachable"}
	exceeded    = &message.Text{Code: "time exceeded"}

	icmp4 = protocol{4, unix.AF_INET, unix.IPPROTO_ICMP, 8, 0, map[byte]*message.Text{3: unreachable, 11: exceeded}}
	icmp6 = protocol{6, unix.AF_INET6, unix.IPPROTO_ICMPV6, 128, 129,
		map[byte]*message.Text{1: unreachable, 2: {Code: "packet too big"}, 3: exceeded}}
)

// way is one host by one IP version.
type way struct {
	Summary
	protocol
	socket   int
	id       int
	datagram bool // an unprivileged socket, where the kernel sets and checks the id, and errors are the socket's
	squares  float64
	sum      float64
}

// Compare sends an echo request to host4 over IPv4, waits for the answer, does the same with host6 over IPv6, and
// repeats that. progress is called for every answer, or what came in its place. The context ends it early; what was
// measured until then is returned. An error says why nothing can be measured at all.
func Compare(ctx context.Context, host4, host6 string, o Options,
	progress func(host string, seq int, rtt time.Duration, err error)) (v4, v6 Summary, err error) {
	if o.Timeout == 0 {
		o.Timeout = time.Second
	}
	if o.Size == 0 {
		o.Size = 56
	}
	a, err := open(ctx, host4, icmp4)
	if err != nil {
		return v4, v6, err
	}
	defer unix.Close(a.socket)
	b, err := open(ctx, host6, icmp6)
	if err != nil {
		return v4, v6, err
	}
	defer unix.Close(b.socket)
	for seq := 1; seq <= o.Count && ctx.Err() == nil; seq++ {
		for _, w := range []*way{a, b} {
			rtt, err := w.echo(ctx, seq, o)
			if ctx.Err() != nil && err != nil {
				break
			}
			w.count(rtt, err)
			progress(w.Host, seq, rtt, err)
		}
		if seq < o.Count {
			select {
			case <-ctx.Done():
			case <-time.After(o.Interval):
			}
		}
	}
	return a.summary(), b.summary(), nil
}

func open(ctx context.Context, host string, p protocol) (*way, error) {
	w := &way{protocol: p, id: os.Getpid() & 0xffff}
	w.Host = host
	addr, err := lookup(ctx, p.version, host)
	if err != nil {
		return nil, message.New("no IPv%d address for %s: %v", p.version, host, err)
	}
	w.Addr = addr
	w.socket, err = unix.Socket(p.family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, p.number)
	if err != nil {
		var second error
		if w.socket, second = unix.Socket(p.family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, p.number); second != nil {
			return nil, message.New("open a socket for ICMP: %v (run it as root, or let users ping: sysctl -w "+
				"net.ipv4.ping_group_range=\"0 2147483647\")", err)
		}
		w.datagram = true
	}
	return w, nil
}

func lookup(ctx context.Context, version int, host string) (netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.Unmap().Is4() != (version == 4) {
			return addr, message.New("it is an address of the other kind; the IPv4 address comes first, the IPv6 " +
				"address second")
		}
		return addr.Unmap(), nil
	}
	addrs, err := resolve.Lookup(ctx, host, version)
	if err != nil {
		return netip.Addr{}, err
	}
	return addrs[0], nil
}

// slice is how long a wait for an answer goes on before it looks whether it should end.
const slice = 50 * time.Millisecond

// echo sends one request and waits for its answer.
func (w *way) echo(ctx context.Context, seq int, o Options) (time.Duration, error) {
	packet := make([]byte, 8+o.Size)
	packet[0] = w.request
	binary.BigEndian.PutUint16(packet[4:], uint16(w.id))
	binary.BigEndian.PutUint16(packet[6:], uint16(seq))
	if w.version == 4 { // the kernel fills in ICMPv6's
		binary.BigEndian.PutUint16(packet[2:], headers.Checksum(packet))
	}
	sent := time.Now()
	if err := unix.Sendto(w.socket, packet, 0, sockaddr(w.Addr)); err != nil {
		return 0, err
	}
	buffer := make([]byte, 65536)
	for ctx.Err() == nil {
		left := o.Timeout - time.Since(sent)
		if left <= 0 {
			return 0, message.New("%v within %v", ErrNoAnswer, o.Timeout)
		}
		wait := []unix.PollFd{{Fd: int32(w.socket), Events: unix.POLLIN}}
		if n, err := unix.Poll(wait, int(min(left, slice).Milliseconds())+1); n == 0 || err == unix.EINTR {
			continue
		}
		n, from, err := unix.Recvfrom(w.socket, buffer, unix.MSG_DONTWAIT)
		rtt := time.Since(sent)
		if err == unix.EAGAIN || err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, err
		}
		if answer, err := w.match(buffer[:n], addrOf(from), uint16(seq)); answer || err != nil {
			return rtt, err
		}
	}
	return 0, ctx.Err()
}

// match tells whether a packet answers the request, or is an error about it.
func (w *way) match(packet []byte, from netip.Addr, seq uint16) (bool, error) {
	if w.version == 4 && !w.datagram { // a raw socket of IPv4 gives the IP header too (raw(7))
		if packet = withoutHeader(packet); packet == nil {
			return false, nil
		}
	}
	if len(packet) < 8 {
		return false, nil
	}
	if packet[0] == w.reply {
		return binary.BigEndian.Uint16(packet[6:]) == seq &&
			(w.datagram || int(binary.BigEndian.Uint16(packet[4:])) == w.id) && from == w.Addr, nil
	}
	problem, ok := w.errors[packet[0]]
	if !ok || !w.about(packet[8:], seq) {
		return false, nil
	}
	return false, message.New("%s says: %s", from, problem)
}

func withoutHeader(packet []byte) []byte {
	if len(packet) == 0 || len(packet) < int(packet[0]&0x0f)*4 {
		return nil
	}
	return packet[int(packet[0]&0x0f)*4:]
}

// ipv6Header is the length of an IPv6 header in bytes.
const ipv6Header = 40

// about tells whether an error quotes the request: the IP header, then type, code, checksum, id and sequence number.
func (w *way) about(quoted []byte, seq uint16) bool {
	if w.version == 4 {
		quoted = withoutHeader(quoted)
	} else {
		quoted = quoted[min(ipv6Header, len(quoted)):]
	}
	return len(quoted) >= 8 && int(binary.BigEndian.Uint16(quoted[4:])) == w.id &&
		binary.BigEndian.Uint16(quoted[6:]) == seq
}

func sockaddr(a netip.Addr) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Addr: a.As16()}
}

func addrOf(s unix.Sockaddr) netip.Addr {
	switch s := s.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(s.Addr)
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(s.Addr).Unmap()
	}
	return netip.Addr{}
}
