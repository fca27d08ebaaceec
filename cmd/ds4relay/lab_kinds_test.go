//go:build lab

package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/doctor"
	"github.com/ds4relay/ds4relay/internal/lab"
)

// kind is one forward, what a client gets by it, and the worst that the doctor says of it at the VPS and the router: in
// the checks forward, host and answer.
type kind struct {
	name  string // of the section
	text  string // options, separated by semicolons
	tries string // what the client does: "tcp 1001", separated by commas
	says  string // VPS/router; "-" if it is not in that file
	here  string // options in the router's file, if others; "-" if it is not there
}

// Hosts of TestDoctorKinds besides those of the lab; they are addresses of the first host, except that nobody has OFF.
//   - QUIET answers neither pings nor on closed ports, as Windows does.
//   - NEAR lets in its own network only.
//   - AWAY has another gateway.
//   - STERN refuses everything by ICMP.
var kindHosts = strings.NewReplacer("HOST2", "192.168.1.211", "HOST", "192.168.1.210", "QUIET", "192.168.1.220", "NEAR",
	"192.168.1.221", "AWAY", "192.168.1.222", "STERN", "192.168.1.223", "OFF", "192.168.1.230", "OTHER",
	"192.168.2.20", "HOLE", "192.168.1.240", "ROUTER", "192.168.1.1")

const kindFirewall = `table ip kinds {
	chain input {
		type filter hook input priority 0;
		ct state established accept
		ip daddr 192.168.1.220 tcp dport != { 3389, 54321 } drop
		ip daddr 192.168.1.220 meta l4proto != tcp drop
		ip daddr 192.168.1.221 ip saddr != 192.168.1.0/24 drop
		ip daddr 192.168.1.223 reject with icmp type admin-prohibited
	}
}`

