package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/message/messagetest"
	"github.com/ds4relay/ds4relay/internal/transport"
	"github.com/ds4relay/ds4relay/internal/uci"
)

// base is a correct file; the tests of mistakes change one place in it.
const base = `config relay 'home'
	option enabled '1'
	option role 'router'
	option ipaddr '198.51.100.144'
	option ip6addr '2001:db8:fdd2::/64'
	option peeraddr '2001:db8:6ef9::/64'
	option tunlink 'wan6'
	option device 'wrap1'
	option mtu 'auto'
	option encaplimit 'none'
	option ttl '64'
	option ip4table '42'
	option priority '4600'
	option egress 'replies'
	list keep 'tcp:22'

config forward 'web'
	option relay 'home'
	option name 'Web server'
	option enabled '1'
	list proto 'tcp'
	option src_dport '443'
	option dest_ip '192.168.1.210'
	option dest_port '8443'
	option egress 'all'
`

// second is another relay that does not clash with that of base.
const second = `
config relay 'cabin'
	option role 'router'
	option ipaddr '198.51.100.145'
	option ip6addr '2001:db8:fdd2::/64'
	option peeraddr '2001:db8:6efa::/64'
	option ip4table '43'
`

// delegated and delegatedSecond are base and second with an endpoint that is made of a delegated prefix.
func delegated(peer string) string {
	return strings.NewReplacer("\toption ip6addr '2001:db8:fdd2::/64'\n", "", "2001:db8:6ef9::/64", peer).Replace(base)
}

func delegatedSecond(public, peer string) string {
	return strings.NewReplacer("option ip6addr '2001:db8:fdd2::/64'", "option tunlink 'wan6'",
		"198.51.100.145", public, "2001:db8:6efa::/64", peer).Replace(second)
}

// speak: the codes of problems make their English, and translators have them.
func speak(t *testing.T, problems Problems) {
	t.Helper()
	for _, p := range problems {
		messagetest.Check(t, &message.Text{Code: p.Code, Args: p.Args}, p.Message)
		messagetest.Check(t, p.AsText(), p.Error())
		if p.Code == "%s" || p.Code == "" {
			t.Errorf("without a code: %+v", p)
		}
	}
}

func load(t *testing.T, text string) (*Config, Problems, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ds4relay")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, warnings, err := Load(path, Defaults{Role: Router})
	speak(t, warnings)
	speak(t, problemsOf(err))
	if problems, ok := err.(Problems); ok {
		for i := range problems {
			problems[i].File = "F"
		}
	}
	for i := range warnings {
		warnings[i].File = "F"
	}
	return c, warnings, err
}

func TestLoad(t *testing.T) {
	c, warnings, err := load(t, base+second)
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	addr := netip.MustParseAddr
	want := &Relay{Name: "home", Line: 1, Enabled: true, Role: Router, Transport: IPIP6, IPAddr: addr("198.51.100.144"),
		Local: addr("2001:db8:fdd2:0:198:51:100:144"), Peer: addr("2001:db8:6ef9:0:198:51:100:144"), Tunlink: "wan6",
		Device: "wrap1", EncapLimit: transport.NoEncapLimit, TTL: 64, Table: 42, Priority: 4600, Egress: Replies,
		Offloading: true, TargetLocal: true, Keep: []PortSet{{6, 22, 22}},
		Forwards: []*Forward{{Section: "web", Name: "Web server", Line: 17, Ports: []PortSet{{6, 443, 443}},
			DestIP: addr("192.168.1.210"), DestPort: 8443, Egress: All}}}
	if !reflect.DeepEqual(c.Relays[0], want) {
		t.Errorf("got  %+v\nwant %+v", c.Relays[0], want)
	}
	if got := c.Relays[0].Forwards[0].String(); got != "tcp:443 → 192.168.1.210:8443" {
		t.Error(got)
	}
	if c.Relays[1].Device != "ds4-cabin" || c.Relays[1].Mark() != 0x47000000 || c.Relays[0].Mark() != 0x46000000 {
		t.Errorf("%+v", c.Relays[1])
	}
}

