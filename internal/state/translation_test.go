//go:build !openwrt

package state

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/config"
)

// TestTranslations: rules of others are named if they are about packets that a forward gets, or about the addresses of
// its clients, and no others.
func TestTranslations(t *testing.T) {
	file := func(relay, forwards string) []*config.Relay {
		c, _, err := config.Parse("F", []byte("config relay 'home'\n\toption ipaddr '198.51.100.144'\n\toption "+
			"ip6addr '2001:db8:6ef9::/64'\n\toption peeraddr '2001:db8:fdd2::/64'\n\toption device 'wrap1'\n"+
			relay+forwards), config.Defaults{Role: config.VPS})
		if err != nil {
			t.Fatal(err)
		}
		return c.Relays
	}
	const all = "\nconfig forward 'all'\n\toption proto 'all'\n\toption dest_ip '192.168.1.210'\n"
	const web = "\nconfig forward 'web'\n\toption proto 'tcp'\n\toption src_dport '8000-8090'\n\toption dest_ip " +
		"'192.168.1.210'\n"
	const some = web + "\tlist src_ip '203.0.113.0/24'\n"
	const keep = "\tlist keep 'tcp:8080'\n"
	for _, c := range []struct {
		rule            string // of iptables -t nat -S, or in a table of nft
		relay, forwards string
		want            string // part of the note; "": none
	}{
		{"-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80", "", web,
			`iptables, table nat, chain DOCKER: a rule is about packets of 198.51.100.144 (tcp:8080) that forward ` +
				`"web"`},
		{"-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80", "", all,
			`list keep 'tcp:8080'`},
		{"-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80", keep, all, ""},
		{"-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80", "", some,
			`forward "web"`},
		{"-A DOCKER ! -i docker0 -p udp -m udp --dport 8080 -j DNAT --to-destination 172.17.0.2:80", "", web, ""},
		{"-A DOCKER ! -i docker0 -p tcp -m tcp --dport 443 -j DNAT --to-destination 172.17.0.2:443", "", web, ""},
		{"-A DOCKER -d 198.51.100.144/32 -p tcp -m tcp --dport 8090:9000 -j REDIRECT --to-ports 81", "", web,
			"(tcp:8090)"},
		{"-A DOCKER -d 10.0.0.5/32 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80", "", web, ""},
		{"-A DOCKER -d 10.0.0.5/32 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80",
			"\toption nicaddr '10.0.0.5'\n", web, "packets of 198.51.100.144 (tcp:8080)"},
		{"-A DOCKER -d 127.0.0.1/32 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80", "", web, ""},
		{"-A PREROUTING -p tcp -m multiport --dports 80,8001 -j DNAT --to-destination 10.0.0.1", "", web, "(tcp:8001)"},
		{"-A PREROUTING -j DNAT --to-destination 10.0.0.1", "", web, "(tcp:8000-8090)"},
		{"-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER", "", all, ""},
		{"-A POSTROUTING -j MASQUERADE", "", all, "iptables, table nat, chain POSTROUTING: a rule would hide the " +
			"clients"},
		{"-A POSTROUTING -o wrap+ -j SNAT --to-source 198.51.100.144", "", all, "a rule would hide the clients"},
		{"-A POSTROUTING -d 192.168.1.0/24 -j MASQUERADE", "", all, "a rule would hide the clients"},
		{"-A POSTROUTING -d 10.0.0.0/8 -j MASQUERADE", "", all, ""},
		{"-A POSTROUTING -o eth0 -j MASQUERADE", "", all, ""},
		{"-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE", "", all, ""},
		{"-A POSTROUTING ! -o docker0 -j MASQUERADE", "", all, "a rule would hide the clients"},
		{"-A POSTROUTING -m mark --mark 0x1/0x1 -j MASQUERADE", "", all, ""},

		{"type nat hook prerouting priority dstnat; policy accept;\n\t\ttcp dport 8080 dnat to 172.17.0.2:80", "", web,
			`nft, table ip other, chain c: a rule is about packets of 198.51.100.144 (tcp:8080) that forward "web"`},
		{"type nat hook prerouting priority dstnat - 10; policy accept;\n\t\ttcp dport { 80, 8010-8020 } counter " +
			"packets 0 bytes 0 dnat to 172.17.0.2:80", "", web, "a rule gets packets of 198.51.100.144 " +
			"(tcp:8010-8020) before"},
		{"type nat hook prerouting priority -150; policy accept;\n\t\tip daddr 198.51.100.144 redirect to :81", "", web,
			"before forward"},
		{"type nat hook prerouting priority dstnat; policy accept;\n\t\tip daddr 198.51.100.145 tcp dport 8080 dnat " +
			"to 10.0.0.1", "", web, ""},
		{"type nat hook prerouting priority dstnat; policy accept;\n\t\tdnat to tcp dport map @services", "", web,
			"(tcp:8000-8090)"},
		{"meta l4proto tcp dnat to 10.0.0.1", "", web, "(tcp:8000-8090)"},
		{"type nat hook postrouting priority srcnat; policy accept;\n\t\tmasquerade", "", all, "a rule would hide " +
			"the clients"},
		{"type nat hook postrouting priority filter; policy accept;\n\t\tcounter packets 1 bytes 2 masquerade", "", all,
			"a rule hides the clients' addresses"},
		{"type nat hook postrouting priority srcnat; policy accept;\n\t\toifname \"eth0\" masquerade", "", all, ""},
		{"type nat hook postrouting priority srcnat; policy accept;\n\t\toifname != { \"lo\", \"wrap*\" } " +
			"masquerade", "", all, ""},
		{"type nat hook postrouting priority srcnat; policy accept;\n\t\tip saddr 10.0.0.0/8 masquerade", "", all, ""},
	} {
		found := IPTablesTranslations("iptables", c.rule)
		if !strings.HasPrefix(c.rule, "-A") {
			found = NftTranslations("ip", "other", "table ip other {\n\tchain c {\n\t\t"+c.rule+"\n\t}\n}\n")
		}
		said := ""
		for _, translation := range found {
			if note := translation.Note(file(c.relay, c.forwards)); note != nil {
				said += note.Error()
			}
		}
		if !strings.Contains(said, c.want) || (said == "") != (c.want == "") {
			t.Errorf("%s\nsaid %s\nwant %s", c.rule, said, c.want)
		}
	}
	if found := IPTablesTranslations("iptables", "-P PREROUTING ACCEPT\n-N DOCKER\n"); found != nil {
		t.Errorf("no rule: %v", found)
	}
	if p := network4("0.0.0.0/0"); p.IsValid() || network4("10.0.0.1") != netip.MustParsePrefix("10.0.0.1/32") {
		t.Error(p)
	}
}