// working are forwards by which traffic flows.
var working = []kind{
	{name: "tcp", text: "proto tcp; src_dport 1001; dest_port 80; dest_ip HOST", tries: "tcp 1001", says: "ok/ok"},
	{name: "udp", text: "proto udp; src_dport 1002; dest_port 5000; dest_ip HOST", tries: "udp 1002", says: "ok/ok"},
	{name: "both", text: "src_dport 1003; dest_port 5003; dest_ip HOST", tries: "tcp 1003, udp 1003", says: "ok/ok"},
	{name: "udp_idle", text: "src_dport 1004; dest_port 80; dest_ip HOST", tries: "tcp 1004", says: "warning/warning"},
	{name: "tcp_idle", text: "src_dport 1005; dest_port 5000; dest_ip HOST", tries: "udp 1005",
		says: "warning/warning"},
	{name: "icmp", text: "proto icmp; dest_ip HOST", tries: "icmp", says: "ok/ok"},
	{name: "gre", text: "proto gre; dest_ip HOST", tries: "raw 47", says: "ok/ok"},
	{name: "esp_silent", text: "proto esp; dest_ip HOST", tries: "raw 50", says: "skipped/skipped"},
	{name: "number", text: "proto 253; dest_ip HOST", tries: "raw 253", says: "ok/ok"},
	{name: "sctp", text: "proto sctp; src_dport 5000; dest_port 5001; dest_ip HOST", tries: "sctp 5000", says: "ok/ok"},
	{name: "sctp_range", text: "proto sctp; src_dport 5100-5102; dest_ip HOST", tries: "sctp 5102", says: "ok/ok"},
	{name: "range_inside", text: "proto tcp; src_dport 2000-2100; dest_ip HOST", tries: "tcp 2050",
		says: "warning/warning"},
	{name: "range_known", text: "proto tcp; src_dport 8000-8100; dest_ip HOST", tries: "tcp 8080", says: "ok/ok"},
	{name: "range_small", text: "proto tcp; src_dport 2200-2202; dest_ip HOST", tries: "tcp 2202", says: "ok/ok"},
	{name: "range_eight", text: "proto tcp; src_dport 2700-2707; dest_ip HOST", tries: "tcp 2706", says: "ok/ok"},
	{name: "range_shifted", text: "proto tcp; src_dport 2300-2310; dest_port 2400-2410; dest_ip HOST",
		tries: "tcp 2310", says: "ok/ok"},
	{name: "range_udp", text: "proto udp; src_dport 2500-2600; dest_ip HOST", tries: "udp 2550",
		says: "warning/warning"},
	{name: "range_udp_small", text: "proto udp; src_dport 2610-2612; dest_ip HOST", tries: "udp 2612", says: "ok/ok"},
	{name: "range_both", text: "src_dport 6000-6010; dest_ip HOST", tries: "tcp 6005, udp 6005",
		says: "warning/warning"},
	{name: "range_wide", text: "proto tcp; src_dport 20000-50000; dest_ip HOST", tries: "tcp 50000", says: "ok/ok"},
	{name: "range_kept", text: "proto tcp; src_dport 3000-3010; dest_ip HOST", tries: "tcp 3001",
		says: "ok/warning"}, // the router does not know what the VPS keeps,
	{name: "range_kept_inside", text: "proto tcp; src_dport 20-24; dest_ip HOST", tries: "tcp 23", says: "ok/ok"},
	{name: "list", text: "proto tcp; src_dport 25 465; dest_ip HOST", tries: "tcp 25, tcp 465", says: "ok/ok"},
	{name: "list_part", text: "proto tcp; src_dport 26 466; dest_ip HOST", tries: "tcp 466", says: "warning/warning"},
	{name: "list_ranges", text: "proto tcp; src_dport 1039 1100-1102; dest_ip HOST", tries: "tcp 1039, tcp 1101",
		says: "ok/ok"},
	{name: "limited", text: "proto tcp; src_dport 1017; dest_port 80; dest_ip HOST; src_ip 203.0.113.0/24",
		tries: "tcp 1017", says: "ok/ok"},
	{name: "limited_one", text: "proto tcp; src_dport 1018; dest_port 80; dest_ip HOST; src_ip 203.0.113.10",
		tries: "tcp 1018", says: "ok/ok"},
	{name: "limited_udp", text: "proto udp; src_dport 1019; dest_port 5000; dest_ip HOST; src_ip 203.0.113.0/24",
		tries: "udp 1019", says: "ok/ok"},
	{name: "second", text: "proto tcp; src_dport 1020; dest_port 80; dest_ip HOST2", tries: "tcp 1020", says: "ok/ok"},
	{name: "other_network", text: "proto tcp; src_dport 1021; dest_port 80; dest_ip OTHER", tries: "tcp 1021",
		says: "ok/ok"},
	{name: "no_icmp", text: "proto tcp; src_dport 3389; dest_ip QUIET", tries: "tcp 3389", says: "ok/ok"},
	{name: "range_quiet", text: "proto tcp; src_dport 54000-54999; dest_ip QUIET", tries: "tcp 54321",
		says: "warning/warning"},
	{name: "router", text: "proto tcp; src_dport 1023; dest_port 8022; dest_ip ROUTER", tries: "tcp 1023",
		says: "ok/ok"},
	{name: "router_udp", text: "proto udp; src_dport 1024; dest_port 8022; dest_ip ROUTER", tries: "udp 1024",
		says: "ok/ok"},
	{name: "udp_silent", text: "proto udp; src_dport 51820; dest_ip HOST", tries: "udp 51820", says: "skipped/skipped"},
	{name: "same_port", text: "proto tcp; src_dport 1025; dest_port 80; dest_ip HOST", tries: "tcp 1025",
		says: "ok/ok"},
}

