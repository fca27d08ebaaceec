package config

// A Spec describes one option. It is the only place with its name, default and allowed values.
type Spec struct {
	Name string `json:"name"`
	// A `list`; also taken as one `option` with values between blanks, as LuCI writes some.
	List     bool `json:"list,omitempty"`
	Required bool `json:"required,omitempty"` // an error where it is missing
	// What a missing option means; "" where that depends on others, see Allowed.
	Default string `json:"default,omitempty"`
	Allowed string `json:"allowed"` // what is allowed, in the words that errors use
}

// A SectionSpec describes one section type and its options.
type SectionSpec struct {
	Type    string `json:"type"`
	Options []Spec `json:"options"`
}

const (
	boolWords = "1 or 0 (also yes/no, on/off, true/false)"
	portWords = "a port from 1 to 65535, or a range such as 8000-8010"
	addrWords = "an IPv6 address such as 2001:db8::1, or a prefix of at most 64 bits such as 2001:db8:1::/64"

	nicWords = "an IPv4 address that a device of the VPS has, such as 10.0.0.5"

	keyWords  = "the other end's public key: 44 characters, as `ds4relay pubkey` prints it there"
	fileWords = "the name of a file from its root, such as /etc/ds4relay/keys/home"

	secondWords = "a number of seconds from 1 to 2592000"
)