func TestForms(t *testing.T) {
	addr := netip.MustParseAddr
	for _, c := range []struct {
		name, old, new string
		get            func(*Relay) any
		want           any
	}{
		{"role by default", "\toption role 'router'\n", "", func(r *Relay) any { return r.Role }, Router},
		{"endpoint by address", "2001:db8:fdd2::/64", "2001:db8:fdd2::7", func(r *Relay) any { return r.Local },
			addr("2001:db8:fdd2::7")},
		{"endpoint by /128", "2001:db8:fdd2::/64", "2001:db8:fdd2::7/128", func(r *Relay) any { return r.Local },
			addr("2001:db8:fdd2::7")},
		{"endpoint of a /48", "2001:db8:fdd2::/64", "2001:db8:fdd2::/48", func(r *Relay) any { return r.Local },
			addr("2001:db8:fdd2:0:198:51:100:144")},
		{"endpoint as an interface has it", "2001:db8:fdd2::/64", "2001:db8:fdd2::1/64", func(r *Relay) any {
			return r.Local
		},
			addr("2001:db8:fdd2::1")},
		{"public address as an interface has it", "'198.51.100.144'", "'198.51.100.144/24'",
			func(r *Relay) any { return r.IPAddr }, addr("198.51.100.144")},
		{"host as an interface has it", "'192.168.1.210'", "'192.168.1.210/32'",
			func(r *Relay) any { return r.Forwards[0].DestIP }, addr("192.168.1.210")},
		{"netifd's word for no limit", "encaplimit 'none'", "encaplimit 'ignore'", func(r *Relay) any {
			return r.EncapLimit
		},
			transport.NoEncapLimit},
		{"a byte order mark", base, "\ufeff" + base, func(r *Relay) any { return r.Name }, "home"},
		{"upper case", "list proto 'tcp'", "option proto 'TCPUDP'", func(r *Relay) any { return r.Forwards[0].Ports },
			[]PortSet{{6, 443, 443}, {17, 443, 443}}},
		{"a range of the firewall", "'443'\n\toption dest_ip '192.168.1.210'\n\toption dest_port '8443'",
			"'8000:8010'\n\toption dest_ip '192.168.1.210'\n\toption dest_port '9000:9010'", func(r *Relay) any {
				return r.Forwards[0].String()
			}, "tcp:8000-8010 → 192.168.1.210:9000"},
		{"several ports", "'443'\n\toption dest_ip '192.168.1.210'\n\toption dest_port '8443'",
			"'443 25 8000-8010'\n\toption dest_ip '192.168.1.210'", func(r *Relay) any {
				return r.Forwards[0].String()
			}, "tcp:443, tcp:25, tcp:8000-8010 → 192.168.1.210"},
		{"several ports where they lead", "'443'\n\toption dest_ip '192.168.1.210'\n\toption dest_port '8443'",
			"'443 25'\n\toption dest_ip '192.168.1.210'", func(r *Relay) any {
				m := r.Forwards[0].Mappings()
				return []uint16{m[0].Public.First, m[0].Port, m[1].Public.First, m[1].Port}
			}, []uint16{443, 443, 25, 25}},
		{"a list of ports", "\toption src_dport '443'\n\toption dest_ip '192.168.1.210'\n\toption dest_port '8443'",
			"\tlist src_dport '443'\n\tlist src_dport '25'\n\toption dest_ip '192.168.1.210'",
			func(r *Relay) any { return r.Forwards[0].Ports }, []PortSet{{6, 443, 443}, {6, 25, 25}}},
		{"a range with a kept port", "'443'\n\toption dest_ip '192.168.1.210'\n\toption dest_port '8443'",
			"'1-65535'\n\toption dest_ip '192.168.1.210'", func(r *Relay) any { return r.Forwards[0].Ports },
			[]PortSet{{6, 1, 65535}}},
		{"peer by name", "2001:db8:6ef9::/64", "vps.example.net", func(r *Relay) any { return r.PeerName },
			"vps.example.net"},
		{"mtu", "'auto'", "'1400'", func(r *Relay) any { return r.MTU }, 1400},
		{"encaplimit", "encaplimit 'none'", "encaplimit '0'", func(r *Relay) any { return r.EncapLimit }, 0},
		{"keep in one option", "list keep 'tcp:22'", "option keep 'tcp:22 udp:60000-61000 gre ospf'",
			func(r *Relay) any { return r.Keep }, []PortSet{{6, 22, 22}, {17, 60000, 61000}, {Proto: 47}, {Proto: 89}}},
		{"proto all", "'tcp'\n\toption src_dport '443'\n\toption dest_ip '192.168.1.210'\n\toption dest_port '8443'",
			"'all'\n\toption dest_ip '192.168.1.210'", func(r *Relay) any { return r.Forwards[0].All }, true},
		{"proto by default", "\tlist proto 'tcp'\n", "", func(r *Relay) any { return r.Forwards[0].Ports },
			[]PortSet{{6, 443, 443}, {17, 443, 443}}},
		{"tcpudp", "list proto 'tcp'", "option proto 'tcpudp'", func(r *Relay) any { return r.Forwards[0].Ports },
			[]PortSet{{6, 443, 443}, {17, 443, 443}}},
		{"several protocols in one option", "list proto 'tcp'", "option proto 'tcp sctp'", func(r *Relay) any {
			return r.Forwards[0].Ports
		}, []PortSet{{6, 443, 443}, {132, 443, 443}}},
		{"ranges", "'443'\n\toption dest_ip '192.168.1.210'\n\toption dest_port '8443'",
			"'8000-8010'\n\toption dest_ip '192.168.1.210'\n\toption dest_port '9000-9010'", func(r *Relay) any {
				return r.Forwards[0].String()
			}, "tcp:8000-8010 → 192.168.1.210:9000"},
		{"icmp", "'tcp'\n\toption src_dport '443'\n\toption dest_ip '192.168.1.210'\n\toption dest_port '8443'",
			"'icmp'\n\toption dest_ip '192.168.1.210'", func(r *Relay) any { return r.Forwards[0].Ports },
			[]PortSet{{Proto: 1}}},
		{"a disabled forward", "option name 'Web server'\n\toption enabled '1'", "option enabled 'off'",
			func(r *Relay) any { return len(r.Forwards) }, 0},
		{"egress of the relay", "\toption egress 'all'\n", "", func(r *Relay) any { return r.Forwards[0].Egress },
			Replies},
		{"kill switch of the relay", "\toption egress 'replies'\n", "\toption egress 'replies'\n\toption " +
			"killswitch '1'\n", func(r *Relay) any { return r.Forwards[0].KillSwitch }, true},
		{"kill switch of the relay, answers only", "\toption egress 'all'\n", "\toption killswitch '0'\n",
			func(r *Relay) any { return r.Forwards[0].KillSwitch }, false},
		{"kill switch of a forward", "\toption egress 'all'\n", "\toption egress 'all'\n\toption killswitch '1'\n",
			func(r *Relay) any { return r.Forwards[0].KillSwitch }, true},
		{"masq of the relay", "\toption egress 'replies'\n", "\toption egress 'replies'\n\toption masq '1'\n",
			func(r *Relay) any { return r.Forwards[0].Masq }, true},
		{"masq of a forward", "\toption egress 'all'\n", "\toption egress 'all'\n\toption masq '1'\n",
			func(r *Relay) any { return r.Forwards[0].Masq && !r.Masq }, true},
		{"endpoint of the delegated prefix", "'2001:db8:fdd2::/64'", "'auto'", func(r *Relay) any { return r.Auto },
			true},
		{"endpoint by default", "\toption ip6addr '2001:db8:fdd2::/64'\n", "", func(r *Relay) any {
			return r.Auto && !r.Local.IsValid()
		}, true},
		{"clients", "option dest_port '8443'", "list src_ip '203.0.113.128/25'\n\tlist src_ip '10.1.2.3'\n\tlist " +
			"src_ip '203.0.113.0/24'\n\tlist src_ip '10.1.2.3'", func(r *Relay) any { return r.Forwards[0].String() },
			"tcp:443 → 192.168.1.210 for 10.1.2.3, 203.0.113.0/24"},
		{"every client", "option dest_port '8443'", "option src_ip '203.0.113.128/25 0.0.0.0/0'", func(r *Relay) any {
			return len(r.Forwards[0].Clients)
		}, 0},
		{"a name with quotes", "'Web server'", `'Dad'\''s <b>NAS</b>'`, func(r *Relay) any {
			return r.Forwards[0].Name
		}, "Dad's <b>NAS</b>"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(base, c.old) {
				t.Fatalf("base has no %q", c.old)
			}
			config, _, err := load(t, strings.Replace(base, c.old, c.new, 1))
			if err != nil {
				t.Fatal(err)
			}
			if got := c.get(config.Relays[0]); !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %#v, want %#v", got, c.want)
			}
		})
	}
}

