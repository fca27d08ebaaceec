package config

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/ds4relay/ds4relay/internal/transport"
)

// internetMTU is a tunnel's MTU over a path of 1500 bytes, the most that the internet carries.
const internetMTU = 1460

// Export writes the file for the other end of a relay. local and peer are the endpoints known at this end; the
// configuration may leave them open (auto, a DNS name). What is about this machine only stays out of it: the names of
// devices, routing, and an MTU that only a local network has. A smaller one is that of the path, which both ends share.
func Export(c *Config, r *Relay, local, peer netip.Addr) string {
	var b strings.Builder
	role := VPS
	if r.Role == VPS {
		role = Router
	}
	fmt.Fprintf(&b, "# /etc/config/ds4relay of the other end (%s) of relay %s\n\n", role, r.Name)
	section := func(typ, name string) { fmt.Fprintf(&b, "config %s %s\n", typ, quote(name)) }
	option := func(name string, value any) { fmt.Fprintf(&b, "\toption %s %s\n", name, quote(fmt.Sprint(value))) }
	list := func(name, value string) { fmt.Fprintf(&b, "\tlist %s %s\n", name, quote(value)) }
	section("relay", r.Name)
	option("role", role)
	option("ipaddr", r.IPAddr)
	option("ip6addr", peer)
	option("peeraddr", local)
	if r.MTU != 0 && r.MTU <= internetMTU {
		option("mtu", r.MTU)
	}
	if r.EncapLimit != transport.NoEncapLimit {
		option("encaplimit", r.EncapLimit)
	}
	if r.Egress != Replies {
		option("egress", r.Egress)
	}
	if !r.Offloading {
		option("flow_offloading", 0)
	}
	if !r.TargetLocal {
		option("target_local", 0)
	}
	for _, keep := range r.Keep {
		list("keep", keep.String())
	}
	for _, f := range r.Forwards {
		if f.All && len(r.Keep) == 0 && role == VPS {
			b.WriteString("\t# ssh stays the VPS's own; all else goes to the home\n")
			list("keep", "tcp:22")
		}
	}
	for _, f := range r.Forwards {
		// Protocols with and without ports cannot be in one section.
		var ports, others []PortSet
		for _, set := range f.Ports {
			if !set.HasPorts() {
				others = append(others, set)
			} else {
				ports = append(ports, set)
			}
		}
		for i, sets := range [][]PortSet{ports, others} {
			if len(sets) == 0 && (i > 0 || !f.All) {
				continue
			}
			b.WriteString("\n")
			section("forward", sectionName(f.Section))
			option("relay", r.Name)
			if f.Name != "" {
				option("name", f.Name)
			}
			if f.All {
				list("proto", "all")
			}
			protos, ranges := apart(sets)
			for _, proto := range protos {
				list("proto", ProtoName(proto))
			}
			if i == 0 && !f.All {
				writePorts(f, ranges, option, list)
			}
			option("dest_ip", f.DestIP)
			for _, client := range f.Clients {
				list("src_ip", strings.TrimSuffix(client.String(), "/32"))
			}
			if f.Egress != r.Egress {
				option("egress", f.Egress)
			}
		}
	}
	return b.String()
}

// sectionName makes a section name from the name that messages use for an anonymous section.
func sectionName(s string) string {
	return strings.NewReplacer("[", "_", "]", "").Replace(s)
}

// apart returns the protocols of a forward's sets of ports, and the ranges that each of them has.
func apart(sets []PortSet) (protos []uint8, ranges []PortSet) {
	for _, set := range sets {
		if len(protos) == 0 || protos[len(protos)-1] != set.Proto {
			protos = append(protos, set.Proto)
		}
		if set.Proto == sets[0].Proto {
			ranges = append(ranges, set)
		}
	}
	return protos, ranges
}

// writePorts writes src_dport, as a list if there are several ranges, and dest_port if it is another one.
func writePorts(f *Forward, ranges []PortSet, option func(string, any), list func(string, string)) {
	if len(ranges) > 1 {
		for _, r := range ranges {
			list("src_dport", rangeText(r.First, r.Last-r.First))
		}
		return
	}
	first, width := ranges[0].First, ranges[0].Last-ranges[0].First
	option("src_dport", rangeText(first, width))
	if f.DestPort != first {
		option("dest_port", rangeText(f.DestPort, width))
	}
}

func rangeText(first, width uint16) string {
	if width == 0 {
		return fmt.Sprint(first)
	}
	return fmt.Sprintf("%d-%d", first, first+width)
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
