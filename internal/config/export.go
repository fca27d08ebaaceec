package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/ds4relay/ds4relay/internal/transport"
)

// internetMTU is a tunnel's MTU over a path of 1500 bytes, the most that the internet carries.
const internetMTU = 1460

// Known is what this end knows of a relay, and its configuration may leave open.
type Known struct {
	Local, Peer netip.Addr    // endpoints (auto, a DNS name)
	PublicKey   transport.Key // of this end's private key, with transport wireguard
}

// Export writes the file for the other end of a relay. No secret is in it. What is about this machine only stays out of
// it: the names of devices, routing, and an MTU that only a local network has. A smaller one is that of the path, which
// both ends share.
func Export(c *Config, r *Relay, known Known) string {
	var b exporter
	role := VPS
	if r.Role == VPS {
		role = Router
	}
	fmt.Fprintf(&b, "# /etc/config/ds4relay of the other end (%s) of relay %s\n\n", role, r.Name)
	section, option, list := b.section, b.option, b.list
	section("relay", r.Name)
	option("role", role)
	option("ipaddr", r.IPAddr)
	if r.Transport == WireGuard {
		exportWireGuard(r, role, known, option)
	} else {
		if known.Peer.IsValid() { // else it is found out there
			option("ip6addr", known.Peer)
		}
		option("peeraddr", known.Local)
	}
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
	own, hasOwn := r.KeptPort()
	keeps := slices.DeleteFunc(slices.Clone(r.Keep), func(p PortSet) bool { return hasOwn && p == own })
	for _, keep := range keeps {
		list("keep", keep.String())
	}
	for _, f := range r.Forwards {
		if f.All && len(keeps) == 0 && role == VPS {
			b.WriteString("\t# ssh stays the VPS's own; all else goes to the home\n")
			list("keep", "tcp:22")
		}
	}
	for _, f := range r.Forwards {
		b.forward(f, r.Name, f.Egress != r.Egress)
	}
	return b.String()
}

// exporter writes a file of UCI.
type exporter struct{ strings.Builder }

func (b *exporter) section(typ, name string) { fmt.Fprintf(b, "config %s %s\n", typ, quote(name)) }

func (b *exporter) option(name string, value any) {
	fmt.Fprintf(b, "\toption %s %s\n", name, quote(fmt.Sprint(value)))
}

func (b *exporter) list(name, value string) { fmt.Fprintf(b, "\tlist %s %s\n", name, quote(value)) }

// forward writes one forward. relay may be "".
func (b *exporter) forward(f *Forward, relay string, egress bool) {
	section, option, list := b.section, b.option, b.list
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
		if relay != "" {
			option("relay", relay)
		}
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
		if egress {
			option("egress", f.Egress)
		}
	}
}

// Pushed is what a router tells the VPS of a relay: its forwards, and the version of this program. What a host sends by
// itself is said where that is more than answers: the VPS takes it only if its own file allows that.
func Pushed(r *Relay, version string) string {
	var b exporter
	b.WriteString(PushHeader)
	b.WriteString("config home\n")
	b.option("version", version)
	for _, f := range r.Forwards {
		b.forward(f, "", f.Egress != Replies)
	}
	return b.String()
}

// PushedSection is the section of this end's file that a section of a push was made of: an anonymous one has a name
// there.
func PushedSection(r *Relay, pushed string) string {
	for _, f := range r.Forwards {
		if sectionName(f.Section) == pushed {
			return f.Section
		}
	}
	return pushed
}

// exportWireGuard writes the options of the transport.
func exportWireGuard(r *Relay, role Role, known Known, option func(string, any)) {
	option("transport", WireGuard)
	option("public_key", known.PublicKey)
	if role == Router {
		option("peeraddr", r.IPAddr)
	}
	if port := r.WireGuard.Port; port != transport.DefaultPort {
		if role == Router {
			option("endpoint_port", port)
		} else {
			option("listen_port", port)
		}
	}
	if r.WireGuard.PresharedFile != "" {
		option("preshared_key_file", r.WireGuard.PresharedFile)
	}
}

// ExportPlain writes a file for a WireGuard client without ds4relay (wg-quick(8)) at the home end of a relay. address
// is the client's own, with its prefix. Its private key never was at this end.
func ExportPlain(r *Relay, known Known, address netip.Prefix) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# WireGuard client at home for relay %s\n[Interface]\n# the private key whose public half is %s\n"+
		"PrivateKey = \nAddress = %s\n\n[Peer]\nPublicKey = %s\n", r.Name, r.WireGuard.PublicKey, address,
		known.PublicKey)
	if r.WireGuard.PresharedFile != "" {
		fmt.Fprintf(&b, "# the key in %s of the VPS\nPresharedKey = \n", r.WireGuard.PresharedFile)
	}
	fmt.Fprintf(&b, "Endpoint = %s\nAllowedIPs = %s/32\nPersistentKeepalive = 25\n",
		netip.AddrPortFrom(r.IPAddr, r.WireGuard.Port), PlainAddr)
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
