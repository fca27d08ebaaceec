//go:build !openwrt

package debian

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/state"
	"github.com/ds4relay/ds4relay/internal/transport"
)

func testRelay() *config.Relay {
	addr := netip.MustParseAddr
	return &config.Relay{Name: "home", Enabled: true, Role: config.VPS, Device: "wrap1", IPAddr: addr("198.51.100.144"),
		Local: addr("2001:db8:6ef9:0:198:51:100:144"), Peer: addr("2001:db8:fdd2:0:198:51:100:144"),
		Forwards: []*config.Forward{{Section: "web", DestIP: addr("192.168.1.210")}}}
}

// blog is a relay's configuration as people write it by hand.
const blog = `auto eth0
iface eth0 inet static
    address 198.51.100.144/24
    gateway 198.51.100.1

auto wrap1
iface wrap1 inet manual
    pre-up ip -6 tunnel add wrap1 mode ipip6 remote 2001:db8:fdd2:0:198:51:100:144 local 2001:db8:6ef9:0:198:51:100:144
    up ip link set wrap1 up
    up ip route add 192.168.1.210/32 dev wrap1
    up iptables -t nat -A PREROUTING -d 198.51.100.144 -p tcp --dport 443 -j DNAT --to-destination 192.168.1.210:443
    up iptables -t nat -A POSTROUTING -s 192.168.1.210 -o eth0 -j SNAT --to-source 198.51.100.144
    post-down ip tunnel del wrap1
`

// keyedRelay is a relay with transport wireguard, which listens.
func keyedRelay() *config.Relay {
	r := testRelay()
	r.Transport, r.Local, r.Peer = config.WireGuard, netip.Addr{}, netip.Addr{}
	r.WireGuard = config.WireGuardOptions{PublicKey: transport.Key{7}, Port: 51846}
	return r
}

// wgQuick is the same with wg-quick(8), and roadWarriors what is not about it.
const wgQuick = `[Interface]
PrivateKey = 6Ls2cVIX1g6VpQ1dPLDSy3CgE8Ihl3/cJhDxsVhgYFA=
Address = 10.66.66.1/24
PostUp = iptables -t nat -A PREROUTING -d 198.51.100.144 -p tcp --dport 443 -j DNAT --to-destination 192.168.1.210
ListenPort = 51820
[Peer]
PublicKey = BwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
AllowedIPs = 10.66.66.2/32, 192.168.7.0/24
`

const roadWarriors = `[Interface]
Address = 10.9.0.1/24
PostUp = iptables -t nat -A POSTROUTING -s 10.9.0.0/24 -j MASQUERADE
`

