package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

// proxied is a correct file with one proxy.
const proxied = `config proxy 'https6'
	option enabled '1'
	option proto 'tcp'
	list listen '0.0.0.0:443'
	list listen '[::]:443'
	option target '[2001:db8:fdd2::210]:443'
	option proxy_protocol '2'
	list src_ip '203.0.113.0/24'
	list src_ip '2001:db8:1::7'
	option max_sessions '100'
	option max_per_client '10'
	option connect_timeout '5'
	option idle_timeout '600'
	option keepalive '30'
	option access_log '1'
`

func TestProxy(t *testing.T) {
	c, warnings, err := load(t, proxied)
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	want := &Proxy{Section: "https6", Line: 1, Proto: TCP,
		Listen: []Listen{{netip.IPv4Unspecified(), 443, 443}, {netip.IPv6Unspecified(), 443, 443}},
		Target: Target{Addr: netip.MustParseAddr("2001:db8:fdd2::210"), Port: 443}, ProxyProtocol: 2,
		Clients: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"),
			netip.MustParsePrefix("2001:db8:1::7/128")},
		MaxSessions: 100, MaxPerClient: 10, ConnectTimeout: 5 * time.Second, IdleTimeout: 10 * time.Minute,
		Keepalive: 30 * time.Second, AccessLog: true}
	if len(c.Proxies) != 1 || !reflect.DeepEqual(c.Proxies[0], want) {
		t.Errorf("got  %+v\nwant %+v", c.Proxies[0], want)
	}
	if got := c.Proxies[0].String(); got != "tcp 0.0.0.0:443, [::]:443 → [2001:db8:fdd2::210]:443" {
		t.Error(got)
	}
}

func TestProxyForms(t *testing.T) {
	port := func(n uint16) func(*Proxy) any {
		return func(p *Proxy) any { return p.Target.PortFor(p.Listen[0], n) }
	}
	const simple = "config proxy\n\toption listen 'LISTEN'\n\toption target 'TARGET'\n\toption proto 'PROTO'\n"
	for _, c := range []struct {
		name, listen, target, proto string
		get                         func(*Proxy) any
		want                        any
	}{
		{"idle of tcp", "127.0.0.1:1", "192.0.2.1:2", "tcp", func(p *Proxy) any { return p.IdleTimeout },
			24 * time.Hour},
		{"sessions of one client", "127.0.0.1:1", "192.0.2.1:2", "udp", func(p *Proxy) any {
			return p.MaxPerClient
		}, 256},
		{"no limits", "127.0.0.1:1", "192.0.2.1:2'\n\toption max_per_client '0'\n\toption idle_timeout '0", "tcp",
			func(p *Proxy) any { return [2]int{p.MaxPerClient, int(p.IdleTimeout)} }, [2]int{}},
		{"another machine's name", "127.0.0.1:1", "home.example.net:2", "tcp", func(p *Proxy) any {
			return p.TargetLocal
		}, false},
		{"this machine's name", "127.0.0.1:1", "home.example.net:2'\n\toption target_local '1", "tcp",
			func(p *Proxy) any { return p.TargetLocal }, true},
		{"idle of udp", "127.0.0.1:1", "192.0.2.1:2", "udp", func(p *Proxy) any { return p.IdleTimeout },
			3 * time.Minute},
		{"one port for all", "127.0.0.1:8000-8010", "192.0.2.1:80", "tcp", port(8003), uint16(80)},
		{"one to one", "127.0.0.1:8000-8010", "192.0.2.1:9000-9010", "tcp", port(8003), uint16(9003)},
		{"the client's port", "127.0.0.1:8000-8010", "2001:db8::1", "tcp", port(8003), uint16(8003)},
		{"a name", "127.0.0.1:8000", "home.example.net:80", "tcp", func(p *Proxy) any { return p.Target },
			Target{Name: "home.example.net", Port: 80}},
		{"a name without port", "127.0.0.1:8000", "home.example.net", "tcp", func(p *Proxy) any { return p.String() },
			"tcp 127.0.0.1:8000 → home.example.net"},
		{"several addresses in one option", "127.0.0.1:1 [::1]:1", "192.0.2.1:2", "tcp", func(p *Proxy) any {
			return len(p.Listen)
		}, 2},
		{"a link-local address", "[fe80::1%eth0]:1", "fe80::2%eth0", "tcp", func(p *Proxy) any {
			return p.Listen[0].Addr.Zone()
		}, "eth0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, _, err := load(t, strings.NewReplacer("LISTEN", c.listen, "TARGET", c.target, "PROTO",
				c.proto).Replace(simple))
			if err != nil {
				t.Fatal(err)
			}
			if got := c.get(config.Proxies[0]); !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %#v, want %#v", got, c.want)
			}
		})
	}
	c, _, err := load(t, strings.Replace(proxied, "enabled '1'", "enabled '0'", 1))
	if err != nil || len(c.Proxies) != 0 {
		t.Errorf("a disabled proxy: %v %v", err, c)
	}
}