// renamed is base with another first line and without references to the old one.
func renamed(first string) string {
	return strings.NewReplacer("config relay 'home'", first, "\toption relay 'home'\n", "").Replace(base)
}

// TestMistakes makes one mistake in each file.
func TestMistakes(t *testing.T) {
	const endpointWords = "allowed is an IPv6 address such as 2001:db8::1, or a prefix of at most 64 bits such as " +
		"2001:db8:1::/64"
	const ipaddrWords = "allowed is the VPS's public IPv4 address (not a private, multicast or reserved one)"
	const destWords = "allowed is the IPv4 address of one host in the home network"
	const portWords = "allowed is a port from 1 to 65535, or a range such as 8000-8010"
	const destPortWords = portWords + ", as long as the one of src_dport"
	const keepWords = "allowed is protocol:port, protocol:first-last or protocol, such as tcp:22, " +
		"udp:60000-61000 or icmp"
	const protoWords = "allowed is tcp, udp, icmp, another protocol's name or number, or all"
	const clientWords = "allowed is an IPv4 address such as 203.0.113.7, or a network such as 203.0.113.0/24"
	const deviceWords = "allowed is a device name of 1 to 15 characters out of a-z A-Z 0-9 _ . -"
	const tableWords = "allowed is a routing table number from 1 to 4294967295, except 253, 254 and 255"
	const boolWords = "allowed is 1 or 0 (also yes/no, on/off, true/false)"
	mistakes := []struct{ old, new, want string }{
		{"enabled '1'\n\toption role", "enabled 'ja'\n\toption role", `F:2: relay "home": option enabled "ja": ` +
			boolWords},
		{"'router'", "'server'", `F:3: relay "home": option role "server": allowed is router or vps`},
		{"\toption ipaddr '198.51.100.144'\n", "", `F:1: relay "home": option ipaddr is missing; it takes the VPS's ` +
			`public IPv4 address (not a private, multicast or reserved one)`},
		{"'198.51.100.144'", "'198.51.100'", `F:4: relay "home": option ipaddr "198.51.100": ` + ipaddrWords},
		{"'198.51.100.144'", "'198.51.100.256'", `F:4: relay "home": option ipaddr "198.51.100.256": ` + ipaddrWords},
		{"'198.51.100.144'", "'198.51.100.0/24'", `F:4: relay "home": option ipaddr "198.51.100.0/24": ` +
			ipaddrWords},
		{"'198.51.100.144'", "'231.5.6.7'", `F:4: relay "home": option ipaddr "231.5.6.7": ` + ipaddrWords},
		{"'198.51.100.144'", "'192.168.1.1'", `F:4: relay "home": option ipaddr "192.168.1.1": ` + ipaddrWords},
		{"'198.51.100.144'", "'100.64.0.1'", `F:4: relay "home": option ipaddr "100.64.0.1": ` + ipaddrWords},
		{"'198.51.100.144'", "'127.0.0.1'", `F:4: relay "home": option ipaddr "127.0.0.1": ` + ipaddrWords},
		{"'198.51.100.144'", "'255.255.255.255'", `F:4: relay "home": option ipaddr "255.255.255.255": ` + ipaddrWords},
		{"'198.51.100.144'", "'2001:db8::1'", `F:4: relay "home": option ipaddr "2001:db8::1": ` + ipaddrWords},
		{"'198.51.100.144'", "'vps.example.net'", `F:4: relay "home": option ipaddr "vps.example.net": ` + ipaddrWords},
		{"'router'\n\toption ipaddr '198.51.100.144'\n\toption ip6addr '2001:db8:fdd2::/64'",
			"'vps'\n\toption ipaddr '198.51.100.144'", `F:1: relay "home": option ip6addr is missing; it takes an ` +
				`IPv6 address such as 2001:db8::1, or a prefix of at most 64 bits such as 2001:db8:1::/64`},
		{"2001:db8:fdd2::/64", "2001:db8:fdd2::/129", `F:5: relay "home": option ip6addr "2001:db8:fdd2::/129": ` +
			endpointWords},
		{"2001:db8:fdd2::/64", "2001:db8:fdd2", `F:5: relay "home": option ip6addr "2001:db8:fdd2": ` + endpointWords},
		{"2001:db8:fdd2::/64", "2001:db8:fdd2::/80", `F:5: relay "home": option ip6addr "2001:db8:fdd2::/80": the ` +
			`endpoint 2001:db8:fdd2:0:198:51:100:144 made of it and ipaddr lies outside; allowed is a prefix of at ` +
			`most 64 bits, or an address`},
		{"2001:db8:fdd2::/64", "fe80::1", `F:5: relay "home": option ip6addr "fe80::1": ` + endpointWords},
		{"2001:db8:fdd2::/64", "ff02::1", `F:5: relay "home": option ip6addr "ff02::1": ` + endpointWords},
		{"2001:db8:fdd2::/64", "::1", `F:5: relay "home": option ip6addr "::1": ` + endpointWords},
		{"2001:db8:fdd2::/64", "::ffff:192.0.2.1", `F:5: relay "home": option ip6addr "::ffff:192.0.2.1": ` +
			endpointWords},
		{"2001:db8:fdd2::/64", "192.0.2.1", `F:5: relay "home": option ip6addr "192.0.2.1": ` + endpointWords},
		{"2001:db8:fdd2::/64", "2001:db8::1%eth0", `F:5: relay "home": option ip6addr "2001:db8::1%eth0": ` +
			endpointWords},
		{"2001:db8:fdd2::/64", "home.example.net", `F:5: relay "home": option ip6addr "home.example.net": ` +
			endpointWords},
		{"\toption peeraddr '2001:db8:6ef9::/64'\n", "", `F:1: relay "home": option peeraddr is missing; it takes an ` +
			`IPv6 address such as 2001:db8::1, or a prefix of at most 64 bits such as 2001:db8:1::/64, or a DNS name`},
		{"2001:db8:6ef9::/64", "vps", `F:6: relay "home": option peeraddr "vps": ` + endpointWords + ", or a DNS name"},
		{"2001:db8:6ef9::/64", "-vps.example.net", `F:6: relay "home": option peeraddr "-vps.example.net": ` +
			endpointWords + ", or a DNS name"},
		{"2001:db8:6ef9::/64", "198.51.100.144", `F:6: relay "home": option peeraddr "198.51.100.144": ` +
			endpointWords + ", or a DNS name"},
		{"2001:db8:6ef9::/64", "2001:db8:fdd2::/64", `F:6: relay "home": option peeraddr "2001:db8:fdd2::/64": both ` +
			`endpoints are 2001:db8:fdd2:0:198:51:100:144; ip6addr is this end's, peeraddr the other end's`},
		{"'wan6'", "'interface-of-the-wan'", `F:7: relay "home": option tunlink "interface-of-the-wan": allowed is ` +
			`the name of a network device, at most 15 characters`},
		{"'wan6'", "'a/b'", `F:7: relay "home": option tunlink "a/b": allowed is the name of a network device, at ` +
			`most 15 characters`},
		{"'wrap1'", "'wan6'", `F:8: relay "home": option device "wan6": wan6 is also the tunlink; allowed is a name ` +
			`of its own for the tunnel`},
		{"'wrap1'", "'a-name-of-16-xxx'", `F:8: relay "home": option device "a-name-of-16-xxx": ` + deviceWords},
		{"'wrap1'", "'wrap 1'", `F:8: relay "home": option device "wrap 1": ` + deviceWords},
		{"'wrap1'", "'wrap;1'", `F:8: relay "home": option device "wrap;1": ` + deviceWords},
		{"'wrap1'", "'..'", `F:8: relay "home": option device "..": ` + deviceWords},
		{"'wrap1'", "'all'", `F:8: relay "home": option device "all": ` + deviceWords},
		{"'auto'", "'1500 bytes'", `F:9: relay "home": option mtu "1500 bytes": allowed is auto, or a number from ` +
			`576 to 65000`},
		{"'auto'", "'100'", `F:9: relay "home": option mtu "100": allowed is auto, or a number from 576 to 65000`},
		{"'auto'", "'70000'", `F:9: relay "home": option mtu "70000": allowed is auto, or a number from 576 to 65000`},
		{"'auto'", "'+1400'", `F:9: relay "home": option mtu "+1400": allowed is auto, or a number from 576 to 65000`},
		{"'none'", "'256'", `F:10: relay "home": option encaplimit "256": allowed is none, or a number from 0 to 255`},
		{"'none'", "'-1'", `F:10: relay "home": option encaplimit "-1": allowed is none, or a number from 0 to 255`},
		{"'64'\n\toption ip4table", "'0'\n\toption ip4table", `F:11: relay "home": option ttl "0": allowed is a ` +
			`number from 1 to 255`},
		{"'64'\n\toption ip4table", "'inherit'\n\toption ip4table", `F:11: relay "home": option ttl "inherit": ` +
			`allowed is a number from 1 to 255`},
		{"'42'", "'0'", `F:12: relay "home": option ip4table "0": ` + tableWords},
		{"'42'", "'254'", `F:12: relay "home": option ip4table "254": ` + tableWords},
		{"'42'", "'main'", `F:12: relay "home": option ip4table "main": ` + tableWords},
		{"'42'", "'4294967296'", `F:12: relay "home": option ip4table "4294967296": ` + tableWords},
		{"'4600'", "'32766'", `F:13: relay "home": option priority "32766": allowed is a number from 1 to 32000, the ` +
			`first of six priorities for ip rules`},
		{"'replies'", "'some'", `F:14: relay "home": option egress "some": allowed is replies or all`},
		{"'all'\n", "'replies'\n\toption killswitch '1'\n", `F:26: forward "web": option killswitch "1": is for ` +
			`hosts whose own connections go through the tunnel; allowed is 0, or egress all beside it`},
		{"'all'\n", "'all'\n\toption masq 'x'\n", `F:26: forward "web": option masq "x": ` + boolWords},
		{"option dest_port '8443'\n", "option dest_port '8443'\n\toption masq '1'\n\nconfig forward\n\toption proto " +
			"'icmp'\n\toption dest_ip '192.168.1.210'\n", `F:27: forward "forward[0]": option masq "0": 192.168.1.210 has ` +
			`masq '1' in forward "web"; allowed is the same in all forwards of a relay to one host`},
		{"'tcp:22'", "'22'", `F:15: relay "home": option keep "22": ` + keepWords},
		{"'tcp:22'", "'tcp'", `F:15: relay "home": option keep "tcp": ` + keepWords},
		{"'tcp:22'", "'ssh:22'", `F:15: relay "home": option keep "ssh:22": ` + keepWords},
		{"'tcp:22'", "'tcp:0'", `F:15: relay "home": option keep "tcp:0": ` + keepWords},
		{"'tcp:22'", "'tcp:30-20'", `F:15: relay "home": option keep "tcp:30-20": ` + keepWords},
		{"'tcp:22'", "'icmp:8'", `F:15: relay "home": option keep "icmp:8": ` + keepWords},
		{"'tcp:22'", "'tcp:443'", `F:22: forward "web": option src_dport "tcp:443": is also kept for the VPS (list ` +
			`keep 'tcp:443' of relay "home"); remove one of the two`},
		{base, renamed("config relay"), `F:1: relay "relay[0]": a relay needs a name of 1 to 11 characters out of ` +
			`a-z 0-9 _, as in: config relay 'home'`},
		{base, renamed("config relay 'twelve_chars'"), `F:1: relay "twelve_chars": a relay needs a name of 1 to 11 ` +
			`characters out of a-z 0-9 _, as in: config relay 'home'`},
		{base, renamed("config relay 'Home'"), `F:1: relay "Home": a relay needs a name of 1 to 11 characters out of ` +
			`a-z 0-9 _, as in: config relay 'home'`},
		{"\toption relay 'home'", "\toption relay 'hoem'", `F:18: forward "web": option relay "hoem": there is no ` +
			`relay section of that name; allowed is home`},
		{"'Web server'", "'" + strings.Repeat("x", 65) + "'", `F:19: forward "web": option name "` +
			strings.Repeat("x", 65) + `": allowed is any text of at most 64 characters on one line`},
		{"enabled '1'\n\tlist proto", "enabled '2'\n\tlist proto", `F:20: forward "web": option enabled "2": ` +
			boolWords},
		{"list proto 'tcp'", "list proto 'http'", `F:21: forward "web": option proto "http": ` + protoWords},
		{"list proto 'tcp'", "list proto '256'", `F:21: forward "web": option proto "256": ` + protoWords},
		{"list proto 'tcp'", "list proto 'tcp'\n\tlist proto 'all'", `F:21: forward "web": option proto "tcp": all ` +
			`cannot stand beside other protocols; allowed is all alone, or a list without it`},
		{"list proto 'tcp'", "list proto 'all'", `F:22: forward "web": option src_dport "443": proto all has no ` +
			`ports; allowed is no src_dport, or a protocol with ports such as tcp`},
		{"list proto 'tcp'", "list proto 'icmp'", `F:22: forward "web": option src_dport "443": proto icmp has no ` +
			`ports; allowed is no src_dport, or a forward of its own for that protocol`},
		{"\toption src_dport '443'\n\toption dest_ip '192.168.1.210'\n\toption dest_port '8443'",
			"\toption dest_ip '192.168.1.210'",
			`F:17: forward "web": option src_dport is missing; it takes a port from 1 to 65535, or a range such as ` +
				`8000-8010 (or set proto to all: every protocol and port)`},
		{"'443'", "'0'", `F:22: forward "web": option src_dport "0": ` + portWords},
		{"'443'", "'65536'", `F:22: forward "web": option src_dport "65536": ` + portWords},
		{"'443'", "'https'", `F:22: forward "web": option src_dport "https": ` + portWords},
		{"'443'", "'20-10'", `F:22: forward "web": option src_dport "20-10": ` + portWords},
		{"'443'", "'440-445'", `F:24: forward "web": option dest_port "8443": has 1 ports, src_dport has 6; allowed ` +
			`is as many, mapped one to one`},
		{"\toption dest_ip '192.168.1.210'\n", "", `F:17: forward "web": option dest_ip is missing; it takes the ` +
			`IPv4 address of one host in the home network`},
		{"192.168.1.210", "192.168.1.0/24", `F:23: forward "web": option dest_ip "192.168.1.0/24": ` + destWords},
		{"192.168.1.210", "231.1.1.1", `F:23: forward "web": option dest_ip "231.1.1.1": ` + destWords},
		{"192.168.1.210", "255.255.255.255", `F:23: forward "web": option dest_ip "255.255.255.255": ` + destWords},
		{"192.168.1.210", "127.0.0.1", `F:23: forward "web": option dest_ip "127.0.0.1": ` + destWords},
		{"192.168.1.210", "0.0.0.0", `F:23: forward "web": option dest_ip "0.0.0.0": ` + destWords},
		{"192.168.1.210", "2001:db8::210", `F:23: forward "web": option dest_ip "2001:db8::210": ` + destWords},
		{"192.168.1.210", "198.51.100.144", `F:23: forward "web": option dest_ip "198.51.100.144": is the public ` +
			`address itself; ` + destWords},
		{"'8443'", "'0'", `F:24: forward "web": option dest_port "0": ` + destPortWords},
		{"'8443'", "'9000-9001'", `F:24: forward "web": option dest_port "9000-9001": has 2 ports, src_dport has 1; ` +
			`allowed is as many, mapped one to one`},
		{"'all'\n", "'none'\n", `F:25: forward "web": option egress "none": allowed is replies or all`},
		{"'router'\n\toption ipaddr '198.51.100.144'\n\toption ip6addr '2001:db8:fdd2::/64'",
			"'vps'\n\toption ipaddr '198.51.100.144'\n\toption ip6addr 'auto'",
			`F:5: relay "home": option ip6addr "auto": is for routers; on a VPS ` +
				endpointWords},
		{"option dest_port '8443'", "option src_ip '203.0.113.1/24'", `F:24: forward "web": option src_ip ` +
			`"203.0.113.1/24": ` + clientWords},
		{"option dest_port '8443'", "list src_ip '203.0.113.1'\n\tlist src_ip 'office'",
			`F:25: forward "web": option src_ip "office": ` + clientWords},
		{"src_dport '443'", "src_dport '443 444'", `F:24: forward "web": option dest_port "8443": stands for one ` +
			`src_dport, not for 2; allowed is no dest_port, or a forward of its own for each`},
		{"src_dport '443'\n\toption dest_ip '192.168.1.210'\n\toption dest_port '8443'",
			"src_dport '443-450 25 446-447'\n\toption dest_ip '192.168.1.210'", `F:22: forward "web": option ` +
				`src_dport "446-447": overlaps with 443-450 of the same forward; remove one of the two`},
		{"option dest_port '8443'", "option src_ip '2001:db8::/32'", `F:24: forward "web": option src_ip ` +
			`"2001:db8::/32": ` + clientWords},
		{"option dest_port '8443'", "option src_ip '10.0.0.0/33'", `F:24: forward "web": option src_ip ` +
			`"10.0.0.0/33": ` + clientWords},
		{base, strings.Replace(base, "option egress 'replies'", "option killswitch '1'", 1) +
			strings.Replace(second, "option ip4table '43'", "option ip4table '43'\n\toption priority '4610'", 1) +
			"\nconfig forward 'ssh'\n\toption relay 'cabin'\n\toption proto 'all'\n\toption dest_ip '192.168.1.210'\n",
			`F:33: relay "cabin": option priority "4610": comes after the kill switch of relay "home" for 192.168.1.210, ` +
				`which both have; allowed is at most 4602`},
		{base, base + second + "\nconfig forward 'ssh'\n\toption relay 'cabin'\n\toption proto 'all'\n\toption " +
			"dest_ip '192.168.1.210'\n\toption egress 'all'\n",
			`F:38: forward "ssh": option egress "all": 192.168.1.210 sends its own connections through relay "home" ` +
				`already; allowed is egress 'replies' in one of the two, or option backup in relay "home"`},
		{base, base + strings.ReplaceAll(second, "198.51.100.145", "198.51.100.144") + "\nconfig forward " +
			"'ssh'\n\toption relay 'cabin'\n\toption proto 'tcp'\n\toption src_dport '22'\n\toption dest_ip " +
			"'192.168.1.211'\n",
			`F:37: forward "ssh": option src_dport "tcp:22": is also kept for the VPS (list keep 'tcp:22' of relay ` +
				`"home"); remove one of the two`},
		{"option mtu 'auto'", "list mtu '1400'\n\tlist mtu '1500'", `F:10: relay "home": option mtu "1500": is given ` +
			`2 times as a list; allowed is one option`},
		{base, base + strings.Replace(second, "2001:db8:6efa", "2001:db8:6ef9", 1) + "\toption device 'wrap1'\n",
			`F:33: relay "cabin": option device "wrap1": relay "home" has the same device; give each relay its own`},
		{base, base + strings.Replace(second, "'43'", "'42'", 1), `F:32: relay "cabin": option ip4table "42": relay ` +
			`"home" has the same table; give each relay its own`},
		{base, base + strings.Replace(second, "'43'", "'297'", 1), `F:32: relay "cabin": option ip4table "297": ` +
			`relay "home" has table 42, which gives the same connection mark; allowed is a table whose distance is ` +
			`no multiple of 255`},
		{base, base + strings.Replace(strings.Replace(second, "6efa", "6ef9", 1), "145", "144", 1),
			`F:31: relay "cabin": option peeraddr "2001:db8:6ef9:0:198:51:100:144": relay "home" has a tunnel ` +
				`between the same two endpoints; one of the four must differ`},
		{base, delegated("2001:db8:6ef9::/64") + delegatedSecond("198.51.100.144", "2001:db8:6ef9::/64"),
			`F:30: relay "cabin": option peeraddr "2001:db8:6ef9:0:198:51:100:144": relay "home" has a tunnel ` +
				`between the same two endpoints; one of the four must differ`},
		{base, delegated("vps.example.org") + delegatedSecond("198.51.100.144", "vps.example.org"),
			`F:30: relay "cabin": option peeraddr "vps.example.org": relay "home" has a tunnel between the same two ` +
				`endpoints; one of the four must differ`},
		{base, base + second + "\nconfig forward 'b'\n\tlist relay 'home'\n\tlist relay 'cabin'\n\toption src_dport '1'\n" +
			"\toption dest_ip '192.168.1.2'\n", `F:36: forward "b": option relay "cabin": has another public address than ` +
			`relay "home", or is at its VPS; allowed are several relays of a router with the same ipaddr`},
		{base, base + "\nconfig forward 'b'\n\toption relay 'home home'\n\toption src_dport '1'\n" +
			"\toption dest_ip '192.168.1.2'\n",
			`F:28: forward "b": option relay "home": is given twice; remove one of the two`},
		{base, base + strings.ReplaceAll(second, "198.51.100.145", "198.51.100.144") + "\nconfig forward 'b'\n" +
			"\tlist relay 'home'\n\tlist relay 'cabin'\n\toption src_dport '1'\n\toption dest_ip '192.168.1.2'\n" +
			"\toption egress 'all'\n", `F:39: forward "b": option egress "all": is for several relays only if one ` +
			`is the backup of the other; allowed is replies, or option backup in relay "home"`},
		{base, base + strings.ReplaceAll(second, "198.51.100.145", "198.51.100.144") + "\toption egress 'all'\n\nconfig " +
			"forward 'b'\n\tlist relay 'home'\n\tlist relay 'cabin'\n\toption src_dport '1'\n\toption dest_ip " +
			"'192.168.1.2'\n", `F:35: forward "b": option egress "all": is the default of relay "cabin", but not of relay ` +
			`"home", which has this forward, too; give it here`},
		{base, base + second + "\nconfig forward\n\toption src_dport '1'\n\toption dest_ip '192.168.1.2'\n",
			`F:34: forward "forward[0]": option relay is missing; with several relays it takes one of: home, cabin`},
		{base, base + "\nconfig forward 'too'\n\toption src_dport '440-450'\n\toption dest_ip " +
			"'192.168.1.2'\n\toption proto 'tcp'\n",
			`F:28: forward "too": option src_dport "tcp:440-450": overlaps with forward "web" of relay "home" ` +
				`(tcp:443 → 192.168.1.210:8443); a port of 198.51.100.144 can go to one host only`},
		{base, base + "\nconfig forward 'a'\n\toption proto 'icmp'\n\toption dest_ip '192.168.1.2'\n\nconfig forward " +
			"'b'\n\toption proto '1'\n\toption dest_ip '192.168.1.3'\n",
			`F:32: forward "b": option proto "icmp": overlaps with forward "a" of relay "home" (icmp → 192.168.1.2); ` +
				`a port of 198.51.100.144 can go to one host only`},
		{base, base + "\nconfig forward 'a'\n\toption proto 'all'\n\toption dest_ip '192.168.1.2'\n\nconfig forward " +
			"'b'\n\toption proto 'all'\n\toption dest_ip '192.168.1.3'\n",
			`F:32: forward "b": option proto "all": forward "a" of relay "home" has all of 198.51.100.144 already; ` +
				`only one host can`},
		{base, "config forward\n\toption src_dport '1'\n\toption dest_ip '192.168.1.2'\n",
			`F:1: forward "forward[0]": there is no relay section for it; add one: config relay 'home'`},
	}
	if len(mistakes) < 60 {
		t.Errorf("%d mistakes, want at least 60", len(mistakes))
	}
	for _, m := range mistakes {
		t.Run(caseName(m.want), func(t *testing.T) {
			if !strings.Contains(base, m.old) {
				t.Fatalf("base has no %q", m.old)
			}
			_, _, err := load(t, strings.Replace(base, m.old, m.new, 1))
			if err == nil || err.Error() != m.want {
				t.Errorf("got\n%v\nwant\n%s", err, m.want)
			}
		})
	}
}