// TestByHand: lines to delete are named with file and line number, unrelated lines are not.
func TestByHand(t *testing.T) {
	for _, c := range []struct {
		name, interfaces, rules string
		want                    []string // LINE: beginning
	}{
		{"as blogs have it", blog, "", []string{
			"interfaces:8: makes the tunnel", "interfaces:9: is about the tunnel", "interfaces:10: is about the tunnel",
			"interfaces:11: translates addresses", "interfaces:12: translates addresses",
			"interfaces:13: is about the tunnel", "interfaces:7: iface wrap1 inet manual: in place of"}},
		{"by ip link", "iface eth0 inet dhcp\n up ip link add tun4 type ip6tnl mode any local " +
			"2001:db8:6ef9:0:198:51:100:144 remote 2001:db8:fdd2:0:198:51:100:144\n", "",
			[]string{"interfaces:2: makes the tunnel"}},
		{"ours, with an addition", "iface wrap1 inet manual\n ds4relay home\n post-up ip route add 192.0.2.0/24 " +
			"dev wrap1\n", "", nil},
		{"others", "iface wg0 inet manual\n pre-up ip link add wg0 type wireguard\n up iptables -t nat -A " +
			"POSTROUTING -s 10.0.0.0/8 -j MASQUERADE\n", "", nil},
		{"NAT of iptables-persistent", "", "*nat\n-A PREROUTING -d 198.51.100.144/32 -p udp -m udp --dport 53 -j " +
			"DNAT --to-destination 192.168.1.210\n-A PREROUTING -d 198.51.100.145/32 -j DNAT --to-destination " +
			"10.0.0.1\n", []string{"rules.v4:2: translates addresses"}},
		{"NAT of nftables", "", "table ip nat {\nchain pre {\nip daddr 198.51.100.144 tcp dport { 80, 443 } dnat to " +
			"192.168.1.210\n}\n}", []string{"rules.v4:3: translates addresses"}},
		{"wg-quick", "", "", []string{"wg0.conf:4: translates addresses", "wg0.conf:7: makes the tunnel"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := write(t, map[string]string{"etc/network/interfaces": c.interfaces, "etc/iptables/rules.v4": c.rules})
			relay := testRelay()
			if c.name == "wg-quick" {
				relay = keyedRelay()
				dir = write(t, map[string]string{"etc/wireguard/wg0.conf": wgQuick,
					"etc/wireguard/wg1.conf": roadWarriors})
			}
			n, err := Observe(dir)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, text := range ByHand([]*config.Relay{relay}, n.Stanzas, n.Scripts) {
				got = append(got, text.Error())
			}
			if len(got) != len(c.want) {
				t.Errorf("got\n%s", strings.Join(got, "\n"))
			}
			for i := range min(len(got), len(c.want)) {
				if !strings.HasPrefix(got[i][strings.LastIndex(strings.SplitN(got[i], ":", 2)[0], "/")+1:], c.want[i]) {
					t.Errorf("got %s\nwant %s", got[i], c.want[i])
				}
			}
		})
	}
}

// TestNeighbours: problems are reported with a remedy, and nothing is reported without a problem.
func TestNeighbours(t *testing.T) {
	input := state.DropChain{Family: "inet", Table: "filter", Name: "input", Hook: "input",
		Text: "table inet filter {\n tcp dport 22 accept\n}"}
	forward := state.DropChain{Family: "inet", Table: "filter", Name: "forward", Hook: "forward", Text: input.Text}
	told := forward
	told.Text = `iifname "wrap1" accept`
	for _, c := range []struct {
		name  string
		files map[string]string
		drop  []state.DropChain
		want  string // in the only note; "" for none
	}{
		{"nothing", nil, nil, ""},
		{"an interface of ours",
			map[string]string{"etc/network/interfaces": "iface wrap1 inet manual\n ds4relay home\n"}, nil, ""},
		{"a relay that is not there",
			map[string]string{"etc/network/interfaces": "iface wrap1 inet manual\n ds4relay hom\n"}, nil,
			"interfaces:1: iface wrap1: there is no relay hom that is enabled"},
		{"cloud-init", map[string]string{"etc/network/interfaces.d/50-cloud-init": "# This file is generated from " +
			"information provided by cloud-init\niface wrap1 inet manual\n ds4relay home\n",
			"etc/network/interfaces": "source interfaces.d/*\n"}, nil, "50-cloud-init:2: cloud-init writes this " +
			"file anew"},
		{"networkd", map[string]string{"run/systemd/netif/state": ""}, nil, "ManageForeignRoutingPolicyRules=no"},
		{"networkd that was told",
			map[string]string{"run/systemd/netif/state": "",
				"usr/lib/systemd/networkd.conf.d/ds4relay.conf": "[Network]\nManageForeignRoutingPolicyRules=no\n"},
			nil, ""},
		{"networkd that was told otherwise",
			map[string]string{"run/systemd/netif/state": "",
				"usr/lib/systemd/networkd.conf.d/ds4relay.conf": "[Network]\nManageForeignRoutingPolicyRules=no\n",
				"etc/systemd/networkd.conf.d/ds4relay.conf":     "[Network]\nManageForeignRoutingPolicyRules=yes\n"},
			nil, "ManageForeignRoutingPolicyRules=no"},
		{"NetworkManager", map[string]string{"run/NetworkManager/x": ""}, nil, "nmcli device set wrap1 managed no"},
		{"a firewall's input", nil, []state.DropChain{input}, "nft insert rule inet filter input ip6 saddr " +
			"2001:db8:fdd2:0:198:51:100:144 meta l4proto 4 accept"},
		{"a firewall's forward", nil, []state.DropChain{forward},
			`nft insert rule inet filter forward iifname "wrap1" accept; nft insert rule inet filter forward oifname ` +
				`"wrap1" ct status dnat accept`},
		{"a firewall that knows the tunnel", nil, []state.DropChain{told}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, err := Observe(write(t, c.files))
			if err != nil {
				t.Fatal(err)
			}
			n.Drop = c.drop
			for _, role := range []config.Role{config.VPS, config.Router} {
				relay := testRelay()
				if relay.Role = role; role == config.Router { // which answers through it, and forwards nothing into it
					c.want = strings.Replace(c.want, "ct status dnat", "ct state established,related", 1)
				}
				notes := n.Notes([]*config.Relay{relay})
				if c.want == "" && len(notes) > 0 || c.want != "" &&
					(len(notes) != 1 || !strings.Contains(notes[0].Error(), c.want)) {
					t.Errorf("%s: %q\nwant %q", role, notes, c.want)
				}
			}
		})
	}
}

