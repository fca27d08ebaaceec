package pushed

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/config"
)

const vps = `
config relay 'home'
	option role 'vps'
	option ipaddr '198.51.100.144'
	option ip6addr '2001:db8:6ef9::/64'
	list keep 'tcp:22'
	list keep 'udp:60000-61000'
	list allow 'tcp:1-65535'
	list allow 'udp:53'
	list allow 'udp:60000-61000'

config forward 'own'
	option relay 'home'
	option proto 'tcp'
	option src_dport '8080'
	option dest_ip '192.168.1.9'

config relay 'free'
	option role 'vps'
	option ipaddr '198.51.100.145'
	option ip6addr '2001:db8:6ef9::/64'
	list keep 'tcp:22'
	list allow 'all'
	list allow 'egress'

config relay 'cabin'
	option role 'vps'
	option ipaddr '198.51.100.144'
	option ip6addr '2001:db8:6ef9::/64'
	option peeraddr '2001:db8:ca::/64'
	list allow 'tcp:1-65535'

config forward 'secret'
	option relay 'cabin'
	option proto 'tcp'
	option src_dport '9000-9010'
	option dest_ip '192.168.77.7'

config relay 'plain'
	option role 'vps'
	option ipaddr '198.51.100.146'
	option ip6addr '2001:db8:6ef9::/64'
	option peeraddr '2001:db8:bb::/64'

config relay 'off'
	option enabled '0'
	option role 'vps'
	option ipaddr '198.51.100.147'
	option ip6addr '2001:db8:6ef9::/64'
	list allow 'tcp:1-65535'
`

var facts = Facts{
	Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("172.17.0.0/16")},
	Listeners: []Listener{
		{netip.IPv6Unspecified(), port(config.TCP, 22)},
		{netip.IPv4Unspecified(), port(config.TCP, 25)},
		{netip.MustParseAddr("198.51.100.144"), port(config.TCP, 5432)},
		{netip.MustParseAddr("198.51.100.145"), port(config.TCP, 3306)},
		{netip.MustParseAddr("203.0.113.1"), port(config.TCP, 6379)}, // an address that no relay has
		{netip.IPv4Unspecified(), port(config.UDP, 53)},
	},
	Session: "2001:db8:fd::1 40000 2001:db8:6ef9::1 2222",
}

func port(proto uint8, number uint16) config.PortSet {
	return config.PortSet{Proto: proto, First: number, Last: number}
}

func defaults() config.Defaults {
	return config.Defaults{Role: config.VPS, Homes: map[string]*config.Home{
		"home": {Peer: netip.MustParseAddr("2001:db8:fd::1"), Enrolled: 1, File: "/relays/home"},
		"free": {Peer: netip.MustParseAddr("2001:db8:fe::1"), Enrolled: 1, File: "/relays/free"},
	}}
}

// forward is a push of one forward with these options, on lines.
func forward(options ...string) string {
	text := config.PushHeader + "config home\n\toption version '1.2.3'\nconfig forward 'web'\n"
	for _, option := range options {
		text += "\t" + option + "\n"
	}
	return text
}

func check(relay, push string) []Problem {
	return checkWith(vps, defaults(), relay, push, netip.Addr{}, facts)
}

// checkWith is Check, for a file of that text.
func checkWith(text string, d config.Defaults, relay, push string, from netip.Addr, facts Facts) []Problem {
	return Check(parsed(text, d), []byte(text), d, relay, []byte(push), from, facts)
}

// parsed is a file that has no mistake.
func parsed(text string, d config.Defaults) *config.Config {
	c, _, err := config.Parse("/etc/config/ds4relay", []byte(text), d)
	if err != nil {
		panic(err)
	}
	return c
}

// after is the relay when its push is taken.
func after(relay, push string) *config.Relay {
	d := defaults()
	d.Homes[relay].Push = []byte(push)
	return parsed(vps, d).Relay(relay)
}

const good = "option dest_ip '192.168.1.210'"