// idle are forwards by which nothing flows. The functions before the test break some.
var idle = []kind{
	{name: "tcp_refused", text: "proto tcp; src_dport 1001; dest_port 81; dest_ip HOST", tries: "tcp 1001",
		says: "failed/failed"},
	{name: "udp_refused", text: "proto udp; src_dport 1002; dest_port 81; dest_ip HOST", tries: "udp 1002",
		says: "failed/failed"},
	{name: "both_refused", text: "src_dport 1003; dest_port 81; dest_ip HOST", tries: "tcp 1003, udp 1003",
		says: "failed/failed"},
	{name: "loopback", text: "proto tcp; src_dport 1004; dest_port 82; dest_ip HOST", tries: "tcp 1004",
		says: "failed/failed"},
	{name: "off", text: "proto tcp; src_dport 1005; dest_port 80; dest_ip OFF", tries: "tcp 1005",
		says: "failed/failed"},
	{name: "off_udp", text: "proto udp; src_dport 1006; dest_port 80; dest_ip OFF", tries: "udp 1006",
		says: "failed/failed"},
	{name: "off_range", text: "proto tcp; src_dport 2000-2100; dest_ip OFF", tries: "tcp 2000", says: "failed/failed"},
	{name: "off_sctp", text: "proto sctp; src_dport 5000; dest_ip OFF", tries: "sctp 5000", says: "failed/failed"},
	{name: "near", text: "proto tcp; src_dport 1007; dest_port 80; dest_ip NEAR", tries: "tcp 1007",
		says: "failed/failed"},
	{name: "near_udp", text: "proto udp; src_dport 1008; dest_port 5500; dest_ip NEAR", tries: "udp 1008",
		says: "skipped/skipped"},
	{name: "near_range", text: "proto tcp; src_dport 2200-2300; dest_ip NEAR", tries: "tcp 2250",
		says: "warning/failed"},
	{name: "stern", text: "proto tcp; src_dport 1009; dest_port 80; dest_ip STERN", tries: "tcp 1009",
		says: "failed/failed"},
	{name: "stern_udp", text: "proto udp; src_dport 1010; dest_port 80; dest_ip STERN", tries: "udp 1010",
		says: "failed/failed"},
	{name: "away", text: "proto tcp; src_dport 1011; dest_port 80; dest_ip AWAY", tries: "tcp 1011",
		says: "failed/failed"},
	{name: "away_udp", text: "proto udp; src_dport 1012; dest_port 5500; dest_ip AWAY", tries: "udp 1012",
		says: "skipped/skipped"},
	{name: "quiet", text: "proto tcp; src_dport 1013; dest_port 80; dest_ip QUIET", tries: "tcp 1013",
		says: "failed/failed"},
	{name: "icmp_quiet", text: "proto icmp; dest_ip QUIET", tries: "icmp", says: "failed/failed"},
	{name: "router_refuses", text: "proto tcp; src_dport 1014; dest_port 8099; dest_ip ROUTER", tries: "tcp 1014",
		says: "failed/failed"},
	{name: "router_udp", text: "proto udp; src_dport 1014; dest_port 8099; dest_ip ROUTER", tries: "udp 1014",
		says: "failed/failed"},
	{name: "range_small", text: "proto tcp; src_dport 2400-2402; dest_ip HOST", tries: "tcp 2401",
		says: "failed/failed"},
	{name: "range_wide", text: "proto tcp; src_dport 2500-2600; dest_ip HOST", tries: "tcp 2550",
		says: "warning/warning"},
	{name: "range_udp", text: "proto udp; src_dport 2500-2600; dest_ip HOST", tries: "udp 2590",
		says: "warning/warning"},
	{name: "gre", text: "proto gre; dest_ip HOST2", tries: "raw 47", says: "failed/failed"},
	{name: "esp", text: "proto esp; dest_ip HOST2", tries: "raw 50", says: "failed/failed"},
	{name: "number", text: "proto 253; dest_ip HOST2", tries: "raw 253", says: "failed/failed"},
	{name: "sctp", text: "proto sctp; src_dport 5001; dest_ip HOST2", tries: "sctp 5001", says: "failed/failed"},
	{name: "list", text: "proto tcp; src_dport 2650 2660; dest_ip HOST", tries: "tcp 2650, tcp 2660",
		says: "failed/failed"},
	{name: "vps_only", text: "proto tcp; src_dport 1015; dest_port 8015; dest_ip HOST2", tries: "tcp 1015", here: "-",
		says: "failed/-"},
	{name: "vps_only_udp", text: "proto udp; src_dport 1016; dest_port 8016; dest_ip HOST2", tries: "udp 1016",
		here: "enabled 0", says: "skipped/-"},
	{name: "other_host", text: "proto tcp; src_dport 1017; dest_port 8017; dest_ip HOST2", tries: "tcp 1017",
		here: "proto tcp; src_dport 1017; dest_port 80; dest_ip HOST", says: "failed/ok"},
	{name: "other_port", text: "proto tcp; src_dport 1018; dest_port 8018; dest_ip HOST2", tries: "tcp 1018",
		here: "proto tcp; src_dport 1018; dest_port 80; dest_ip HOST2", says: "failed/ok"},
	{name: "router_drops", text: "proto tcp; src_dport 7033; dest_ip HOST", tries: "tcp 7033", says: "failed/failed"},
	{name: "vps_drops", text: "proto tcp; src_dport 7034; dest_ip HOST", tries: "tcp 7034", says: "failed/ok"},
	{name: "container", text: "proto tcp; src_dport 7035; dest_ip HOST", tries: "tcp 7035", says: "failed/ok"},
	{name: "redirected", text: "proto tcp; src_dport 7036; dest_ip HOST", tries: "tcp 7036", says: "failed/ok"},
	{name: "router_drops_answer", text: "proto tcp; src_dport 7037; dest_ip HOST", tries: "tcp 7037",
		says: "failed/failed"},
	{name: "vps_drops_answer", text: "proto tcp; src_dport 7038; dest_ip HOST", tries: "tcp 7038", says: "failed/ok"},
	{name: "element_removed", text: "proto tcp; src_dport 7039; dest_ip HOST", tries: "tcp 7039", says: "failed/ok"},
	{name: "opening_removed", text: "proto tcp; src_dport 7040; dest_ip HOST", tries: "tcp 7040",
		says: "failed/failed"},
	{name: "route_removed", text: "proto tcp; src_dport 1041; dest_port 80; dest_ip OTHER", tries: "tcp 1041",
		says: "failed/ok"},
	{name: "black_hole", text: "proto tcp; src_dport 1042; dest_port 80; dest_ip HOLE", tries: "tcp 1042",
		says: "failed/failed"},
}