// relayed is proxied, on a VPS with a relay.
const relayed = proxied + `
config relay 'home'
	option role 'vps'
	option ipaddr '198.51.100.144'
	option ip6addr '2001:db8:6ef9::/64'
	option peeraddr '2001:db8:fdd2::/64'

config forward 'web'
	option proto 'tcp'
	option src_dport '8080'
	option dest_ip '192.168.1.210'
`

func TestProxyMistakes(t *testing.T) {
	const listenWords = "allowed is an address of this machine with a port or a range, such as 0.0.0.0:443, [::]:443 " +
		"or 198.51.100.144:8000-8010"
	const targetWords = "allowed is an address or a DNS name, with a port, a range or none (the port that the client " +
		"came to), such as [2001:db8::1]:443 or home.example.net:443"
	const clientWords = "allowed is an address such as 203.0.113.7, or a network such as 203.0.113.0/24 or " +
		"2001:db8::/32"
	const secondWords = "allowed is a number of seconds from 1 to 2592000"
	for _, m := range []struct{ old, new, want string }{
		{"enabled '1'", "enabled 'ja'", `F:2: proxy "https6": option enabled "ja": allowed is 1 or 0 (also yes/no, ` +
			`on/off, true/false)`},
		{"'tcp'", "'sctp'", `F:3: proxy "https6": option proto "sctp": allowed is tcp or udp`},
		{"\tlist listen '0.0.0.0:443'\n\tlist listen '[::]:443'\n", "", `F:1: proxy "https6": option listen is ` +
			`missing; it takes ` + strings.TrimPrefix(listenWords, "allowed is ")},
		{"'0.0.0.0:443'", "'443'", `F:4: proxy "https6": option listen "443": ` + listenWords},
		{"'0.0.0.0:443'", "'0.0.0.0:0'", `F:4: proxy "https6": option listen "0.0.0.0:0": ` + listenWords},
		{"'0.0.0.0:443'", "'0.0.0.0:443-440'", `F:4: proxy "https6": option listen "0.0.0.0:443-440": ` + listenWords},
		{"'0.0.0.0:443'", "'::1:443'", `F:4: proxy "https6": option listen "::1:443": ` + listenWords},
		{"'0.0.0.0:443'", "'[127.0.0.1]:443'", `F:4: proxy "https6": option listen "[127.0.0.1]:443": ` + listenWords},
		{"'0.0.0.0:443'", "'239.1.1.1:443'", `F:4: proxy "https6": option listen "239.1.1.1:443": ` + listenWords},
		{"'0.0.0.0:443'", "'vps.example.net:443'", `F:4: proxy "https6": option listen "vps.example.net:443": ` +
			listenWords},
		{"'0.0.0.0:443'", "'[::7]:440-450'", `F:4: proxy "https6": option listen "[::]:443": overlaps with ` +
			`[::7]:440-450 of the same proxy; remove one of the two`},
		{"\toption target '[2001:db8:fdd2::210]:443'\n", "", `F:1: proxy "https6": option target is missing; ` +
			`it takes ` + strings.TrimPrefix(targetWords, "allowed is ")},
		{"[2001:db8:fdd2::210]:443", "2001:db8:fdd2::zz", `F:6: proxy "https6": option target "2001:db8:fdd2::zz": ` +
			targetWords},
		{"[2001:db8:fdd2::210]:443", "home", `F:6: proxy "https6": option target "home": ` + targetWords},
		{"[2001:db8:fdd2::210]:443", "0.0.0.0:443", `F:6: proxy "https6": option target "0.0.0.0:443": ` + targetWords},
		{"[2001:db8:fdd2::210]:443", "[ff02::1]:443", `F:6: proxy "https6": option target "[ff02::1]:443": ` +
			targetWords},
		{"[2001:db8:fdd2::210]:443", "[home.example.net]:443", `F:6: proxy "https6": option target ` +
			`"[home.example.net]:443": ` + targetWords},
		{"[2001:db8:fdd2::210]:443", "[2001:db8:fdd2::210]:443-444", `F:6: proxy "https6": option target ` +
			`"[2001:db8:fdd2::210]:443-444": has 2 ports, listen 0.0.0.0:443 has 1; allowed is as many (mapped one ` +
			`to one), one port for all, or none (the port that the client came to)`},
		{"'0.0.0.0:443'\n\tlist listen '[::]:443'\n\toption target '[2001:db8:fdd2::210]:443'",
			"'127.0.0.1:443'\n\toption target '127.0.0.1'", `F:5: proxy "https6": option target "127.0.0.1": is what ` +
				`it listens on itself (127.0.0.1:443); allowed is another address or port`},
		{"proxy_protocol '2'", "proxy_protocol '3'", `F:7: proxy "https6": option proxy_protocol "3": allowed is ` +
			`0, 1 or 2`},
		{"203.0.113.0/24", "203.0.113.1/24", `F:8: proxy "https6": option src_ip "203.0.113.1/24": ` + clientWords},
		{"2001:db8:1::7", "office", `F:9: proxy "https6": option src_ip "office": ` + clientWords},
		{"'100'", "'0'", `F:10: proxy "https6": option max_sessions "0": allowed is a number from 1 to 1000000`},
		{"'10'", "'-1'", `F:11: proxy "https6": option max_per_client "-1": allowed is a number from 1 to 1000000, ` +
			`or 0 for no limit`},
		{"'5'", "'0'", `F:12: proxy "https6": option connect_timeout "0": ` + secondWords},
		{"'600'", "'10m'", `F:13: proxy "https6": option idle_timeout "10m": ` + secondWords + ", or 0 for none"},
		{"'30'", "'4000000'", `F:14: proxy "https6": option keepalive "4000000": ` + secondWords + ", or 0 for none"},
		{"access_log '1'", "access_log 'file'", `F:15: proxy "https6": option access_log "file": allowed is 1 or 0 ` +
			`(also yes/no, on/off, true/false)`},
		{"tcp'\n", "udp'\n", "F:12: proxy \"https6\": option connect_timeout \"5\": is for tcp; udp has no " +
			"connections\nF:14: proxy \"https6\": option keepalive \"30\": is for tcp; udp has no connections"},
		{proxied, "config proxy\n\toption proto 'udp'\n\toption listen '0.0.0.0:53'\n\toption target " +
			"'192.0.2.1'\n\toption idle_timeout '0'\n\toption proxy_protocol '1'\n",
			"F:5: proxy \"proxy[0]\": option idle_timeout \"0\": udp sessions end only by it; allowed is a number of " +
				"seconds from 1 to 2592000\nF:6: proxy \"proxy[0]\": option proxy_protocol \"1\": version 1 knows " +
				"only tcp; allowed with udp is 0 or 2"},
		{"config relay 'home'", "config proxy 'two'\n\toption listen '192.0.2.1:400-500'\n\toption target " +
			"'192.0.2.9'\n\nconfig relay 'home'",
			`F:18: proxy "two": option listen "192.0.2.1:400-500": overlaps with proxy "https6" (tcp 0.0.0.0:443); a ` +
				`socket can belong to one proxy only`},
		{"'8080'", "'440-450'", `F:4: proxy "https6": option listen "0.0.0.0:443": overlaps with forward "web" of ` +
			`relay "home" (tcp:440-450 → 192.168.1.210); a port of 198.51.100.144 can go one way only`},
		{"'tcp'\n\toption src_dport '8080'", "'all'", `F:4: proxy "https6": option listen "0.0.0.0:443": forward ` +
			`"web" of relay "home" hands all of 198.51.100.144 to the home; keep the port for the proxy (in the ` +
			`relay section): list keep 'tcp:443'`},
	} {
		t.Run(caseName(m.want), func(t *testing.T) {
			if !strings.Contains(relayed, m.old) {
				t.Fatalf("relayed has no %q", m.old)
			}
			_, _, err := load(t, strings.Replace(relayed, m.old, m.new, 1))
			if err == nil || err.Error() != m.want {
				t.Errorf("got\n%v\nwant\n%s", err, m.want)
			}
		})
	}
}

