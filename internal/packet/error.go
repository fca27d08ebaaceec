package packet

import "github.com/ds4relay/ds4relay/internal/message"

// unreachable6 are the codes of ICMPv6's destination unreachable.
var unreachable6 = [...]message.Text{
	{Code: "no route"},
	{Code: "forbidden by a firewall"},
	{Code: "beyond the scope"},
	{Code: "the address is not there"},
	{Code: "no tunnel for it (port unreachable)"},
	{Code: "source address forbidden"},
	{Code: "the route rejects it"},
}

// PortUnreachable reports whether it is an error which says that nobody listens at a port.
func (p *Packet) PortUnreachable() bool {
	const code6 = 4 // RFC 4443 §3.1
	return p.Proto == ICMP && p.Type == Unreachable && p.Code == PortUnreachable ||
		p.Proto == ICMPv6 && p.Type == Unreachable6 && p.Code == code6
}

// Refusal writes an error of ICMP or ICMPv6 in words.
func (p *Packet) Refusal() *message.Text {
	if p.Proto == ICMPv6 {
		switch {
		case p.Type == Unreachable6:
			return &unreachable6[min(p.Code, 6)]
		case p.Type == TooBig6:
			return message.New("too large, at most %d bytes", p.MTU)
		case p.Type == TimeExceeded6:
			return message.New("hop limit exceeded")
		}
		return message.New("parameter problem")
	}
	switch {
	case p.Type == TimeExceeded:
		return message.New("time exceeded")
	case p.Code == 4:
		return message.New("too large, at most %d bytes", p.MTU)
	case p.Code == 0:
		return message.New("network unreachable")
	case p.Code == 1:
		return message.New("host unreachable")
	case p.Code == 2:
		return message.New("protocol unreachable")
	case p.Code == 3:
		return message.New("port unreachable")
	}
	return message.New("forbidden by a firewall")
}
