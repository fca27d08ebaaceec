package state

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/config/configtest"
	"github.com/ds4relay/ds4relay/internal/uci"
)

// TestForwarded finds the forward of connections at each end.
func TestForwarded(t *testing.T) {
	addr := netip.MustParseAddr
	client, public, host, router := addr("203.0.113.10"), addr("198.51.100.144"), addr("192.168.1.210"),
		addr("192.168.1.1")
	card := addr("10.0.0.5")
	const forwards = `
config forward 'web'
	option src_dport '80'
	option dest_ip '192.168.1.210'
	option dest_port '8080'

config forward 'wide'
	list proto 'udp'
	option src_dport '1000-2000'
	option dest_ip '192.168.1.210'

config forward 'ping'
	list proto 'icmp'
	option dest_ip '192.168.1.210'

config forward 'rest'
	list proto 'all'
	option dest_ip '192.168.1.210'
`
	mark := uint32(0x46000000)
	for _, c := range []struct {
		role string
		name string
		flow Flow
		want string
	}{
		{"vps", "a port", Flow{Proto: 6, Src: client, Dst: public, DstPort: 80, AnswerSrc: host, AnswerPort: 8080},
			"web"},
		{"vps", "a port of a wide range", Flow{Proto: 17, Src: client, Dst: public, DstPort: 1500, AnswerSrc: host,
			AnswerPort: 1500}, "wide"},
		{"vps", "the end of the range, of another protocol", Flow{Proto: 6, Src: client, Dst: public, DstPort: 2000,
			AnswerSrc: host, AnswerPort: 2000}, "rest"},
		{"vps", "ping", Flow{Proto: 1, Src: client, Dst: public, AnswerSrc: host}, "ping"},
		{"vps", "a protocol without ports", Flow{Proto: 47, Src: client, Dst: public, AnswerSrc: host}, "rest"},
		{"vps", "its own ssh", Flow{Proto: 6, Src: client, Dst: public, DstPort: 22, AnswerSrc: public,
			AnswerPort: 22}, ""},
		{"cloud", "a port", Flow{Proto: 6, Src: client, Dst: card, DstPort: 80, AnswerSrc: host, AnswerPort: 8080},
			"web"},
		{"cloud", "the VPS's own program, by the public address", Flow{Proto: 17, Src: card, Dst: public, DstPort: 1500,
			AnswerSrc: host, AnswerPort: 1500}, "wide"},
		{"cloud", "its own ssh", Flow{Proto: 6, Src: client, Dst: card, DstPort: 22, AnswerSrc: card, AnswerPort: 22},
			""},
		{"cloud", "its own ssh, by a host at home", Flow{Proto: 6, Src: host, Dst: public, DstPort: 22, AnswerSrc: card,
			AnswerPort: 22}, ""},
		{"vps", "somebody else's", Flow{Proto: 6, Src: client, Dst: addr("198.51.100.9"), DstPort: 80, AnswerSrc: host,
			AnswerPort: 8080}, ""},
		{"router", "the host's port", Flow{Proto: 6, Src: client, Dst: host, DstPort: 8080, AnswerSrc: host,
			AnswerPort: 8080, Mark: mark}, "web"},
		{"router", "the public port is another one there",
			Flow{Proto: 6, Src: client, Dst: host, DstPort: 80, AnswerSrc: host, AnswerPort: 80, Mark: mark}, "rest"},
		{"router", "with bits of mwan3", Flow{Proto: 1, Src: client, Dst: host, AnswerSrc: host, Mark: mark | 0x3f00},
			"ping"},
		{"router", "not by the tunnel", Flow{Proto: 6, Src: router, Dst: host, DstPort: 8080, AnswerSrc: host,
			AnswerPort: 8080}, ""},
	} {
		text := "config relay 'home'\n\toption role '" + c.role + "'" + flowRelay + forwards
		if c.role == "cloud" {
			text = configtest.InCloud(strings.Replace(text, "'cloud'", "'vps'", 1))
		}
		file, err := uci.Parse("ds4relay", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		configuration, _, err := config.New(file, config.Defaults{Role: config.VPS})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if f := NewForwarded(configuration.Relays).Of(c.flow); f != nil {
			got = f.Section
		}
		if got != c.want {
			t.Errorf("%s (%s): %q, want %q", c.name, c.role, got, c.want)
		}
	}
}

// TestTakes: config.Takes says of random packets what the rules do with them.
func TestTakes(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	clients := []netip.Addr{netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("198.18.0.1")}
	taken := 0
	for range 300 {
		text := configtest.Random(random, "vps")
		if random.IntN(2) == 0 {
			text = configtest.InCloud(text)
		}
		c, _, err := config.Parse("ds4relay", []byte(text), config.Defaults{Role: config.VPS})
		if err != nil {
			t.Fatal(err)
		}
		relays := slices.DeleteFunc(c.Relays, func(r *config.Relay) bool { return !r.Enabled })
		have := compile(t, []byte(text), Facts{})
		rules := newWays(*have.table("ip"), nil)
		for range 50 {
			flow := Flow{Proto: []uint8{config.TCP, config.UDP, 1, 47}[random.IntN(4)], Src: clients[random.IntN(2)],
				Dst: relays[0].Addresses()[random.IntN(len(relays[0].Addresses()))]}
			if config.HasPorts(flow.Proto) {
				flow.DstPort = uint16([]int{18 + random.IntN(15), 1000 + random.IntN(1000)}[random.IntN(2)])
			}
			to := rules.of(flow)
			_, f := config.Takes(relays, flow.Dst, flow.Src, flow.Proto, flow.DstPort)
			if f == nil && to != (way{flow.Dst, flow.DstPort}) || f != nil && to.host != f.DestIP {
				t.Fatalf("%+v goes to %v, but is taken by %v\n%s", flow, to, f, text)
			}
			if f != nil {
				taken++
			}
		}
	}
	if taken < 1000 {
		t.Errorf("%d packets were taken", taken)
	}
}