// TestProxyBesideRelay: forwards that do not take the proxy's packets are allowed.
func TestProxyBesideRelay(t *testing.T) {
	for name, text := range map[string]string{
		"another port": relayed,
		"another protocol": strings.Replace(relayed, "'tcp'\n\toption src_dport '8080'",
			"'udp'\n\toption src_dport '443'", 1),
		"another address": strings.Replace(strings.Replace(relayed, "0.0.0.0:443", "192.0.2.1:443", 1), "'8080'",
			"'443'", 1),
		"for some clients": strings.Replace(relayed, "'8080'", "'443'\n\toption src_ip '203.0.113.7'", 1),
		"a port that is kept": strings.Replace(strings.Replace(relayed, "'tcp'\n\toption src_dport '8080'", "'all'", 1),
			"option role 'vps'", "option role 'vps'\n\tlist keep 'tcp:440-450'", 1),
		"a port of a range that is kept": strings.Replace(strings.Replace(relayed, "'8080'", "'400-500'", 1),
			"option role 'vps'", "option role 'vps'\n\tlist keep 'tcp:443'", 1),
		"a router": strings.NewReplacer("'8080'", "'443'", "role 'vps'", "role 'router'").Replace(relayed),
	} {
		if _, _, err := load(t, text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestProxyLoop: target addresses that lead back, directly or through other proxies, are a mistake; those that only
// look like it are not.
func TestProxyLoop(t *testing.T) {
	type way struct{ proto, listen, target string }
	const direct = `F:4: proxy "p0": option target "%s": is what it listens on itself (%s); allowed is another ` +
		`address or port`
	const round = `F:4: proxy "p0": option target "%s": leads back to what it listens on (%s) by way of proxy %s; ` +
		`allowed is another address or port`
	for _, c := range []struct {
		name string
		ways []way
		want string // the first mistake; none where it is empty
	}{
		{"itself", []way{{"tcp", "192.0.2.1:1", "192.0.2.1:1"}}, fmt.Sprintf(direct, "192.0.2.1:1", "192.0.2.1:1")},
		{"a wildcard's loopback", []way{{"tcp", "0.0.0.0:1", "127.0.0.9:1"}},
			fmt.Sprintf(direct, "127.0.0.9:1", "0.0.0.0:1")},
		{"a wildcard's loopback of IPv6", []way{{"udp", "[::]:1-9", "[::1]:5"}},
			fmt.Sprintf(direct, "[::1]:5", "[::]:1-9")},
		{"two proxies", []way{{"tcp", "192.0.2.1:1", "192.0.2.2:2"}, {"tcp", "192.0.2.2:2", "192.0.2.1:1"}},
			fmt.Sprintf(round, "192.0.2.2:2", "192.0.2.1:1", `"p1"`)},
		{"three with ranges and a wildcard",
			[]way{{"udp", "127.0.0.1:10-19", "127.0.0.2:20-29"}, {"udp", "127.0.0.2:25", "[::1]:7"},
				{"udp", "[::]:7", "127.0.0.1:15"}},
			fmt.Sprintf(round, "127.0.0.2:20", "127.0.0.1:10-19", `"p1", "p2"`)},
		{"a way through", []way{{"tcp", "192.0.2.1:1", "192.0.2.2:2"}, {"tcp", "192.0.2.2:2", "192.0.2.3:1"}}, ""},
		{"a way out of a range",
			[]way{{"tcp", "127.0.0.1:10-19", "127.0.0.2:20-29"}, {"tcp", "127.0.0.2:20-29", "127.0.0.1:9-18"}}, ""},
		{"another protocol", []way{{"tcp", "127.0.0.1:1", "127.0.0.2:2"}, {"udp", "127.0.0.2:2", "127.0.0.1:1"}}, ""},
		{"another port of a wildcard", []way{{"tcp", "0.0.0.0:1", "127.0.0.1:2"}}, ""},
		{"another family", []way{{"tcp", "0.0.0.0:1", "[::1]:1"}}, ""},
		{"an address that may be another machine's", []way{{"tcp", "0.0.0.0:1", "192.0.2.1:1"}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var text strings.Builder
			for i, w := range c.ways {
				fmt.Fprintf(&text, "config proxy 'p%d'\n\toption proto '%s'\n\toption listen '%s'\n\toption "+
					"target '%s'\n", i, w.proto, w.listen, w.target)
			}
			_, _, err := load(t, text.String())
			got := ""
			if err != nil {
				got, _, _ = strings.Cut(err.Error(), "\n")
			}
			if got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

// TestProxyLoopBounded: many proxies that are nearly loops do not make the search longer.
func TestProxyLoopBounded(t *testing.T) {
	var text strings.Builder
	for i := range 500 {
		fmt.Fprintf(&text, "config proxy\n\toption listen '127.0.%d.%d:1-65535'\n\toption target '127.0.%d.%d'\n",
			i/250, i%250+1, (i+1)/250, (i+1)%250+1)
	}
	c, _, err := load(t, text.String())
	if err != nil {
		t.Fatal(err)
	}
	search := loops{c.Proxies, loopSteps}
	for _, p := range c.Proxies {
		if way := search.from(p, p.Listen[0]); way != nil {
			t.Errorf("%s: %v", p, way)
		}
	}
	if search.steps > 0 {
		t.Errorf("%d steps are left; the case is too small", search.steps)
	}
}
