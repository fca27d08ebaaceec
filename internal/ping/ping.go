package ping

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// Options say how often and how large.
type Options struct {
	Count    int           // echo requests to each host
	Interval time.Duration // between rounds
	Timeout  time.Duration // for one answer; default a second
	Size     int           // bytes of payload; default 56, as ping(8)
}

// way is one host by one IP version.
type way struct {
	Summary
	conn       *icmp.PacketConn
	peer       net.Addr
	request    icmp.Type
	reply      icmp.Type
	protocol   int // of ICMP in this IP version
	id         int
	datagram   bool // an unprivileged socket, where the kernel sets and checks the id
	squares    float64
	sum        float64
	errorTypes map[icmp.Type]string
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
	a, err := open(ctx, host4, false)
	if err != nil {
		return v4, v6, err
	}
	defer a.conn.Close()
	b, err := open(ctx, host6, true)
	if err != nil {
		return v4, v6, err
	}
	defer b.conn.Close()
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

func open(ctx context.Context, host string, six bool) (*way, error) {
	w := &way{request: ipv4.ICMPTypeEcho, reply: ipv4.ICMPTypeEchoReply, protocol: 1, id: os.Getpid() & 0xffff,
		errorTypes: map[icmp.Type]string{ipv4.ICMPTypeDestinationUnreachable: "destination unreachable", ipv4.ICMPTypeTimeExceeded: "time exceeded"}}
	network, version, raw, datagram, any := "ip4", "IPv4", "ip4:icmp", "udp4", "0.0.0.0"
	if six {
		network, version, raw, datagram, any = "ip6", "IPv6", "ip6:ipv6-icmp", "udp6", "::"
		w.request, w.reply, w.protocol = ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply, 58
		w.errorTypes = map[icmp.Type]string{ipv6.ICMPTypeDestinationUnreachable: "destination unreachable",
			ipv6.ICMPTypeTimeExceeded: "time exceeded", ipv6.ICMPTypePacketTooBig: "packet too big"}
	}
	w.Host = host
	addr, err := resolve(ctx, network, host)
	if err != nil {
		return nil, fmt.Errorf("no %s address for %s: %w", version, host, err)
	}
	w.Addr = addr
	w.peer = &net.IPAddr{IP: addr.AsSlice(), Zone: addr.Zone()}
	w.conn, err = icmp.ListenPacket(raw, any)
	if err != nil {
		var second error
		if w.conn, second = icmp.ListenPacket(datagram, any); second != nil {
			return nil, fmt.Errorf("%w (run it as root, or let users ping: sysctl -w net.ipv4.ping_group_range=\"0 2147483647\")", err)
		}
		w.datagram, w.peer = true, &net.UDPAddr{IP: addr.AsSlice(), Zone: addr.Zone()}
	}
	return w, nil
}

func resolve(ctx context.Context, network, host string) (netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.Unmap().Is4() != (network == "ip4") {
			return addr, errors.New("it is an address of the other kind; the IPv4 address comes first, the IPv6 address second")
		}
		return addr.Unmap(), nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, network, host)
	if err != nil {
		return netip.Addr{}, err
	}
	return addrs[0].Unmap(), nil
}

// echo sends one request and waits for its answer.
func (w *way) echo(ctx context.Context, seq int, o Options) (time.Duration, error) {
	message := icmp.Message{Type: w.request, Body: &icmp.Echo{ID: w.id, Seq: seq & 0xffff, Data: make([]byte, o.Size)}}
	packet, err := message.Marshal(nil) // the kernel fills in ICMPv6's checksum
	if err != nil {
		return 0, err
	}
	stop := context.AfterFunc(ctx, func() { w.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	sent := time.Now()
	if err := w.conn.SetReadDeadline(sent.Add(o.Timeout)); err != nil {
		return 0, err
	}
	if _, err := w.conn.WriteTo(packet, w.peer); err != nil {
		return 0, err
	}
	buffer := make([]byte, 65536)
	for {
		n, from, err := w.conn.ReadFrom(buffer)
		rtt := time.Since(sent)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				err = fmt.Errorf("no answer within %v", o.Timeout)
			}
			return 0, err
		}
		if answer, err := w.match(buffer[:n], from, seq&0xffff); answer || err != nil {
			return rtt, err
		}
	}
}

// match tells whether a packet answers the request, or is an error about it.
func (w *way) match(packet []byte, from net.Addr, seq int) (bool, error) {
	message, err := icmp.ParseMessage(w.protocol, packet)
	if err != nil {
		return false, nil
	}
	if echo, ok := message.Body.(*icmp.Echo); ok {
		return message.Type == w.reply && echo.Seq == seq && (w.datagram || echo.ID == w.id) && addrOf(from) == w.Addr, nil
	}
	problem, ok := w.errorTypes[message.Type]
	if !ok || !w.about(message.Body, seq) {
		return false, nil
	}
	return false, fmt.Errorf("%s says: %s", addrOf(from), problem)
}

// about tells whether an error quotes the request: the IP header, then type, code, checksum, id and sequence number.
func (w *way) about(body icmp.MessageBody, seq int) bool {
	var quoted []byte
	switch b := body.(type) {
	case *icmp.DstUnreach:
		quoted = b.Data
	case *icmp.TimeExceeded:
		quoted = b.Data
	case *icmp.PacketTooBig:
		quoted = b.Data
	}
	header := ipv6.HeaderLen
	if w.protocol == 1 && len(quoted) > 0 {
		header = int(quoted[0]&0x0f) * 4
	}
	if len(quoted) < header+8 {
		return false
	}
	echo := quoted[header:]
	return int(echo[4])<<8|int(echo[5]) == w.id && int(echo[6])<<8|int(echo[7]) == seq
}

func addrOf(a net.Addr) netip.Addr {
	var ip net.IP
	switch a := a.(type) {
	case *net.IPAddr:
		ip = a.IP
	case *net.UDPAddr:
		ip = a.IP
	}
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}