// breaks breaks what the names of idle say.
var breaks = map[string]string{
	"router": `ip route add blackhole 192.168.1.240
nft -f - <<'E'
table inet filter {
	chain forward { type filter hook forward priority 0; tcp dport 7033 drop; tcp sport 7037 drop; }
}
delete element ip ds4relay open_port { "wrap1" . 192.168.1.210 . tcp . 7040 }
E`,
	"vps": `ip link add docker0 type dummy; ip addr add 172.17.0.1/16 dev docker0; ip link set docker0 up
ip route del 192.168.2.20 dev wrap1
nft -f - <<'E'
table inet filter {
	chain forward { type filter hook forward priority 0; tcp dport 7034 drop; tcp sport 7038 drop; }
}
table ip own {
	chain pre {
		type nat hook prerouting priority -101;
		tcp dport 7035 dnat to 172.17.0.2:80
		tcp dport 7036 redirect to :9
	}
}
delete element ip ds4relay port_forward { 198.51.100.144 . tcp . 7039 }
E`,
}

// alls are forwards of everything, each alone: the first flow, the others do not.
var alls = []struct {
	kind
	flows bool
}{
	{kind{name: "all", text: "proto all; dest_ip HOST", tries: "tcp 80, udp 5000, icmp", says: "ok/ok"}, true},
	{kind{name: "all_limited", text: "proto all; dest_ip HOST; src_ip 203.0.113.10", tries: "tcp 80, icmp",
		says: "ok/ok"}, true},
	{kind{name: "all_egress", text: "proto all; dest_ip HOST2; egress all", tries: "tcp 80, icmp",
		says: "ok/ok"}, true},
	{kind{name: "all_killswitch", text: "proto all; dest_ip HOST; egress all; killswitch 1", tries: "tcp 80, icmp",
		says: "ok/ok"}, true},
	{kind{name: "all_router", text: "proto all; dest_ip ROUTER", tries: "tcp 8022, icmp", says: "ok/ok"}, true},
	{kind{name: "all_quiet", text: "proto all; dest_ip QUIET", tries: "tcp 3389", says: "ok/ok"}, true},
	{kind{name: "all_quiet_odd", text: "proto all; dest_ip QUIET; src_ip 203.0.113.10", tries: "tcp 54321",
		says: "ok/ok"}, true},
	{kind{name: "all_off", text: "proto all; dest_ip OFF", tries: "tcp 80, icmp", says: "failed/failed"}, false},
	{kind{name: "all_near", text: "proto all; dest_ip NEAR", tries: "tcp 80, icmp", says: "warning/failed"}, false},
	{kind{name: "all_stern", text: "proto all; dest_ip STERN", tries: "tcp 80, icmp", says: "failed/failed"}, false},
	{kind{name: "all_away", text: "proto all; dest_ip AWAY", tries: "tcp 80, icmp", says: "warning/failed"}, false},
}

// section writes a forward.
func (k kind) section(options string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\nconfig forward '%s'\n", k.name)
	for option := range strings.SplitSeq(kindHosts.Replace(options), "; ") {
		name, value, _ := strings.Cut(option, " ")
		fmt.Fprintf(&b, "\toption %s '%s'\n", name, value)
	}
	return b.String()
}

