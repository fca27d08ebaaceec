//go:build !openwrt

package reconcile

import (
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/state"
)

// samples are the lines of a set without their explanations, without the names' prefix.
func samples(s *Status) string {
	var b strings.Builder
	for line := range strings.Lines(Metrics("0.1.0", s).Text(true)) {
		if sample, ok := strings.CutPrefix(line, "ds4relay_"); ok {
			b.WriteString(sample)
		}
	}
	return b.String()
}

// TestMetrics: the figures of a status; what is not known is left out.
func TestMetrics(t *testing.T) {
	heard, shaken := int64(18), int64(95)
	relay := RelayStatus{Name: "home", Enabled: true, Role: config.Router, Up: true, IPAddr: "198.51.100.144",
		Device: "wrap1", Transport: config.WireGuard, MTU: 1420, OtherEnd: "heard", HeardS: &heard,
		KeysStatus: KeysStatus{Port: 51846, PublicKey: "own", PeerPublicKey: "peer", Endpoint: "[2001:db8::7]:40112",
			HandshakeS: &shaken},
		Counters: &kernel.Counters{RxBytes: 1, RxPackets: 2, TxBytes: 3, TxPackets: 4, RxErrors: 5, TxErrors: 6},
		Forwards: []ForwardStatus{{Section: "web", Name: "Mum's \"web\"\x1b", DestIP: "192.168.1.210", Host: "up",
			Flows: &Flows{Open: 2, In: &state.Traffic{Bytes: 7}, Out: &state.Traffic{Bytes: 8}}}}}
	s := &Status{Relays: []RelayStatus{relay}, Connections: &kernel.Connections{Count: 9, Max: 10}}
	if got, want := samples(s), `info{version="0.1.0"} 1
configuration_valid 1
configuration_differs 0
conntrack_entries 9
conntrack_entries_limit 10
relay_info{relay="home",role="router",ipaddr="198.51.100.144",device="wrap1",transport="wireguard"} 1
relay_up{relay="home"} 1
peer_heard_seconds{relay="home"} 18
peer_silent{relay="home"} 0
wireguard_info{relay="home",peer_public_key="peer",endpoint="[2001:db8::7]:40112"} 1
wireguard_handshake_seconds{relay="home"} 95
tunnel_mtu_bytes{relay="home"} 1420
tunnel_receive_bytes_total{relay="home"} 1
tunnel_receive_packets_total{relay="home"} 2
tunnel_receive_errors_total{relay="home"} 5
tunnel_transmit_bytes_total{relay="home"} 3
tunnel_transmit_packets_total{relay="home"} 4
tunnel_transmit_errors_total{relay="home"} 6
forward_info{relay="home",forward="web",name="Mum's \"web\"\\u001b",dest_ip="192.168.1.210"} 1
forward_host_up{relay="home",forward="web"} 1
forward_open_connections{relay="home",forward="web"} 2
forward_open_bytes{relay="home",forward="web",direction="in"} 7
forward_open_bytes{relay="home",forward="web",direction="out"} 8
`; got != want {
		t.Errorf("all:\n%s\nwant\n%s", got, want)
	}
	down := RelayStatus{Name: "cabin", Enabled: true, Role: config.VPS, IPAddr: "198.51.100.145", Device: "wrap2",
		Transport: config.IPIP6, MTU: 1460, OtherEnd: "unknown",
		Forwards: []ForwardStatus{{Section: "web", DestIP: "192.168.1.210", Host: "unknown"}}}
	s = &Status{Relays: []RelayStatus{down, {Name: "off"}}, Unseen: []*message.Text{message.New("nft's tables")}}
	if got, want := samples(s), `info{version="0.1.0"} 1
configuration_valid 1
relay_info{relay="cabin",role="vps",ipaddr="198.51.100.145",device="wrap2",transport="ipip6"} 1
relay_up{relay="cabin"} 0
tunnel_mtu_bytes{relay="cabin"} 1460
forward_info{relay="cabin",forward="web",name="",dest_ip="192.168.1.210"} 1
`; got != want {
		t.Errorf("little:\n%s\nwant\n%s", got, want)
	}
	relay.OtherEnd, relay.Forwards[0].Host = "silent", "missing"
	s = &Status{Relays: []RelayStatus{relay}, Differs: []string{"ip link …"}}
	for _, want := range []string{`peer_silent{relay="home"} 1`, `forward_host_up{relay="home",forward="web"} 0`,
		`configuration_differs 1`} {
		if got := samples(s); !strings.Contains(got, want+"\n") {
			t.Errorf("%s is not in\n%s", want, got)
		}
	}
	if got, want := samples(nil), "info{version=\"0.1.0\"} 1\nconfiguration_valid 0\n"; got != want {
		t.Errorf("with a mistake in the configuration:\n%s\nwant\n%s", got, want)
	}
}