// caseName makes a mistake the name of its test. Before Go 1.25 a test's directory has all of that name, and no file's
// name may have more than 255 bytes.
func caseName(mistake string) string { return mistake[:min(len(mistake), 60)] }

// TestAllAtOnce: every mistake is reported, in the order of lines.
func TestAllAtOnce(t *testing.T) {
	text := strings.NewReplacer("'198.51.100.144'", "'x'", "'auto'", "'y'", "'8443'", "'z'", "'443'",
		"'w'").Replace(base)
	_, _, err := load(t, text)
	var lines []int
	for _, p := range err.(Problems) {
		lines = append(lines, p.Line)
	}
	if !reflect.DeepEqual(lines, []int{4, 9, 22, 24}) {
		t.Errorf("lines %v\n%v", lines, err)
	}
}

func TestWarnings(t *testing.T) {
	text := strings.Replace(base, "option tunlink", "option tunnlink 'wan6'\n\toption tunlink", 1) +
		"\nconfig forwards 'x'\n\nconfig zzzzzzzzz\n"
	_, warnings, err := load(t, text)
	want := `F:7: relay "home": option tunnlink: unknown option is ignored; did you mean tunlink?
F:28: unknown section type "forwards" is ignored; did you mean "forward"?
F:30: unknown section type "zzzzzzzzz" is ignored`
	if err != nil || warnings.Error() != want {
		t.Errorf("%v\n%v", err, warnings)
	}
	_, warnings, err = load(t, base+"\toption masq '1'\n")
	want = `F:25: forward "web": option egress "all": is only for what 192.168.1.210 sends through this machine; with ` +
		`masq '1' its gateway is another router, and its own connections do not come here`
	if err != nil || warnings.Error() != want {
		t.Errorf("%v\n%v", err, warnings)
	}
}