// TestDoctorKinds compares the doctor's word on every kind of forward with what a client gets.
func TestDoctorKinds(t *testing.T) {
	for name, test := range map[string]func(*testing.T, *kindLab){
		"flows": func(t *testing.T, l *kindLab) { l.judge(t, working, true, func() {}) },
		"idle": func(t *testing.T, l *kindLab) {
			l.judge(t, idle, false, func() {
				for end, commands := range breaks {
					if _, err := map[string]*lab.Host{"vps": l.VPS, "router": l.Router}[end].Run("sh", "-ec",
						commands); err != nil {
						t.Fatal(err)
					}
				}
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newKindLab(t, name+"-"))
		})
	}
}

// TestDoctorEverything does the same with forwards of everything, each alone. Most of the time it waits, so there are
// two labs; with more, on a busy machine, the doctor did not see each test packet in time.
func TestDoctorEverything(t *testing.T) {
	const labs = 2
	for first := range labs {
		t.Run(alls[first].name, func(t *testing.T) {
			t.Parallel()
			l := newKindLab(t, alls[first].name+"-")
			for i := first; i < len(alls); i += labs {
				l.judge(t, []kind{alls[i].kind}, alls[i].flows, func() {})
			}
		})
	}
}

// TestDoctorHomes: two homes with the same addresses on one VPS. The VPS's answers to a probe of the second may go to
// the first, and it has no other line, but clients get through.
func TestDoctorHomes(t *testing.T) {
	fill := func(s string) string { return strings.ReplaceAll(s, "EGRESS", "replies") }
	r := newRelay(t, lab.Options{Second: true, Prefix: "homes-"}, fill(homeWeb))
	if _, err := r.VPS.Run("ip", "addr", "add", "198.51.100.145/24", "dev", "eth0"); err != nil {
		t.Fatal(err)
	}
	r.vps.write(fill(twoHomes))
	cabin := newEnd(t, r.CabinRouter, fill(cabinRelays))
	serveNamed(t, r.Host, "home", 80)
	serveNamed(t, r.CabinHost, "cabin", 80)
	r.up()
	cabin.do("up")
	for to, want := range map[string]string{public + ":80": "home", public + ":81": "cabin",
		"198.51.100.145:80": "cabin"} {
		said, conn, err := named(r.Client, "tcp4", 0, to)
		if err != nil || !strings.HasPrefix(said, want) {
			t.Errorf("%s: %q, %v, want %s", to, said, err, want)
		}
		if conn != nil {
			conn.Close()
		}
	}
	for _, c := range []struct {
		end   *end
		relay string
	}{{r.vps, "home"}, {r.vps, "cabin"}, {r.vps, "own"}, {r.router, "home"}, {cabin, "cabin"}, {cabin, "own"}} {
		states, text := verdicts(t, c.end, c.relay)
		for section, state := range states {
			if state != doctor.OK {
				t.Errorf("%s, %s, %s: %s\n%s", c.end.host.Name, c.relay, section, state, text)
			}
		}
	}
}

type kindLab struct{ *relay }