func TestPushIsTaken(t *testing.T) {
	for name, test := range map[string]struct{ relay, push string }{
		"one port": {"home", forward(good, "list proto 'tcp'", "option src_dport '443'")},
		"all options": {"home", forward(good, "option name 'Web'", "option enabled '1'", "option relay 'home'",
			"option proto 'tcp'", "option src_dport '80 443 8000-8010'", "list src_ip '203.0.113.0/24'",
			"option egress 'replies'")},
		"dest_port": {"home",
			forward(good, "option proto 'tcp'", "option src_dport '444'", "option dest_port '443'")},
		"no forward": {"home", config.PushHeader},
		"without header of the home": {"home",
			config.PushHeader + "config forward 'a'\n" + good + "\noption proto tcp\noption src_dport 1"},
		"all": {"free",
			forward(good, "option proto 'all'", "option egress 'all'")}, // see TestAllNeedsKeep
		"another protocol": {"free", forward(good, "option proto 'gre'")},
		"a listener that only another address has": {"home", forward(good, "option proto 'tcp'",
			"option src_dport '3306 6379'")},
		"a range with a port of keep": {"home", forward(good, "option proto 'tcp'", "option src_dport '20-24'")},
	} {
		t.Run(name, func(t *testing.T) {
			relevant := facts
			if name == "all" {
				relevant.Listeners, relevant.Session = facts.Listeners[:1], "" // kept
			}
			if problems := checkWith(vps, defaults(), test.relay, test.push, netip.Addr{}, relevant); len(problems) > 0 {
				t.Fatalf("refused: %v", problems)
			}
			pushed := 0
			for _, f := range after(test.relay, test.push).Forwards {
				if f.Pushed != "" {
					pushed++
				}
			}
			if want := strings.Count(test.push, "config forward"); pushed != want {
				t.Errorf("%d forwards are taken, want %d", pushed, want)
			}
		})
	}
}

func TestPushIsRefused(t *testing.T) {
	tcp := []string{"option proto 'tcp'", "option src_dport '443'"}
	with := func(options ...string) string { return forward(append(options, tcp...)...) }
	ports := func(list string) string { return forward(good, "option proto 'tcp'", "option src_dport '"+list+"'") }
	many := config.PushHeader
	for i := range 10000 {
		many += fmt.Sprintf("config forward 'f%d'\n", i)
	}
	several := config.PushHeader
	for i := range config.MaxPushForwards + 1 {
		several += fmt.Sprintf("config forward f%d\noption proto tcp\noption src_dport %d\noption dest_ip 10.9.9.9\n", i,
			i+10000)
	}
	if len(several) > config.MaxPush {
		t.Fatal("the test of 501 forwards is for another limit")
	}
	for name, test := range map[string]struct{ relay, push, option, says string }{
		"a public host":          {"home", with("option dest_ip '1.1.1.1'"), "dest_ip", "no private address"},
		"a shared address":       {"home", with("option dest_ip '100.64.0.1'"), "dest_ip", "no private address"},
		"a link-local address":   {"home", with("option dest_ip '169.254.169.254'"), "dest_ip", "no private address"},
		"loopback":               {"home", with("option dest_ip '127.0.0.1'"), "dest_ip", "allowed is"},
		"the VPS's network":      {"home", with("option dest_ip '10.0.0.5'"), "dest_ip", "VPS's own network 10.0.0.0/24"},
		"a container of the VPS": {"home", with("option dest_ip '172.17.0.2'"), "dest_ip", "own network"},
		"the public address":     {"home", with("option dest_ip '198.51.100.144'"), "dest_ip", "no private address"},
		"all":                    {"home", forward(good, "option proto 'all'"), "proto", "does not allow"},
		"egress":                 {"home", with(good, "option egress 'all'"), "egress", "does not allow"},
		"masq":                   {"home", with(good, "option masq '1'"), "masq", "not for a home to say"},
		"a kill switch":          {"home", with(good, "option killswitch '1'"), "killswitch", "not for a home"},
		"an unknown option":      {"home", with(good, "option foo '1'"), "foo", "not for a home"},
		"another relay":          {"home", with(good, "option relay 'cabin'"), "relay", "is another relay"},
		"a protocol not allowed": {"home", forward(good, "option proto 'gre'"), "proto", "does not allow"},
		"udp not allowed": {"home",
			forward(good, "option proto 'udp'", "option src_dport '443'"), "src_dport", "does not allow"},
		"a range partly allowed": {"home",
			forward(good, "option proto 'udp'", "option src_dport '53-54'"), "src_dport", "does not allow"},
		"ssh, which is kept": {"home", ports("22"), "src_dport", "kept for the VPS"},
		"a range that is kept": {"home",
			forward(good, "option proto 'udp'", "option src_dport '60001'"), "src_dport", "kept for the VPS"},
		"a listener":                {"home", ports("25"), "src_dport", "listens on tcp:25"},
		"a listener in a range":     {"home", ports("24-30"), "src_dport", "listens on tcp:25"},
		"a listener of one address": {"home", ports("5432"), "src_dport", "listens on tcp:5432"},
		"a listener with udp": {"home",
			forward(good, "option proto 'udp'", "option src_dport '53'"), "src_dport", "listens on udp:53"},
		"a port in the own file": {"home", ports("8080"), "src_dport", "overlaps with"},
		"another home's port":    {"home", ports("9005"), "src_dport", "another home of the VPS"},
		"all with a listener":    {"free", forward(good, "option proto 'all'"), "proto", "listens on tcp:25"},
		"a bad port":             {"home", ports("0"), "src_dport", "allowed is a port"},
		"a bad name":             {"home", with(good, "option name '"+strings.Repeat("x", 100)+"'"), "name", "allowed is"},
		"no host":                {"home", with(), "", "dest_ip is missing"},
		"a forward of that name": {"home", config.PushHeader + "config forward 'own'\n", "", "forward of that name"},
		"a forward without name": {"home", config.PushHeader + "config forward\n", "", "not for a home"},
		"a relay": {"home",
			config.PushHeader + "config relay 'home'\noption allow all\n", "", "not for a home"},
		"a proxy":               {"home", config.PushHeader + "config proxy 'x'\n", "", "not for a home"},
		"10,000 forwards":       {"home", many, "", "reads at most"},
		"501 forwards":          {"home", several, "", "more than 500 forwards"},
		"a megabyte":            {"home", config.PushHeader + strings.Repeat("#", 1<<20), "", "reads at most"},
		"nothing":               {"home", "", "", "of no version"},
		"a later version":       {"home", "ds4relay-push 2\n", "", "of no version"},
		"no UCI":                {"home", config.PushHeader + "config forward 'a\n", "", "is no UCI"},
		"zero bytes":            {"home", config.PushHeader + "config forward 'a\x00b'\n", "", ""},
		"binary":                {"home", "\x7fELF\x00\xff\xfe", "", "of no version"},
		"a shell":               {"home", "sh -i", "", "of no version"},
		"no such relay":         {"nobody", config.PushHeader, "", "no relay"},
		"a relay without allow": {"plain", config.PushHeader, "", "no relay"},
		"a disabled relay":      {"off", config.PushHeader, "", "disabled"},
	} {
		t.Run(name, func(t *testing.T) {
			problems := check(test.relay, test.push)
			if len(problems) == 0 {
				t.Fatal("is taken")
			}
			p := problems[0]
			text := config.Problem{Code: p.Code, Args: p.Args}
			if said := text.AsText().Error(); p.Option != test.option || !strings.Contains(said, test.says) {
				t.Errorf("option %q: %s; want option %q: …%s…", p.Option, said, test.option, test.says)
			}
			if answer := NewAnswer(problems...).JSON(); len(answer) > MaxAnswer || bytes.Contains(answer,
				[]byte("192.168.77.7")) || bytes.Contains(answer, []byte("secret")) || bytes.Contains(answer, []byte("cabin")) !=
				(test.option == "relay") {
				t.Errorf("the answer has what is another home's, or is too long: %s", answer)
			}
		})
	}
}

