package packet

import "fmt"

// Error writes an error of ICMP or ICMPv6 in words.
func (p *Packet) Error() string {
	if p.Proto == ICMPv6 {
		switch {
		case p.Type == Unreachable6:
			return [...]string{"no route", "forbidden by a firewall", "beyond the scope", "the address is not there",
				"no tunnel for it (port unreachable)", "source address forbidden",
				"the route rejects it"}[min(p.Code, 6)]
		case p.Type == TooBig6:
			return fmt.Sprintf("too large, at most %d bytes", p.MTU)
		case p.Type == TimeExceeded6:
			return "hop limit exceeded"
		}
		return "parameter problem"
	}
	switch {
	case p.Type == TimeExceeded:
		return "time exceeded"
	case p.Code == 4:
		return fmt.Sprintf("too large, at most %d bytes", p.MTU)
	case p.Code == 0:
		return "network unreachable"
	case p.Code == 1:
		return "host unreachable"
	case p.Code == 2:
		return "protocol unreachable"
	case p.Code == 3:
		return "port unreachable"
	}
	return "forbidden by a firewall"
}