func newKindLab(t *testing.T, prefix string) *kindLab {
	r := newRelay(t, lab.Options{Prefix: prefix}, forwardWeb)
	for _, command := range []string{
		"for i in 220 221 222 223; do ip addr add 192.168.1.$i/24 dev eth0; done",
		"ip rule add from 192.168.1.222 to 192.168.1.0/24 lookup main priority 90",
		"ip rule add from 192.168.1.222 blackhole priority 91",
	} {
		if _, err := r.Host.Run("sh", "-ec", command); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Host.NFT(kindFirewall); err != nil {
		t.Fatal(err)
	}
	for _, h := range []*lab.Host{r.VPS, r.Router, r.Host, r.Host2} { // the kernel limits the rate of errors
		if err := h.Sysctl("net.ipv4.icmp_ratelimit", "0"); err != nil {
			t.Fatal(err)
		}
	}
	for _, port := range []int{23, 25, 80, 465, 466, 1039, 1101, 2050, 2202, 2250, 2410, 2706, 3001, 3389, 5003, 6005,
		7033, 7034, 7035, 7036, 7037, 7038, 7039, 7040, 8080, 50000, 54321} {
		serveTCP(t, r.Host, port)
	}
	for _, port := range []int{5000, 5003, 2550, 2612, 6005} {
		serveUDP(t, r.Host, port)
	}
	for _, port := range []int{80, 8015, 8017, 8018} {
		serveTCP(t, r.Host2, port)
	}
	serveUDP(t, r.Host2, 8016)
	serveTCP(t, r.LAN2, 80)
	serveTCP(t, r.Router, 8022)
	listener, err := r.Host.Listen("tcp4", "127.0.0.1:82")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	for address, secret := range map[string]string{"192.168.1.210:51820": "magic", "192.168.1.221:5500": "",
		"192.168.1.222:5500": ""} {
		serveSecret(t, r.Host, address, secret)
	}
	serveSecret(t, r.Router, "192.168.1.1:8022", "")
	for proto, secret := range map[int]string{47: "", 50: "magic", 253: ""} {
		serveRaw(t, r.Host, proto, func(p []byte) []byte {
			if !bytes.Contains(p, []byte(secret)) {
				return nil
			}
			return p
		})
	}
	serveRaw(t, r.Host, 132, func(p []byte) []byte {
		switch port := binary.BigEndian.Uint16(p[2:]); {
		case p[12] != 1: // INIT
			return nil
		case port == 5001 || port == 5102:
			return sctpAnswer(p, 2)
		}
		return sctpAnswer(p, 6)
	})
	return &kindLab{r}
}

// serveSecret echoes datagrams that contain a secret.
func serveSecret(t *testing.T, h *lab.Host, address, secret string) {
	t.Helper()
	conn, err := h.ListenPacket("udp4", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buffer := make([]byte, 2000)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			if bytes.Contains(buffer[:n], []byte(secret)) {
				conn.WriteTo(buffer[:n], from)
			}
		}
	}()
}

// rawSocket receives the packets of a protocol, with a time limit.
func rawSocket(h *lab.Host, proto int, limit time.Duration) (socket int, err error) {
	err = h.Do(func() error {
		socket, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto)
		if err == nil {
			timeout := unix.NsecToTimeval(limit.Nanoseconds())
			err = unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout)
		}
		return err
	})
	return socket, err
}

// receiveRaw returns what follows the IP header of the next packet.
func receiveRaw(socket int) (payload []byte, from netip.Addr, err error) {
	buffer := make([]byte, 2000)
	n, _, err := unix.Recvfrom(socket, buffer, 0)
	if err != nil || n < 20 {
		return nil, from, err
	}
	return buffer[int(buffer[0]&15)*4 : n], netip.AddrFrom4([4]byte(buffer[12:])), nil
}

// serveRaw answers packets of a protocol to a host's first address.
func serveRaw(t *testing.T, h *lab.Host, proto int, answer func([]byte) []byte) {
	t.Helper()
	socket, err := rawSocket(h, proto, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(stop); <-stopped; unix.Close(socket) })
	go func() {
		defer close(stopped)
		for {
			payload, from, err := receiveRaw(socket)
			select {
			case <-stop:
				return
			default:
			}
			if err == nil && payload != nil {
				if p := answer(payload); p != nil {
					unix.Sendto(socket, p, 0, &unix.SockaddrInet4{Addr: from.As4()})
				}
			}
		}
	}()
}

// sctpAnswer answers an INIT with a chunk: INIT ACK (2) or ABORT (6).
func sctpAnswer(init []byte, kind byte) []byte {
	p := slices.Concat(init[2:4], init[:2], init[16:20], make([]byte, 4), []byte{kind, 0, 0, 4})
	if kind == 2 {
		p = append(p[:12], kind, 0, 0, 20, 0, 0, 0, 9, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1)
	}
	binary.LittleEndian.PutUint32(p[8:], crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)))
	return p
}

// kindTime is how long a client waits.
const kindTime = 3 * time.Second