// The port of the session that a push came by is not to be lost, whatever address it was to.
func TestPortOfTheSession(t *testing.T) {
	with := facts
	with.Session = "203.0.113.9 40000 ::ffff:198.51.100.144 2222"
	problems := checkWith(vps, defaults(), "home", forward(good, "option proto 'tcp'", "option src_dport '2222'"),
		netip.Addr{}, with)
	if len(problems) != 1 || problems[0].Option != "src_dport" {
		t.Errorf("the port of the session: %v", problems)
	}
}

// A listener bars the ports that its clients come by: of the relay's address, and of the one on the card where a cloud
// translates that. list keep of the address lets it be, of relays that are enabled.
func TestListenersOfTheVPS(t *testing.T) {
	const card = "10.0.0.5"
	translated := facts
	translated.Cards = map[netip.Addr]netip.Addr{netip.MustParseAddr("198.51.100.144"): netip.MustParseAddr(card)}
	more := func(ipaddr, enabled string) string {
		return vps + "config relay 'more'\n\toption role 'vps'\n\toption ipaddr '" + ipaddr + "'\n\toption enabled '" + enabled +
			"'\n\toption ip6addr '2001:db8:6ef9::/64'\n\toption peeraddr '2001:db8:cc::/64'\n\tlist keep 'tcp:25'\n"
	}
	for _, test := range []struct {
		name, text, at, session string
		facts                   Facts
		taken                   bool
	}{
		{"of the card", vps, card, "", translated, false},
		{"of another private address", vps, "10.0.0.6", "", translated, true},
		{"of an address that is not the card's", vps, card, "", facts, true},
		{"a session to the card", vps, "127.0.0.1", "203.0.113.9 4000 " + card + " 25", translated, false},
		{"a session to another address", vps, "127.0.0.1", "203.0.113.9 4000 203.0.113.1 25", translated, true},
		{"a session that is not known", vps, "127.0.0.1", "203.0.113.9 4000 " + card, translated, true},
		{"kept by a relay of the address", more("198.51.100.144", "1"), "0.0.0.0", "", facts, true},
		{"kept by one that is disabled", more("198.51.100.144", "0"), "0.0.0.0", "", facts, false},
		{"kept by one of another address", more("198.51.100.148", "1"), "0.0.0.0", "", facts, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.facts.Listeners = []Listener{{netip.MustParseAddr(test.at), port(config.TCP, 25)}}
			test.facts.Session = test.session
			problems := checkWith(test.text, defaults(), "home", forward(good, "option proto 'tcp'", "option src_dport '24-26'"),
				netip.Addr{}, test.facts)
			if (len(problems) == 0) != test.taken {
				t.Errorf("taken is not %v: %v", test.taken, problems)
			}
		})
	}
}