func TestSharedAddress(t *testing.T) {
	shared := strings.Replace(second, "198.51.100.145", "198.51.100.144", 1)
	for forward, ok := range map[string]bool{"444": true, "443": false} {
		_, _, err := load(t, base+shared+"\nconfig forward\n\toption relay 'cabin'\n\toption proto 'tcp'\n\toption "+
			"src_dport '"+forward+"'\n\toption dest_ip '192.168.1.9'\n")
		if (err == nil) != ok {
			t.Errorf("port %s: %v", forward, err)
		}
	}
	// Disabled sections do not clash.
	off := strings.Replace(base, "option name 'Web server'\n\toption enabled '1'", "option enabled '0'", 1)
	if _, _, err := load(t, off+"\nconfig forward\n\toption src_dport '443'\n\toption dest_ip "+
		"'192.168.1.9'\n"); err != nil {
		t.Error(err)
	}
}

func TestDerive(t *testing.T) {
	got := transport.Derive(netip.MustParsePrefix("2001:db8:fdd2::/64"), netip.MustParseAddr("203.0.113.9"))
	if got != netip.MustParseAddr("2001:db8:fdd2:0:203:0:113:9") {
		t.Error(got)
	}
}

// FuzzNew: whatever libuci accepts is a configuration or a list of mistakes.
func FuzzNew(f *testing.F) {
	f.Add(base + second)
	f.Add("config relay\nlist proto ''\nconfig forward\noption proto 'all tcpudp 1'\noption src_dport '1-65535'\n")
	f.Fuzz(func(t *testing.T, text string) {
		file, err := uci.Parse("F", []byte(text))
		if err != nil {
			return
		}
		c, _, err := New(file, Defaults{Role: Router})
		if (c == nil) == (err == nil) {
			t.Fatal(c, err)
		}
		speak(t, problemsOf(err))
		for _, p := range problemsOf(err) {
			if p.Message == "" || p.Line < 1 {
				t.Fatalf("%+v", p)
			}
		}
	})
}