// gets reports whether a client gets an answer.
func (l *kindLab) gets(try string) bool {
	what, port, _ := strings.Cut(try, " ")
	switch what {
	case "tcp", "udp":
		conn, err := l.Client.Dial(what+"4", public+":"+port, kindTime)
		if err != nil {
			return false
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(kindTime))
		if what == "udp" {
			conn.Write([]byte("magic"))
		}
		n, err := conn.Read(make([]byte, 100))
		return (err == nil || err == io.EOF) && n > 0
	case "icmp":
		_, err := l.Client.Run("ping", "-4", "-n", "-c", "1", "-W", "3", public)
		return err == nil
	}
	proto, payload := 132, []byte("\x00\x00\x08\x00magic") // a header of GRE
	var number uint16
	fmt.Sscan(port, &number)
	if what == "raw" {
		proto = int(number)
	} else {
		payload = sctpInit(6000, number)
	}
	socket, err := rawSocket(l.Client, proto, kindTime)
	if err != nil {
		return false
	}
	defer unix.Close(socket)
	to := netip.MustParseAddr(public)
	if unix.Sendto(socket, payload, 0, &unix.SockaddrInet4{Addr: to.As4()}) != nil {
		return false
	}
	for deadline := time.Now().Add(kindTime); time.Now().Before(deadline); {
		answer, from, err := receiveRaw(socket)
		if err == nil && from == to && (what == "raw" || len(answer) > 12 && answer[12] == 2 &&
			binary.BigEndian.Uint16(answer) == number) {
			return true
		}
	}
	return false
}

// worst orders the doctor's results.
var worst = []doctor.State{doctor.OK, doctor.Skipped, doctor.Warning, doctor.Failed}

// verdicts are the worst that the doctor says at an end of each forward, and all of it as text. The tunnel works.
func verdicts(t *testing.T, e *end, relay string) (states map[string]doctor.State, text string) {
	states = map[string]doctor.State{}
	err := e.host.Do(func() error {
		d := doctor.New((&app{path: e.config, run: e.runDir()}).examined())
		for _, check := range []string{"tunnel", "forward", "host", "answer"} {
			f, err := d.Run(check, relay)
			if err != nil {
				return err
			}
			if check == "tunnel" && f.State == doctor.Failed {
				t.Errorf("%s, %s: %s", e.host.Name, relay, f.Evidence)
			}
			for _, part := range f.Parts {
				text += fmt.Sprintf("%s %s %s: %s: %s\n", e.host.Name, check, part.Section, part.State, part.Evidence)
				if was, ok := states[part.Section]; !ok || slices.Index(worst, part.State) > slices.Index(worst, was) {
					states[part.Section] = part.State
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return states, text
}

// judge brings up forwards, breaks some, and compares.
func (l *kindLab) judge(t *testing.T, kinds []kind, flows bool, breakThem func()) {
	t.Helper()
	vps, router := vpsRelay+"\tlist keep 'tcp:3000'\n", routerRelay
	for _, k := range kinds {
		vps += k.section(k.text)
		switch k.here {
		case "":
			router += k.section(k.text)
		case "-":
		case "enabled 0":
			router += k.section(k.text + "; enabled 0")
		default:
			router += k.section(k.here)
		}
	}
	l.vps.t, l.router.t = t, t
	l.vps.write(strings.ReplaceAll(vps, "\toption killswitch '1'\n", ""))
	l.router.write(router)
	l.up()
	breakThem()

	got := make([]bool, len(kinds))
	var clients sync.WaitGroup
	for i, k := range kinds {
		clients.Add(1)
		go func() {
			defer clients.Done()
			for try := range strings.SplitSeq(k.tries, ", ") {
				got[i] = l.gets(try)
				if got[i] != flows {
					return
				}
			}
		}()
	}
	clients.Wait()
	var atVPS, atRouter map[string]doctor.State
	var vpsText, routerText string
	var ends sync.WaitGroup
	ends.Add(1)
	go func() {
		defer ends.Done()
		atVPS, vpsText = verdicts(t, l.vps, "home")
	}()
	ends.Add(1)
	go func() {
		defer ends.Done()
		atRouter, routerText = verdicts(t, l.router, "home")
	}()
	ends.Wait()
	for i, k := range kinds {
		if got[i] != flows {
			t.Errorf("%s: a client that tries %s gets an answer: %v, want %v", k.name, k.tries, got[i], flows)
		}
		here := func(states map[string]doctor.State) string {
			if state, ok := states[k.name]; ok {
				return string(state)
			}
			return "-"
		}
		says := here(atVPS) + "/" + here(atRouter)
		if flows && strings.Contains(says, "failed") || !flows && says == "ok/ok" {
			t.Errorf("%s: the doctor says %s, and traffic flows: %v", k.name, says, got[i])
		}
		if says != k.says {
			t.Errorf("%s: the doctor says %s, want %s", k.name, says, k.says)
			for line := range strings.SplitSeq(vpsText+routerText, "\n") {
				if strings.Contains(line, " "+k.name+": ") {
					t.Log(line)
				}
			}
		}
	}
}