// A home that says what it has said before is followed to another address, whatever listens at the VPS since; what is
// new is judged.
func TestAddressIsFollowed(t *testing.T) {
	d := defaults()
	d.Homes["home"].Push = []byte(forward(good, "option proto 'tcp'", "option src_dport '25'"))
	fresh := netip.MustParseAddr("2001:db8:fd::77")
	for push, taken := range map[string]bool{
		forward(good, "option proto 'tcp'", "option src_dport '25'"):                               true,
		strings.Replace(string(d.Homes["home"].Push), "1.2.3", "1.2.4", 1):                         true,
		forward("option dest_ip '192.168.1.211'", "option proto 'tcp'", "option src_dport '25'"):   false,
		forward(good, "option proto 'tcp'", "option src_dport '25'", "list src_ip '203.0.113.9'"):  false,
		forward(good, "option proto 'tcp'", "option src_dport '25 26'"):                            false,
		"config 'forward' 'x'\n" + forward(good, "option proto 'tcp'", "option src_dport '25 80'"): false,
	} {
		if problems := checkWith(vps, d, "home", push, fresh, facts); (len(problems) == 0) != taken {
			t.Errorf("taken is not %v: %v\n%s", taken, problems, push)
		}
	}
	if problems := checkWith(vps, d, "home", string(d.Homes["home"].Push), netip.MustParseAddr("2001:db8:fe::1"),
		facts); len(problems) == 0 {
		t.Error("the address of another home is taken")
	}
}