func problemsOf(err error) Problems {
	problems, _ := err.(Problems)
	return problems
}

func TestMissingFile(t *testing.T) {
	if _, _, err := Load(filepath.Join(t.TempDir(), "none"), Defaults{Role: Router}); err == nil ||
		!strings.Contains(err.Error(), "no such file") {
		t.Error(err)
	}
}

// TestDefaultDevice: the machine may name a tunnel's device; an option of the file wins, and so does a name that works.
func TestDefaultDevice(t *testing.T) {
	for _, c := range []struct{ machine, file, want string }{
		{"", "", "ds4-home"}, {"wrap1", "", "wrap1"}, {"wrap1", "\toption device 'tun7'\n", "tun7"},
		{"/wrap*", "", "ds4-home"},
	} {
		parsed, _, err := Parse("F", []byte(strings.Replace(base, "\toption device 'wrap1'\n", c.file, 1)),
			Defaults{Role: Router, Devices: map[string]string{"home": c.machine}})
		if err != nil {
			t.Fatal(err)
		}
		if got := parsed.Relay("home").Device; got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

// TestDisabled: disabled sections are never an error, however unfinished, and neither are forwards of a disabled relay.
func TestDisabled(t *testing.T) {
	for name, text := range map[string]string{
		"a relay": base + "\nconfig relay 'cabin'\n\toption enabled '0'\n",
		"a relay and its forward": base + "\nconfig relay 'cabin'\n\toption enabled 'off'\n\toption ipaddr " +
			"'10.0.0.1'\n\nconfig forward\n\toption relay 'cabin'\n\toption src_dport '80'\n\toption dest_ip " +
			"'192.168.7.7'\n", "a forward": base + "\nconfig forward 'later'\n\toption enabled '0'\n\toption relay " +
			"'nobody'\n\toption proto 'foo'\n", "a proxy": base + "\nconfig proxy 'later'\n\toption enabled " +
			"'no'\n\tlist listen 'x'\n", "the only relay": "config relay 'cabin'\n\toption enabled '0'\n\nconfig " +
			"forward\n\toption src_dport '80'\n\toption dest_ip '192.168.7.7'\n",
	} {
		c, warnings, err := load(t, text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(warnings) == 0 || !strings.Contains(warnings.Error(), "is disabled, and has mistakes") {
			t.Errorf("%s: warnings: %v", name, warnings)
		}
		if c.Relay("cabin") != nil || c.Relay("home") != nil && len(c.Relay("home").Forwards) != 1 {
			t.Errorf("%s: it is there: %+v", name, c)
		}
	}
	if _, _, err := load(t, base+"\nconfig relay 'cabin'\n\toption enabled '2'\n"); err == nil {
		t.Error("enabled 2 is no mistake")
	}
}

// TestExportOwn: what is about one machine only is not exported.
func TestExportOwn(t *testing.T) {
	for options, want := range map[string]string{
		"option device 'wrap1'":                          "",
		"option mtu '1460'":                              "option mtu '1460'",
		"option mtu '1461'":                              "",
		"option mtu '9000'":                              "",
		"option ip4table '77'\n\toption priority '4700'": "",
		"option tunlink 'eth0'\n\toption ttl '33'":       "",
	} {
		text := "config relay 'home'\n\toption role 'router'\n\toption ipaddr '198.51.100.144'\n" +
			"\toption ip6addr '2001:db8:fdd2::1'\n\toption peeraddr '2001:db8:6ef9::1'\n\t" + options + "\n"
		here, _, err := Parse("F", []byte(text), Defaults{Role: Router})
		if err != nil {
			t.Fatal(err)
		}
		exported := Export(here, here.Relays[0], Known{Local: here.Relays[0].Local, Peer: here.Relays[0].Peer})
		for _, name := range []string{"device", "mtu", "ip4table", "priority", "tunlink", "ttl"} {
			if strings.Contains(exported, "option "+name+" ") && !strings.HasPrefix(want, "option "+name+" ") {
				t.Errorf("%s: %s is exported:\n%s", options, name, exported)
			}
		}
		if !strings.Contains(exported, want) {
			t.Errorf("%s: no %s in\n%s", options, want, exported)
		}
	}
}

// TestExportPorts: the other end reads the same ports from what is exported.
func TestExportPorts(t *testing.T) {
	for _, ports := range []string{
		"option proto 'tcp'\n\toption src_dport '443'",
		"option proto 'tcp udp'\n\toption src_dport '443'\n\toption dest_port '8443'",
		"option proto 'tcp'\n\toption src_dport '8000-8010'\n\toption dest_port '9000-9010'",
		"option proto 'tcpudp sctp'\n\toption src_dport '443 25 8000-8010'",
		"option proto 'icmp gre'",
	} {
		text := "config relay 'home'\n\toption role 'vps'\n\toption ipaddr '198.51.100.144'\n" +
			"\toption ip6addr '2001:db8:6ef9::1'\n\toption peeraddr '2001:db8:fdd2::1'\n\tlist keep 'tcp:22'\n\n" +
			"config forward 'web'\n\t" + ports + "\n\toption dest_ip '192.168.1.210'\n"
		here, _, err := Parse("F", []byte(text), Defaults{Role: VPS})
		if err != nil {
			t.Fatal(err)
		}
		exported := Export(here, here.Relays[0], Known{Local: here.Relays[0].Local, Peer: here.Relays[0].Peer})
		there, _, err := Parse("F", []byte(exported), Defaults{Role: VPS})
		if err != nil {
			t.Fatalf("%v\n%s", err, exported)
		}
		if got, want := there.Relays[0].Forwards[0].Mappings(),
			here.Relays[0].Forwards[0].Mappings(); !reflect.DeepEqual(got, want) {
			t.Errorf("%+v became %+v by\n%s", want, got, exported)
		}
	}
}
