package openwrt

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/state"
	"github.com/ds4relay/ds4relay/internal/transport"
	"github.com/ds4relay/ds4relay/internal/uci"
)

// FirewallPath is the firewall's configuration. We only read it.
const FirewallPath = "/etc/config/firewall"

// Zone is a zone of the firewall.
type Zone struct {
	Name     string
	Networks []string // interfaces of netifd
	Devices  []string
	Subnets  []netip.Prefix
}

// Zones reads the enabled zones of a firewall configuration.
func Zones(file *uci.File) []Zone {
	var zones []Zone
	for i := range file.Sections {
		section := &file.Sections[i]
		if section.Type != "zone" {
			continue
		}
		z, enabled := Zone{}, true
		for _, option := range section.Options {
			var words []string
			for _, value := range option.Values {
				words = append(words, strings.Fields(value.Text)...)
			}
			switch option.Name {
			case "name":
				z.Name = strings.Join(words, " ")
			case "enabled":
				enabled = !slices.Contains([]string{"0", "off", "false", "no", "disabled"}, strings.Join(words, ""))
			case "network":
				z.Networks = words
			case "device":
				z.Devices = words
			case "subnet":
				for _, word := range words {
					if p, err := netip.ParsePrefix(word); err == nil {
						z.Subnets = append(z.Subnets, p)
					}
				}
			}
		}
		if enabled && z.Name != "" {
			if z.Networks == nil && z.Devices == nil && z.Subnets == nil {
				z.Networks = []string{z.Name} // the default of fw3 and fw4
			}
			zones = append(zones, z)
		}
	}
	return zones
}

// zoneOf finds the zone of an interface or its device, or of a host; "*" if there is none.
func zoneOf(zones []Zone, i *Interface, host netip.Addr) string {
	for _, z := range zones {
		if i != nil && (slices.Contains(z.Networks, i.Name) || i.Device != "" &&
			slices.Contains(z.Devices, i.Device)) ||
			host.IsValid() && slices.ContainsFunc(z.Subnets, func(p netip.Prefix) bool { return p.Contains(host) }) {
			return z.Name
		}
	}
	return "*"
}

// Rule is a section of service data for the firewall, with the options of /etc/config/firewall.
type Rule []Option

// Option is one option of a Rule, with one value or a list.
type Option struct {
	Name   string
	Values []string
}

// Rules returns the rules that a router's tunnels need: protocol 4 from the other end, the forwards in, the hosts' own
// connections out. The relays' endpoints must be known; uplink is the interface that carries each tunnel, or nil.
func Rules(relays []*config.Relay, peers map[string]netip.Addr, uplink map[string]*Interface, interfaces []Interface,
	zones []Zone) []Rule {
	var rules []Rule
	for _, r := range relays {
		if r.Role != config.Router {
			continue
		}
		label := "ds4relay " + r.Name + ": "
		one := func(name, value string) Option { return Option{name, []string{value}} }
		for _, opening := range state.TunnelOf(r, r.Local, peers[r.Name]).Openings() {
			rules = append(rules, openingRule(opening, label+"tunnel", zoneOf(zones, uplink[r.Name], netip.Addr{})))
		}
		opened := map[netip.Addr]bool{}
		for _, f := range r.Forwards {
			lan := zoneOf(zones, lanOf(interfaces, f.DestIP), f.DestIP)
			self := own(interfaces, f.DestIP)
			in := func(m config.Mapping, proto string, more ...Option) {
				rule := Rule{one("type", "rule"), one("name", label+f.Section), one("src", "*"),
					one("device", r.Device), one("direction", "in")}
				if !self { // without dest the rule is for packets to the router itself
					rule = append(rule, one("dest", lan))
				}
				rule = append(rule, one("family", "ipv4"), one("proto", proto), one("dest_ip", m.Host.String()))
				if m.Limited() {
					var clients []string
					for _, c := range m.Clients {
						clients = append(clients, strings.TrimSuffix(c.String(), "/32"))
					}
					more = append(more, Option{"src_ip", clients})
				}
				rules = append(rules, append(append(rule, more...), one("target", "ACCEPT")))
			}
			for _, m := range f.Mappings() {
				private := m.Private()
				proto := strconv.Itoa(int(private.Proto))
				switch {
				case m.All:
					in(m, "all")
				case !private.HasPorts():
					in(m, proto)
				case private.First == private.Last:
					in(m, proto, one("dest_port", fmt.Sprint(private.First)))
				default:
					in(m, proto, one("dest_port", fmt.Sprintf("%d-%d", private.First, private.Last)))
				}
			}
			if f.Egress == config.All && !self && !opened[f.DestIP] {
				opened[f.DestIP] = true
				rules = append(rules, Rule{one("type", "rule"), one("name", label+"egress of "+f.DestIP.String()),
					one("src", lan), one("dest", "*"), one("device", r.Device), one("direction", "out"),
					one("family", "ipv4"), one("proto", "all"), one("src_ip", f.DestIP.String()),
					one("target", "ACCEPT")})
			}
		}
	}
	return rules
}