func TestProblemInTheLog(t *testing.T) {
	for _, test := range []struct {
		p    Problem
		want string
	}{
		{Problem{Code: "a reason"}, "a reason"},
		{Problem{Code: "a reason", Section: `forward "web"`}, `forward "web": a reason`},
		{Problem{Code: "a reason", Section: `forward "web"`, Option: "proto", Value: "all"},
			`forward "web": option proto "all": a reason`},
	} {
		if got := test.p.Text().Error(); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}

// Two homes that share an address do not get each other's ports, whoever was first.
func TestPushOfAnotherHome(t *testing.T) {
	d := defaults()
	d.Homes["cabin"] = &config.Home{Enrolled: 1, File: "/relays/cabin", Push: []byte(forward(
		"option dest_ip '192.168.5.5'", "option proto 'tcp'", "option src_dport '443'"))}
	problems := checkWith(vps, d, "home", forward(good, "option proto 'tcp'", "option src_dport '443'"), netip.Addr{},
		facts)
	if len(problems) != 1 || problems[0].Code != "another home of the VPS has it already; allowed is another port" {
		t.Errorf("the port of another home: %v", problems)
	}
	d = defaults() // the one that asks comes last, whatever its name is
	d.Homes["cabin"] = &config.Home{Enrolled: 1, File: "/relays/cabin"}
	d.Homes["home"].Push = []byte(forward(good, "option proto 'tcp'", "option src_dport '443'"))
	problems = checkWith(vps, d, "cabin", forward("option dest_ip '192.168.5.5'", "option proto 'tcp'",
		"option src_dport '443'"), netip.Addr{}, facts)
	if len(problems) != 1 || problems[0].Option != "src_dport" {
		t.Errorf("the port of a home whose name comes later: %v", problems)
	}
}

func TestAddressOfAHome(t *testing.T) {
	for addr, taken := range map[string]bool{"2001:db8:fd::77": true, "2001:db8:fe::1": false, // free's home
		"2001:db8:6ef9:0:198:51:100:144": false, "2001:db8:ca:0:198:51:100:144": false} {
		problems := checkWith(vps, defaults(), "home", config.PushHeader, netip.MustParseAddr(addr), facts)
		if (len(problems) == 0) != taken {
			t.Errorf("the address %s: %v, want taken %v", addr, problems, taken)
		}
	}
}

func TestEndpoint(t *testing.T) {
	c, _, err := config.Parse("", []byte(vps), defaults())
	if err != nil {
		t.Fatal(err)
	}
	for relay, of := range map[string]map[string]bool{
		"home": {"2001:db8::1": true, "203.0.113.1": false, "::ffff:203.0.113.1": false,
			"fe80::1%eth0": false, "::1": false},
		"cabin": {"2001:db8::1": false}, // its address is in the file
	} {
		for addr, want := range of {
			if got := Endpoint(c.Relay(relay), netip.MustParseAddr(addr)); got.IsValid() != want {
				t.Errorf("Endpoint(%s, %s) = %v", relay, addr, got)
			}
		}
	}
}

func TestAnswerIsBounded(t *testing.T) {
	var problems []Problem
	for range 5000 {
		problems = append(problems, Problem{Code: "is kept", Section: strings.Repeat("\x1b", 5000), Option: "o",
			Value: strings.Repeat("ü", 5000)})
	}
	data := NewAnswer(problems...).JSON()
	var answer Answer
	if err := json.Unmarshal(data, &answer); err != nil || len(data) > MaxAnswer || answer.State != Refused ||
		len(answer.Problems) == 0 {
		t.Errorf("%d bytes, %d problems, %v", len(data), len(answer.Problems), err)
	}
	if got := string(NewAnswer().JSON()); got != "{\"version\":1,\"state\":\"ok\"}\n" {
		t.Errorf("the answer is %s", got)
	}
}

func TestEnrolment(t *testing.T) {
	const key = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
	for text, want := range map[string][2]bool{ // with ipip6, with wireguard
		`{"version":1,"ssh":"ssh-ed25519 AAAA","public_key":"` + key + `"}`:       {true, true},
		`{"version":1,"ssh":"ssh-ed25519 AAAA","public_key":""}`:                  {true, false},
		`{"version":1,"ssh":"x","public_key":"` + key[1:] + `"}`:                  {true, false},
		`{"version":1,"ssh":"x","public_key":"` + strings.Repeat("A", 43) + `="}`: {true, false},
		`{"version":2,"ssh":"x"}`: {false, false},
		`{"version":1,"ssh":1}`:   {false, false},
		`[]`:                      {false, false},
		"":                        {false, false},
		"\x00\xff":                {false, false},
		`{"version":1,"ssh":"` + strings.Repeat("x", MaxEnrolment) + `"}`: {false, false},
	} {
		for i, transport := range []config.Transport{config.IPIP6, config.WireGuard} {
			if _, problem := ParseEnrolment([]byte(text), transport); (problem == nil) != want[i] {
				t.Errorf("%s, %.60s: %v, want taken %v", transport, text, problem, want[i])
			}
		}
	}
}

// Whatever comes is answered, and nothing but private hosts and allowed ports comes of it.
func TestAnything(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	seed := forward(good, "option proto 'tcp'", "option src_dport '443 1000-2000'", "list src_ip '203.0.113.0/24'")
	taken := 0
	for range 3000 {
		text := []byte(seed)
		for range 1 + r.IntN(4) {
			i := r.IntN(len(text))
			switch r.IntN(3) {
			case 0:
				text[i] = byte(r.IntN(256))
			case 1:
				text = append(text[:i], text[i+1:]...)
			default:
				text = append(text[:i], append([]byte{text[r.IntN(len(text))]}, text[i:]...)...)
			}
		}
		if problems := check("home", string(text)); len(problems) > 0 {
			continue
		}
		taken++
		for _, f := range after("home", string(text)).Forwards {
			if !f.DestIP.IsPrivate() || f.All || f.Egress == config.All {
				t.Fatalf("%s is taken of\n%s", f, text)
			}
		}
	}
	if taken == 0 || taken == 3000 {
		t.Errorf("%d of 3000 are taken", taken)
	}
}