// TestNeighboursAtHome: what comes out of the tunnel for the machine itself, and hosts' own connections.
func TestNeighboursAtHome(t *testing.T) {
	for _, transport := range []func() *config.Relay{testRelay, keyedRelay} {
		for _, c := range []struct {
			hook, text   string
			self, opens  bool
			want, absent string
		}{
			{"input", "", true, false, `nft insert rule inet filter input iifname "wrap1" accept`, "dport"},
			{"input", `iifname "wrap1" accept`, true, false, "", `iifname "wrap1"`},
			{"input", "", false, true, "", `iifname "wrap1"`},
			{"forward", "", false, true, `iifname "wrap1" accept; nft insert rule inet filter forward oifname "wrap1" ` +
				`accept`, " ct "},
			{"forward", "", true, false, `oifname "wrap1" ct state established,related accept`, "dnat"},
		} {
			relay := transport()
			relay.Role, relay.Device = config.Router, "wrap1"
			host := &config.Forward{Section: "nas", DestIP: netip.MustParseAddr("192.168.1.20")}
			if c.opens {
				host.Egress = config.All
			}
			relay.Forwards = []*config.Forward{host}
			n := Neighbours{Self: map[netip.Addr]bool{host.DestIP: c.self}, Drop: []state.DropChain{{Family: "inet",
				Table: "filter", Name: c.hook, Hook: c.hook, Text: c.text}}}
			said := ""
			for _, note := range n.Notes([]*config.Relay{relay}) {
				said += note.Error() + "\n"
			}
			if relay.Transport == config.IPIP6 { // which has an opening of its own
				c.absent = strings.Replace(c.absent, "dport", "udp", 1)
			}
			if !strings.Contains(said, c.want) || strings.Contains(said, c.absent) {
				t.Errorf("%v, %+v: %s", relay.Transport, c, said)
			}
		}
	}
}

// TestNeighboursWireGuard: what WireGuard needs of other firewalls is its port.
func TestNeighboursWireGuard(t *testing.T) {
	for _, c := range []struct{ family, rules, want string }{
		{"inet", "tcp dport 22 accept", "type: nft insert rule inet filter input meta l4proto 17 th dport 51846 " +
			"accept"},
		{"ip6", "tcp dport 22 accept", "type: nft insert rule ip6 filter input meta l4proto 17 th dport 51846 accept"},
		{"ip", "tcp dport 51846 accept", "type: nft insert rule ip filter input meta l4proto 17 th dport 51846 accept"},
		{"inet", "udp dport { 53, 51846 } accept", ""},
	} {
		n := Neighbours{Drop: []state.DropChain{{Family: c.family, Table: "filter", Name: "input", Hook: "input",
			Text: c.rules}}}
		notes := n.Notes([]*config.Relay{keyedRelay()})
		if c.want == "" && len(notes) > 0 || c.want != "" &&
			(len(notes) != 1 || !strings.HasSuffix(notes[0].Error(), c.want)) {
			t.Errorf("%s, %s: %q, want %q", c.family, c.rules, notes, c.want)
		}
	}
}