// Schema lists the section types of /etc/config/ds4relay with their options.
var Schema = []SectionSpec{
	{Type: "relay", Options: []Spec{
		{Name: "enabled", Default: "1", Allowed: boolWords},
		{Name: "role", Allowed: "router or vps"},
		{Name: "ipaddr", Required: true, Allowed: "the VPS's public IPv4 address (not a private, multicast or " +
			"reserved one)"},
		{Name: "nicaddr", Allowed: nicWords}, // the default is ipaddr, or is found out
		{Name: "transport", Default: "ipip6", Allowed: "ipip6 or wireguard"},
		{Name: "ip6addr", Allowed: addrWords}, // a router's default is auto
		// Required, but not on a VPS with wireguard or allow.
		{Name: "peeraddr", Allowed: addrWords + ", or a DNS name"},
		{Name: "tunlink", Allowed: "the name of a network device, at most 15 characters"},
		{Name: "device", Allowed: "a device name of 1 to 15 characters out of a-z A-Z 0-9 _ . -"},
		{Name: "mtu", Default: "auto", Allowed: "auto, or a number from 576 to 65000"},
		{Name: "encaplimit", Default: "none", Allowed: "none, or a number from 0 to 255"},
		{Name: "ttl", Default: "64", Allowed: "a number from 1 to 255"},
		{Name: "public_key", Allowed: keyWords},        // required with wireguard, but not beside allow
		{Name: "private_key_file", Allowed: fileWords}, // the default has the relay's name
		{Name: "preshared_key_file", Allowed: fileWords},
		{Name: "listen_port", Default: "51846", Allowed: "a port from 1 to 65535"},
		{Name: "endpoint_port", Default: "51846", Allowed: "a port from 1 to 65535"},
		{Name: "peer", Allowed: "plain, or left out"},
		{Name: "persistent_keepalive", Default: "25", Allowed: "a number of seconds from 0 (none) to 65535"},
		{Name: "ip4table", Default: "42", Allowed: "a routing table number from 1 to 4294967295, except 253, " +
			"254 and 255"},
		{Name: "priority", Default: "4600", Allowed: "a number from 1 to 32000, the first of six priorities " +
			"for ip rules"},
		{Name: "egress", Default: "replies", Allowed: "replies or all"},
		{Name: "egress_private", Default: "0", Allowed: boolWords},
		{Name: "killswitch", Default: "0", Allowed: boolWords},
		{Name: "backup", Allowed: "the name of another relay section of this router"},
		{Name: "masq", Default: "0", Allowed: boolWords}, // 1 with peer plain
		{Name: "flow_offloading", Default: "1", Allowed: boolWords},
		{Name: "standby", Default: "0", Allowed: boolWords},
		{Name: "target_local", Default: "1", Allowed: boolWords},
		{Name: "keep", List: true, Allowed: "protocol:port, protocol:first-last or protocol, such as tcp:22, " +
			"udp:60000-61000 or icmp"},
		{Name: "allow", List: true, Allowed: "all, egress, or what keep takes, such as tcp:1-65535, udp:51820 or icmp"},
	}},
	{Type: "forward", Options: []Spec{
		{Name: "enabled", Default: "1", Allowed: boolWords},
		{Name: "relay", List: true, Allowed: "the name of a relay section"},
		{Name: "name", Allowed: "any text of at most 64 characters on one line"},
		{Name: "proto", List: true, Default: "tcp udp", Allowed: "tcp, udp, icmp, another protocol's name or " +
			"number, or all"},
		{Name: "src_dport", List: true, Allowed: portWords},
		{Name: "dest_ip", Required: true, Allowed: "the IPv4 address of one host in the home network"},
		{Name: "dest_port", Allowed: portWords + ", as long as the one of src_dport"},
		{Name: "src_ip", List: true, Default: "0.0.0.0/0", Allowed: "an IPv4 address such as 203.0.113.7, or a " +
			"network such as 203.0.113.0/24"},
		{Name: "egress", Allowed: "replies or all"},
		{Name: "killswitch", Allowed: boolWords},
		{Name: "masq", Allowed: boolWords},
	}},
	{Type: "proxy", Options: []Spec{
		{Name: "enabled", Default: "1", Allowed: boolWords},
		{Name: "proto", Default: "tcp", Allowed: "tcp or udp"},
		{Name: "listen", List: true, Required: true, Allowed: "an address of this machine with a port or a range, " +
			"such as 0.0.0.0:443, [::]:443 or 198.51.100.144:8000-8010"},
		{Name: "target", Required: true, Allowed: "an address or a DNS name, with a port, a range or none (the port " +
			"that the client came to), such as [2001:db8::1]:443 or home.example.net:443"},
		{Name: "target_local", Default: "0", Allowed: boolWords},
		{Name: "proxy_protocol", Default: "0", Allowed: "0, 1 or 2"},
		{Name: "src_ip", List: true, Allowed: "an address such as 203.0.113.7, or a network such as 203.0.113.0/24 " +
			"or 2001:db8::/32"},
		{Name: "max_sessions", Default: "16384", Allowed: "a number from 1 to 1000000"},
		{Name: "max_per_client", Default: "256", Allowed: "a number from 1 to 1000000, or 0 for no limit"},
		{Name: "connect_timeout", Default: "10", Allowed: secondWords},
		{Name: "idle_timeout", Default: "86400", Allowed: secondWords + ", or 0 for none"}, // udp's default is 180
		{Name: "keepalive", Default: "60", Allowed: secondWords + ", or 0 for none"},
		{Name: "access_log", Default: "0", Allowed: boolWords},
	}},
}

func sectionSpec(typ string) *SectionSpec {
	for i := range Schema {
		if Schema[i].Type == typ {
			return &Schema[i]
		}
	}
	return nil
}

func (s *SectionSpec) option(name string) *Spec {
	for i := range s.Options {
		if s.Options[i].Name == name {
			return &s.Options[i]
		}
	}
	return nil
}

func (s *SectionSpec) names() []string {
	names := make([]string, len(s.Options))
	for i := range s.Options {
		names[i] = s.Options[i].Name
	}
	return names
}

// nearest returns the candidate most similar to word, or "" if more than a third of it differs.
func nearest(word string, candidates []string) string {
	best, bestDistance := "", len(word)/3+2
	for _, candidate := range candidates {
		if d := distance(word, candidate); d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	return best
}

// distance is the Levenshtein distance of a and b; inputs of more than 64 bytes count as different.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