// openingRule admits an opening from a zone.
func openingRule(o transport.Opening, name, zone string) Rule {
	family, from, to, port := "ipv4", "", "", ""
	if o.Family == transport.IPv6 {
		family = "ipv6"
	}
	if o.From.IsValid() {
		from = o.From.String()
	}
	if o.To.IsValid() {
		to = o.To.String()
	}
	if o.Port != 0 {
		port = strconv.Itoa(int(o.Port))
	}
	var rule Rule
	for _, option := range [][2]string{{"type", "rule"}, {"name", name}, {"src", zone}, {"family", family},
		{"proto", strconv.Itoa(int(o.Proto))}, {"src_ip", from}, {"dest_ip", to}, {"dest_port", port},
		{"target", "ACCEPT"}} {
		if option[1] != "" {
			rule = append(rule, Option{option[0], option[1:]})
		}
	}
	return rule
}

// lanOf returns the interface whose network contains the host, or nil.
func lanOf(interfaces []Interface, host netip.Addr) *Interface {
	for i := range interfaces {
		if slices.ContainsFunc(interfaces[i].IPv4, func(p netip.Prefix) bool {
			return p.Bits() > 0 && p.Masked().Contains(host)
		}) {
			return &interfaces[i]
		}
	}
	return nil
}

// own reports whether the host is the router itself.
func own(interfaces []Interface, host netip.Addr) bool {
	return slices.ContainsFunc(interfaces, func(i Interface) bool {
		return slices.ContainsFunc(i.IPv4, func(p netip.Prefix) bool { return p.Addr() == host })
	})
}

// Map returns the rule for encoding as JSON.
func (r Rule) Map() map[string]any {
	m := map[string]any{}
	for _, o := range r {
		if len(o.Values) == 1 {
			m[o.Name] = o.Values[0]
		} else {
			m[o.Name] = o.Values
		}
	}
	return m
}

// Shell writes the rules as calls of jshn.sh, for the function service_data of an init script. Without rules it is
// empty: without data named firewall, starting and stopping the service does not reload the firewall.
func Shell(rules []Rule) string {
	if len(rules) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("json_add_array firewall\n")
	for _, r := range rules {
		b.WriteString("json_add_object ''\n")
		for _, o := range r {
			if len(o.Values) == 1 {
				fmt.Fprintf(&b, "json_add_string %s %s\n", shellWord(o.Name), shellWord(o.Values[0]))
				continue
			}
			fmt.Fprintf(&b, "json_add_array %s\n", shellWord(o.Name))
			for _, value := range o.Values {
				fmt.Fprintf(&b, "json_add_string '' %s\n", shellWord(value))
			}
			b.WriteString("json_close_array\n")
		}
		b.WriteString("json_close_object\n")
	}
	b.WriteString("json_close_array\n")
	return b.String()
}

func shellWord(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
