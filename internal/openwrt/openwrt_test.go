package openwrt

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/message/messagetest"
	"github.com/ds4relay/ds4relay/internal/program"
	"github.com/ds4relay/ds4relay/internal/transport"
	"github.com/ds4relay/ds4relay/internal/uci"
)

// dump is netifd's output, shortened.
const dump = `{"interface":[
	{"interface":"lan","up":true,"l3_device":"br-lan","device":"br-lan","ipv4-address":[{"address":"192.168.1.1","mask":24}],"ipv6-prefix":[]},
	{"interface":"guest","up":true,"device":"eth0.3","ipv4-address":[{"address":"192.168.3.1","mask":24}]},
	{"interface":"wan6","up":true,"l3_device":"pppoe-wan","device":"eth1","ipv6-prefix":[{"address":"2001:db8:100::","mask":56,"class":"wan6"}]},
	{"interface":"ds4_home","up":false,"dynamic":true,"proto":"none","device":"wrap1"}]}`

func TestInterfaces(t *testing.T) {
	got, err := ParseInterfaces([]byte(dump))
	if err != nil {
		t.Fatal(err)
	}
	prefix := netip.MustParsePrefix
	want := []Interface{
		{Name: "lan", Up: true, Device: "br-lan", IPv4: []netip.Prefix{prefix("192.168.1.1/24")}},
		{Name: "guest", Up: true, Device: "eth0.3", IPv4: []netip.Prefix{prefix("192.168.3.1/24")}},
		{Name: "wan6", Up: true, Device: "pppoe-wan", Prefixes: []netip.Prefix{prefix("2001:db8:100::/56")},
			Preferred: true},
		{Name: "ds4_home", Dynamic: true, Proto: "none", Device: "wrap1"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if i := Uplink(got); i == nil || i.Name != "wan6" {
		t.Errorf("uplink: %+v", i)
	}
	for _, bad := range []string{"", "[]", `{"interface":7}`,
		`{"interface":[{"ipv4-address":[{"address":"x","mask":99}]}]}`} {
		if interfaces, err := ParseInterfaces([]byte(bad)); err == nil && len(interfaces) > 0 &&
			interfaces[0].IPv4 != nil {
			t.Errorf("%s: %+v", bad, interfaces)
		}
	}
}

// TestPrefixes: of several delegated prefixes the public one counts that stays preferred for the longest time. Prefixes
// that are renewed together stay in order, and a deprecated one counts only if there is no other.
func TestPrefixes(t *testing.T) {
	prefix := func(net, life string) string {
		if life != "" {
			life = `,"preferred":` + life + `,"valid":7200`
		}
		return `{"address":"` + net + `","mask":56` + life + `}`
	}
	iface := func(name, device string, prefixes ...string) string {
		return `{"interface":"` + name + `","up":true,"device":"` + device + `","ipv6-prefix":[` +
			strings.Join(prefixes, ",") + `]}`
	}
	const former, now, ula = "2001:db8:100::", "2001:db8:200::", "fd00:1::"
	for _, c := range []struct {
		name       string
		interfaces []string
		tunlink    string
		want       string
	}{
		{"deprecated", []string{iface("wan6", "wan", prefix(former, "0"), prefix(now, "1800"))}, "", now},
		{"not renewed", []string{iface("wan6", "wan", prefix(former, "1000"), prefix(now, "3000"))}, "", now},
		{"not renewed, behind", []string{iface("wan6", "wan", prefix(now, "3000"), prefix(former, "1000"))}, "", now},
		{"for ever", []string{iface("wan6", "wan", prefix(former, "3000"), prefix(now, ""))}, "", now},
		{"renewed together", []string{iface("wan6", "wan", prefix(now, "1799"), prefix(former, "1800"))}, "", now},
		{"no other", []string{iface("wan6", "wan", prefix(former, "0"))}, "", former},
		{"a private one", []string{iface("wan6", "wan", prefix(ula, ""), prefix(former, "0"), prefix(now, "9"))}, "",
			now},
		{"another interface", []string{iface("wan6", "wan", prefix(former, "0")),
			iface("wwan6", "wwan", prefix(now, "1800"))}, "", now},
		{"another interface of the device", []string{iface("wan6", "wan", prefix(former, "0")),
			iface("wan_6", "wan", prefix(now, "1800"))}, "wan", now},
		{"the interface that tunlink names", []string{iface("wan6", "wan", prefix(former, "0")),
			iface("wwan6", "wwan", prefix(now, "1800"))}, "wan6", former},
	} {
		interfaces, err := ParseInterfaces([]byte(`{"interface":[` + strings.Join(c.interfaces, ",") + `]}`))
		if err != nil {
			t.Fatal(err)
		}
		i := UplinkOf(&config.Relay{Tunlink: c.tunlink}, interfaces)
		if i == nil || i.Prefixes[0] != netip.MustParsePrefix(c.want+"/56") {
			t.Errorf("%s: %+v, want %s", c.name, i, c.want)
		}
	}
}

const firewall = `
config zone
	option name 'home'
	list network 'lan'

config zone
	option name 'visitors'
	option network 'guest other'

config zone
	option name 'internet'
	list network 'wan'
	list network 'wan6'

config zone
	option name 'off'
	option enabled '0'
	option network 'lan'

config zone 'dmz'
	option name 'dmz'
	option subnet '10.9.0.0/16'
`

const relays = `
config relay 'home'
	option role 'router'
	option ipaddr '198.51.100.144'
	option ip6addr '2001:db8:100::/56'
	option peeraddr '2001:db8:6ef9::/64'
	option device 'wrap1'

config forward 'web'
	option src_dport '8000-8001'
	option proto 'tcp'
	option dest_ip '192.168.1.210'
	option dest_port '80-81'
	list src_ip '203.0.113.0/24'
	list src_ip '192.0.2.7'
	option egress 'all'

config forward 'games'
	option proto 'all'
	option dest_ip '192.168.3.5'

config forward 'vpn'
	option proto 'esp'
	option dest_ip '10.9.1.1'

config forward 'else'
	option proto 'icmp'
	option dest_ip '172.16.1.1'

config forward 'itself'
	option proto 'tcp'
	option src_dport '22000'
	option dest_ip '192.168.1.1'
	option dest_port '22'
	option egress 'all'
`

func TestRules(t *testing.T) {
	file := func(text string) *uci.File {
		f, err := uci.Parse("F", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	c, _, err := config.New(file(relays), config.Defaults{Role: config.Router})
	if err != nil {
		t.Fatal(err)
	}
	interfaces, err := ParseInterfaces([]byte(dump))
	if err != nil {
		t.Fatal(err)
	}
	peers := map[string]netip.Addr{"home": c.Relays[0].Peer}
	uplinks := map[string]*Interface{"home": Find(interfaces, "wan6")}
	var got []string
	for _, rule := range Rules(c.Relays, peers, uplinks, interfaces, Zones(file(firewall))) {
		text, err := json.Marshal(rule.Map())
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(text))
	}
	want := []string{
		`{"dest_ip":"2001:db8:100:0:198:51:100:144","family":"ipv6","name":"ds4relay home: ` +
			`tunnel","proto":"4","src":"internet","src_ip":"2001:db8:6ef9:0:198:51:100:144","target":"ACCEPT","type":"rule"}`,
		`{"dest":"home","dest_ip":"192.168.1.210","dest_port":"80-81","device":"wrap1","direction":"in","family":"ipv4","name":"ds4relay home: web","proto":"6","src":"*","src_ip":["192.0.2.7","203.0.113.0/24"],"target":"ACCEPT","type":"rule"}`,
		`{"dest":"*","device":"wrap1","direction":"out","family":"ipv4","name":"ds4relay home: egress of ` +
			`192.168.1.210","proto":"all","src":"home","src_ip":"192.168.1.210","target":"ACCEPT","type":"rule"}`,
		`{"dest":"visitors","dest_ip":"192.168.3.5","device":"wrap1","direction":"in","family":"ipv4","name":"ds4relay home: games","proto":"all","src":"*","target":"ACCEPT","type":"rule"}`,
		`{"dest":"dmz","dest_ip":"10.9.1.1","device":"wrap1","direction":"in","family":"ipv4","name":"ds4relay home: ` +
			`vpn","proto":"50","src":"*","target":"ACCEPT","type":"rule"}`,
		`{"dest":"*","dest_ip":"172.16.1.1","device":"wrap1","direction":"in","family":"ipv4","name":"ds4relay home: ` +
			`else","proto":"1","src":"*","target":"ACCEPT","type":"rule"}`,
		`{"dest_ip":"192.168.1.1","dest_port":"22","device":"wrap1","direction":"in","family":"ipv4","name":"ds4relay home: itself","proto":"6","src":"*","target":"ACCEPT","type":"rule"}`,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}

	// WireGuard needs no opening at home, and no delegated prefix.
	c, _, err = config.New(file(strings.NewReplacer("option ip6addr '2001:db8:100::/56'", "option transport "+
		"'wireguard'",
		"'2001:db8:6ef9::/64'", "'192.0.2.7'\n\toption public_key '"+transport.Key{7}.String()+"'").Replace(relays)),
		config.Defaults{Role: config.Router})
	if err != nil {
		t.Fatal(err)
	}
	home := c.Relays[0]
	if i := UplinkOf(home, interfaces); i != nil {
		t.Errorf("the tunnel depends on %s", i.Name)
	}
	rules := Rules(c.Relays, map[string]netip.Addr{"home": home.Peer}, map[string]*Interface{"home": nil}, interfaces,
		Zones(file(firewall)))
	got = nil
	for _, rule := range rules {
		text, err := json.Marshal(rule.Map())
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(text))
	}
	if !reflect.DeepEqual(got, want[1:]) {
		t.Errorf("wireguard: got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want[1:], "\n"))
	}
}

// TestServe sends requests to the plugin as a browser may.
func TestServe(t *testing.T) {
	methods := map[string]Method{
		"echo": {Arguments: []string{"text"}, Call: func(a map[string]string) (any, error) { return a, nil }},
		"read": {Call: func(map[string]string) (any, error) {
			_, _, err := config.Parse("F", []byte("config relay\n\n\toption\n"), config.Defaults{Role: config.Router})
			return nil, err
		}},
	}
	serve := func(in string, args ...string) string {
		var out strings.Builder
		if err := Serve(args, strings.NewReader(in), &out, methods); err != nil {
			return "failed: " + err.Error()
		}
		return strings.TrimSpace(out.String())
	}
	for _, c := range []struct {
		in, want string
		args     []string
	}{
		{"", `{"echo":{"text":"String"},"read":{}}`, []string{"list"}},
		{`{"text":"a <b> 'c' $(d)"}`, `{"text":"a <b> 'c' $(d)"}`, []string{"call", "echo"}},
		{`{"text":"x","ubus_rpc_session":"0123"}`, `{"text":"x"}`, []string{"call", "echo"}},
		{"", `{}`, []string{"call", "echo"}},
		{`{"text":7}`, `{"version":1,"error":"the argument text is no string","code":"the argument %s is no ` +
			`string","args":["text"]}`, []string{"call", "echo"}},
		{`{"text":["x"]}`, `{"version":1,"error":"the argument text is no string","code":"the argument %s is no ` +
			`string","args":["text"]}`, []string{"call", "echo"}},
		{`{"test":"x"}`, `{"version":1,"error":"echo takes no argument \"test\"; it takes: [text]","code":"%s takes ` +
			`no argument %q; it takes: %v","args":["echo","test","[text]"]}`, []string{"call", "echo"}},
		{`[1]`, `{"version":1,"error":"the arguments are no JSON object: json: cannot unmarshal array into Go value ` +
			`of type map[string]json.RawMessage","code":"the arguments are no JSON object: %v","args":["json: cannot ` +
			`unmarshal array into Go value of type map[string]json.RawMessage"]}`, []string{"call", "echo"}},
		// rpcd writes no more than fits into its pipe.
		{`{"text":"` + strings.Repeat("x", 65536-9), `{"version":1,"error":"only the first 65536 bytes of the ` +
			`arguments have arrived: rpcd hands over no more; ` +
			`to check a longer configuration: ds4relay check FILE","code":"only the first %d bytes of the arguments ` +
			`have arrived: rpcd hands over no more; to check a longer configuration: ds4relay check ` +
			`FILE","args":[65536]}`,
			[]string{"call", "echo"}},
		{`{"text":"x`, `{"version":1,"error":"the arguments are no JSON object: unexpected end of JSON ` +
			`input","code":"the arguments are no JSON object: %v","args":["unexpected end of JSON input"]}`,
			[]string{"call", "echo"}},
		{strings.Repeat(" ", maxInput+1), `{"version":1,"error":"more than 65536 bytes of arguments","code":"more ` +
			`than %d bytes of arguments","args":[65536]}`, []string{"call", "echo"}},
		{"", `{"version":1,"error":"there is no method \"rm\"; there are: [echo read]","code":"there is no method ` +
			`%q; there are: %v","args":["rm","[echo read]"]}`, []string{"call", "rm"}},
		{"", `{"version":1,"error":"F:3: option takes a name and a value, as in: option ipaddr ` +
			`'198.51.100.144'","problems":[{"file":"F","line":3,` +
			`"message":"option takes a name and a value, as in: option ipaddr '198.51.100.144'",` +
			`"code":"%s takes a name and a value, as in: %s ipaddr '198.51.100.144'","args":["option","option"]}]}`,
			[]string{"call", "read"}},
		{"", "failed: rpcd takes list, or call and a method", []string{"call"}},
		{"", "failed: rpcd takes list, or call and a method", nil},
	} {
		if got := serve(c.in, c.args...); got != c.want {
			t.Errorf("%v %.40s: got %s, want %s", c.args, c.in, got, c.want)
		}
	}
}

// TestControlSays: what the init script says about a failure has a code, which LuCI translates.
func TestControlSays(t *testing.T) {
	script, err := os.ReadFile("../../files/openwrt/etc/init.d/ds4relay")
	if err != nil {
		t.Fatal(err)
	}
	said := regexp.MustCompile(`refused\(\) \{\n\techo "(.*)" >&2`).FindSubmatch(script)
	if said == nil {
		t.Fatal("the init script does not say that ds4relay did not start")
	}
	failed, sentence := errors.New("exit status 2"), string(said[1])
	text := message.Of(refusal("reload", sentence, failed))
	if text.Code != sentence {
		t.Errorf("code %q, want %q", text.Code, sentence)
	}
	messagetest.Check(t, text, sentence)
	if text := message.Of(refusal("enable", "ln: no space", failed)); text.Code != "%s" ||
		text.Error() != "ln: no space" {
		t.Errorf("what others say: %+v", text)
	}
	late := refusal("start", "", &program.LimitError{Name: initScript, Limit: ShellTime})
	if !strings.Contains(late.Error(), "start takes longer than 3m0s; see the system log") {
		t.Errorf("what is late: %v", late)
	}
}

// TestControlRefuses: only actions of the init script are run, nothing else that a browser sends.
func TestControlRefuses(t *testing.T) {
	for _, action := range []string{"", "boot", "start; reboot", "--help", "START"} {
		if err := Control(action, PageTime); err == nil ||
			!strings.Contains(err.Error(), "allowed is one of start, stop, restart, reload, enable, disable") {
			t.Errorf("%q: %v", action, err)
		}
	}
}
