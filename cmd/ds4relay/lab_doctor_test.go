//go:build lab

package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/doctor"
	"github.com/ds4relay/ds4relay/internal/lab"
)

// fault is a fault, and what doctor must report first.
type fault struct {
	name   string
	inject []string     // "HOST: COMMAND", `ds4relay …` too
	check  string       // the check that fails first
	state  doctor.State // "" for failed
	says   string       // in its evidence
	remedy string       // in its remedy
	// repair applies the remedy; without it, the commands in backquotes in the remedy are run at that end.
	repair []string
	clean  []string // commands to clean up
}

const (
	mistake  = "file: s/198.51.100.144/10.0.0.1/"
	astray   = "ip6 daddr 2001:db8:fdd2::/56"
	aftr     = "2001:db8:af::1" // the router's DS-Lite line is protocol 4 too
	backward = "ip6 saddr 2001:db8:fdd2::/56"
)

// filter creates an nft table with one chain, which is the fault.
func filter(host, family, hook, policy, rules string) string {
	return fmt.Sprintf("%s: nft -f - <<'E'\ntable %s filter {\n chain %s { type filter hook %s priority 0; policy "+
		"%s; %s\n }\n}\nE", host, family, hook, hook, policy, rules)
}

func unfilter(host, family string) string {
	return fmt.Sprintf("%s: nft delete table %s filter", host, family)
}

// atBoth are tested at both ends. What is missing or changed has one check, whose evidence is the steps that TestDrift
// tries one by one. END stands for that end's name, OTHER for the other's.
var atBoth = []fault{
	{name: "a mistake in the file", inject: []string{"END: " + mistake}, check: "config",
		says: `option ipaddr "10.0.0.1"`, remedy: "correct line 3 of", repair: []string{"END: file:"}},
	{name: "not brought up", inject: []string{"END: ds4relay down"}, check: "installed", says: "ip link add"},
	{name: "tunnel switched off", inject: []string{"END: ip link set wrap1 down"}, check: "installed", says: "ip"},
	{name: "device's name taken", inject: []string{"END: ds4relay down", "END: ip link add wrap1 type dummy"},
		check: "installed", says: "there is a device wrap1 already", remedy: "ds4relay up",
		repair: []string{"END: ip link del wrap1", "END: ds4relay up"}},
	{name: "no IPv6 route", inject: []string{"END: ip -6 route save default >/tmp/default-END",
		"END: ip -6 route del default"}, check: "peer",
		says: "no IPv6 route", remedy: "bring the IPv6 line up",
		repair: []string{"END: ip -6 route restore </tmp/default-END"}},
	{name: "other end not up", inject: []string{"OTHER: ds4relay down"}, check: "peer", says: "does not answer ping",
		remedy: "has to be up", repair: []string{"OTHER: ds4relay up"}},
	{name: "wrong peeraddr", inject: []string{"END: file: s/peeraddr '\\(.*\\)::.64'/peeraddr '\\1::1234'/",
		"END: ds4relay up"}, check: "peer",
		says: "::1234 does not answer ping", remedy: "correct option peeraddr",
		repair: []string{"END: file:", "END: ds4relay up"}},
	{name: "other end expects another peer",
		inject: []string{"OTHER: ip link change dev wrap1 type ip6tnl remote 2001:db8:77::1 encaplimit none"},
		check:  "tunnel", says: "which refuses them", remedy: "peeraddr has to be",
		repair: []string{"OTHER: ds4relay up"}},
	{name: "protocol 4 filtered on the way",
		inject: []string{filter("core", "ip6", "forward", "accept", "meta l4proto 4 drop")}, check: "tunnel",
		says: "no packet in", remedy: "allow IP protocol 4", repair: []string{unfilter("core", "ip6")}},
	{name: "protocol 4 filtered towards the home",
		inject: []string{filter("core", "ip6", "forward", "accept", "meta l4proto 4 "+astray+" drop")}, check: "tunnel",
		says: "comes back", remedy: "allow IP protocol 4", repair: []string{unfilter("core", "ip6")}},
	{name: "all IPv6 refused on the way", inject: []string{"core: ip -6 route add prohibit ENDPOINT/128"},
		check: "peer", says: "says: destination unreachable",
		repair: []string{"core: ip -6 route del prohibit ENDPOINT/128"}},
	{name: "own firewall, in",
		inject: []string{filter("END", "inet", "input", "drop", "meta l4proto { icmp, icmpv6, tcp, udp } accept; "+
			"ip6 saddr "+aftr+" accept")}, check: "tunnel", says: "drops them (nft table inet filter, the policy of " +
			"chain input)", clean: []string{unfilter("END", "inet")}},
	{name: "own firewall, out",
		inject: []string{filter("END", "inet", "output", "accept", "meta l4proto 4 ip6 daddr != "+aftr+" drop")},
		check:  "tunnel", says: "no packet out: this machine's firewall drops protocol 4 (nft table inet filter, a " +
			"rule of chain output)", clean: []string{unfilter("END", "inet")}},
	{name: "large packets to the home lost",
		inject: []string{filter("core", "ip6", "forward", "accept", "meta l4proto { 4, icmpv6 } meta length > 1420 "+
			astray+" drop")}, check: "mtu", says: "nothing says so",
		repair: []string{"mtu", "vps: ds4relay up", "router: ds4relay up"},
		clean: []string{unfilter("core", "ip6"), "vps: file:", "router: file:", "vps: ds4relay up",
			"router: ds4relay up"}},
	{name: "own firewall, forwarding", inject: []string{filter("END", "inet", "forward", "drop", "")}, check: "forward",
		says:  "drops it (nft table inet filter, the policy of chain forward)",
		clean: []string{unfilter("END", "inet")}},
	{name: "host switched off", inject: []string{"host: ip link set eth0 down", "router: ip neigh flush dev br-lan"},
		check: "host", remedy: "switch 192.168.1.210 on",
		// A bridge forwards on a port up to a second after it came up.
		repair: []string{"host: ip link set eth0 up", "host: ip route add default via 192.168.1.1", answers}},
	{name: "service not running",
		inject: []string{filter("host2", "ip", "input", "accept", "tcp dport 80 reject with tcp reset; "+
			"udp dport 80 reject")}, check: "host",
		says: "forward web: 192.168.1.211:80 refuses", remedy: "start the service",
		repair: []string{unfilter("host2", "ip")}},
}

var atVPS = []fault{
	{name: "a forward removed",
		inject: []string{"END: nft delete element ip ds4relay port_forward { 198.51.100.144 . tcp . 8080 }"},
		check:  "installed", says: "nft"},
	{name: "large packets from the home lost",
		inject: []string{filter("core", "ip6", "forward", "accept", "meta l4proto { 4, icmpv6 } meta length > 1420 "+
			backward+" drop")}, check: "mtu", says: "from the router at home are lost",
		repair: []string{"mtu", "vps: ds4relay up", "router: ds4relay up"},
		clean: []string{unfilter("core", "ip6"), "vps: file:", "router: file:", "vps: ds4relay up",
			"router: ds4relay up"}},
	{name: "a container has the port", inject: []string{"END: ip link add docker0 type dummy",
		"END: ip addr add 172.17.0.1/16 dev docker0", "END: ip link set docker0 up", "END: nft -f - <<'E'\ntable ip " +
			"nat {\n chain DOCKER { tcp dport 8080 dnat to 172.17.0.2:80; }\n chain PREROUTING { type nat hook " +
			"prerouting priority -102; jump DOCKER; }\n}\nE"},
		check: "forward", says: "leaves by docker0 to 172.17.0.2 instead of by wrap1 (nft table ip nat, chain " +
			"DOCKER, comes first)", remedy: "published by a container",
		repair: []string{"END: nft delete table ip nat"}, clean: []string{"END: ip link del docker0"}},
	{name: "the VPS takes the port",
		inject: []string{"END: nft -f - <<'E'\ntable ip own {\n chain pre { type nat hook prerouting priority -101; " +
			"tcp dport 8080 redirect to :22; }\n}\nE"}, check: "forward", says: "this machine answers a client's " +
			"packet itself (nft table ip own, chain pre, comes first)", remedy: "remove the rule",
		repair: []string{"END: nft delete table ip own"}},
	{name: "no default route", inject: []string{"END: ip route save default >/tmp/default4-END",
		"END: ip route del default"}, check: "answer", says: "no IPv4 route to clients",
		remedy: "add the default route", repair: []string{"END: ip route restore </tmp/default4-END"}},
	{name: "no default route, and rp_filter", inject: []string{"END: sysctl -q -w net.ipv4.conf.eth0.rp_filter=1",
		"END: ip route save default >/tmp/default4-END", "END: ip route del default"}, check: "forward",
		says: "no IPv4 route to clients", repair: []string{"END: ip route restore </tmp/default4-END"},
		clean: []string{"END: sysctl -q -w net.ipv4.conf.eth0.rp_filter=0"}},
	{name: "a cloud that translates the address", inject: []string{"END: ip addr add 10.0.0.5/24 dev eth0",
		"END: ip addr del 198.51.100.144/24 dev eth0", "END: ip route replace 198.51.100.1 dev eth0",
		"END: ip route replace default via 198.51.100.1"}, check: "installed", says: "nft", remedy: "ds4relay up",
		repair: []string{"END: ip addr add 198.51.100.144/24 dev eth0", "END: ip addr del 10.0.0.5/24 dev eth0",
			"END: ip route replace default via 198.51.100.1", "END: ip route del 198.51.100.1 dev eth0"}},
	{name: "no device of that name", inject: []string{"END: ds4relay down", "END: file: s/eth0/eth9/"},
		check: "endpoints", says: "there is no device eth9", remedy: "correct what it names",
		repair: []string{"END: file:", "END: ds4relay up"}},
	{name: "router has other hosts", inject: []string{"OTHER: file: s/192.168.1.21/192.168.1.9/", "OTHER: ds4relay up"},
		check: "tunnel", says: "arrive at the router at home, and no answer comes back",
		remedy: "compare the forwards of both ends", repair: []string{"OTHER: file:", "OTHER: ds4relay up"}},
	{name: "router's prefix has changed",
		inject: []string{"OTHER: file: s/fdd2::/fdd2:1::/", "OTHER: ds4relay up"}, check: "peer",
		says: "does not answer ping", remedy: "the prefix of the home may have changed",
		repair: []string{"OTHER: file:", "OTHER: ds4relay up"}},
	{name: "strict rp_filter", inject: []string{"END: sysctl -q -w net.ipv4.conf.eth0.rp_filter=1",
		"END: ip link add other type dummy", "END: ip link set other up", "END: ip route add 192.0.2.0/24 dev other"},
		check: "forward", says: "rp_filter drops it", clean: []string{"END: ip link del other"}},
	{name: "table of connections full", inject: []string{"END: ping -c 1 -W 2 198.51.100.1 >/tmp/ping", "max: 1"},
		check: "conntrack", says: "new ones are dropped", remedy: "sysctl -w net.netfilter.nf_conntrack_max=4",
		repair: []string{"max: 65536"}},
	{name: "host's firewall", inject: []string{filter("host", "ip", "input", "drop", "ip saddr 192.168.1.0/24 accept")},
		check: "host", state: doctor.Warning, says: "192.168.1.210 does not answer, though packets come to the router",
		remedy: "`ds4relay doctor` on the router", repair: []string{unfilter("host", "ip")}},
}

var atRouter = []fault{
	{name: "endpoint removed", inject: []string{"END: ip -6 addr del 2001:db8:fdd2:0:198:51:100:144/128 dev wrap1"},
		check: "installed", says: "ip -6 addr add 2001:db8:fdd2:0:198:51:100:144/128"},
	{name: "somebody else's route in our table",
		inject: []string{"END: ip route add 10.0.0.0/8 dev ds-wan6_4 table 42"}, check: "installed",
		says: "table 42 has a route to 10.0.0.0/8", repair: []string{"END: ip route del 10.0.0.0/8 table 42",
			"END: ds4relay up"}},
	{name: "prefix not routed", inject: []string{"isp: ip -6 route del 2001:db8:fdd2::/56"}, check: "routed",
		says: "answers to it do not arrive", remedy: "write a prefix that wan has",
		repair: []string{"isp: ip -6 route add 2001:db8:fdd2::/56 via 2001:db8:fdd1::2"}},
	{name: "prefix has changed", inject: []string{"OTHER: file: s/fdd2::/fdd7::/", "OTHER: ds4relay up"},
		check: "tunnel", says: "no packet in", remedy: "at the VPS option peeraddr has to be " +
			"2001:db8:fdd2:0:198:51:100:144", repair: []string{"OTHER: file:", "OTHER: ds4relay up"}},
	{name: "VPS has other hosts", inject: []string{"OTHER: file: s/192.168.1.21/192.168.1.9/", "OTHER: ds4relay up"},
		check: "tunnel", says: "the VPS sends packets to 192.168.1.90 by the tunnel, and no forward here has that host",
		remedy: "the same address into option dest_ip", repair: []string{"OTHER: file:", "OTHER: ds4relay up"}},
	{name: "line down", inject: []string{"END: ip link set wan down"}, check: "peer", says: "no IPv6 route",
		repair: []string{"END: ip link set wan up", "END: ip -6 addr replace 2001:db8:fdd1::2/64 dev wan",
			"END: ip -6 route replace default via 2001:db8:fdd1::1"}},
	{name: "forward not in the VPS's file", inject: []string{"OTHER: file: /forward .web./,$d", "OTHER: ds4relay up"},
		check: "internet", says: "the VPS sends packets to 198.51.100.144:8080 by the tunnel to 192.168.1.210:8080, " +
			"not to 192.168.1.211:80", remedy: "give forward web the same values at both ends",
		repair: []string{"OTHER: file:", "OTHER: ds4relay up"}},
	{name: "the VPS answers itself",
		inject: []string{"OTHER: nft -f - <<'E'\ntable ip own {\n chain pre { type nat hook prerouting priority " +
			"-101; tcp dport 8080 redirect to :9; }\n}\nE"}, check: "internet",
		says:   "198.51.100.144:8080 answers, but nothing comes in by wrap1",
		remedy: "on the VPS forward web", repair: []string{"OTHER: nft delete table ip own"}},
	{name: "somebody else's rule", inject: []string{"END: ip rule add priority 100 from 192.168.1.0/24 lookup main"},
		check: "forward", says: "rp_filter drops it", remedy: "a rule of another program comes before ours",
		repair: []string{"END: ip rule del priority 100"}},
	{name: "LAN address changed", inject: []string{"host: ip addr del 192.168.1.210/24 dev eth0",
		"host: ip addr add 192.168.1.99/24 dev eth0"}, check: "host",
		says: "nobody on br-lan has the address 192.168.1.210", remedy: "correct option dest_ip",
		repair: []string{"host: ip addr del 192.168.1.99/24 dev eth0", "host: ip addr add 192.168.1.210/24 dev eth0",
			"host: ip route replace default via 192.168.1.1"}},
	// Packets to it make the kernel ask again as soon as it has given up.
	{name: "host switched off, under traffic",
		inject: []string{"host: ip link set eth0 down", "router: ip neigh flush dev br-lan",
			"router: timeout 30 ping -q -i 0.05 192.168.1.210 >/dev/null 2>&1 &"}, check: "host",
		says: "nobody on br-lan has the address 192.168.1.210", remedy: "switch 192.168.1.210 on",
		repair: []string{"host: ip link set eth0 up", "host: ip route add default via 192.168.1.1", answers}},
	{name: "host's firewall lets in neighbours only",
		inject: []string{filter("host", "ip", "input", "drop", "ip saddr 192.168.1.0/24 accept")}, check: "host",
		says: "answers this router, but not a client", remedy: "its firewall has to let in addresses beyond the LAN",
		repair: []string{unfilter("host", "ip")}},
	{name: "host without gateway", inject: []string{"host: ip route del default"}, check: "host",
		says: "answers this router, but not a client", remedy: "default gateway has to be this router",
		repair: []string{"host: ip route add default via 192.168.1.1"}},
	{name: "host's firewall lets in nobody", inject: []string{filter("host", "ip", "input", "drop", "")}, check: "host",
		state: doctor.Warning, says: "answers neither a client nor this router", remedy: "let it in",
		repair: []string{unfilter("host", "ip")}},
	{name: "VPS's provider filters",
		inject: []string{filter("core", "ip", "forward", "accept", "oifname \"vps\" drop")}, check: "internet",
		says: "does not answer from the internet", remedy: "firewall of the VPS's provider",
		repair: []string{unfilter("core", "ip")}},
	{name: "VPS does not forward", inject: []string{filter("vps", "inet", "forward", "drop", "")}, check: "internet",
		says: "does not answer from the internet", remedy: "`ds4relay doctor` on the VPS",
		repair: []string{unfilter("vps", "inet")}},
}

// answers waits for a host that was off: the first attempt may get an earlier error.
const answers = "router: for i in $(seq 100); do ping -q -c 1 -W 1 192.168.1.210 && exit; sleep 0.1; done; exit 1"

// doctorLab is a relay for injecting faults.
type doctorLab struct {
	*relay
	hosts map[string]*lab.Host
	files map[string]string
}

// TestDoctor injects one fault after the other: doctor names each first, and its remedy removes it. The test mostly
// waits for missing answers, so it runs in four labs at the same time.
func TestDoctor(t *testing.T) {
	var machine sync.RWMutex // for faults that concern the whole machine's kernel
	half := len(atBoth) / 2
	shared := map[string][]fault{"vps": atBoth[:half], "router": atBoth[half:]} // one end finds what the other would
	for end, own := range map[string][]fault{"vps": atVPS, "router": atRouter} {
		for i, faults := range [][]fault{own, shared[end]} { // a third of the time is waiting
			t.Run(fmt.Sprintf("%s %d", end, i+1), func(t *testing.T) {
				t.Parallel()
				newDoctorLab(t, fmt.Sprintf("%s%d-", end, i)).try(t, end, faults, &machine)
			})
		}
	}
}

func newDoctorLab(t *testing.T, prefix string) *doctorLab {
	r := newRelay(t, lab.Options{Prefix: prefix}, forwardAll+forwardWeb)
	l := &doctorLab{r, map[string]*lab.Host{"vps": r.VPS, "router": r.Router, "host": r.Host, "host2": r.Host2,
		"core": r.Core, "isp": r.ISP},
		map[string]string{"vps": vpsRelay + forwardAll + forwardWeb, "router": routerRelay + forwardAll + forwardWeb}}
	serveTCP(t, r.Host2, 80)
	serveUDP(t, r.Host2, 80)
	r.up()
	// The kernel limits the rate of errors, and consecutive runs need many.
	for _, h := range []*lab.Host{r.VPS, r.Router} {
		if err := h.Sysctl("net.ipv4.icmp_ratelimit", "0"); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func (l *doctorLab) try(t *testing.T, end string, faults []fault, machine *sync.RWMutex) {
	if first, _ := l.ask(t, end); first.State != doctor.OK {
		t.Fatalf("%s, without a fault: %+v", end, first)
	}
	endpoints := map[string]string{"vps": vpsEndpoint.String(), "router": routerEndpoint.String()}
	other := map[string]string{"vps": "router", "router": "vps"}[end]
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			if slices.ContainsFunc(f.inject, func(step string) bool { return strings.HasPrefix(step, "max: ") }) {
				machine.Lock()
				defer machine.Unlock()
			} else {
				machine.RLock()
				defer machine.RUnlock()
			}
			l.vps.t, l.router.t = t, t
			name := strings.NewReplacer("OTHER", other, "ENDPOINT", endpoints[other], "END", end)
			l.run(t, name, f.inject, "")
			first, all := l.ask(t, end)
			if first.ID != f.check || !strings.Contains(first.Evidence, f.says) ||
				!strings.Contains(first.Remedy, f.remedy) || first.State != cmp.Or(f.state, doctor.Failed) {
				t.Errorf("doctor says first: %s %s: %s\n→ %s\nwant %s: …%s… → …%s…\n%s", first.State, first.ID,
					first.Evidence, first.Remedy, f.check, f.says, f.remedy, all)
			}
			repair := f.repair
			if repair == nil {
				for _, command := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(first.Remedy, -1) {
					repair = append(repair, "END: "+command[1])
				}
			}
			l.run(t, name, repair, first.Remedy)
			if f.repair == nil { // else the next fault finds what is left of this one
				l.mended(t, end)
			}
			l.run(t, name, f.clean, "")
		})
		if t.Failed() {
			t.Fatal("the next faults would stand on this one")
		}
	}
	l.vps.t, l.router.t = t, t
	l.mended(t, end)
}

// mended checks that the doctor finds nothing.
func (l *doctorLab) mended(t *testing.T, end string) {
	t.Helper()
	if after, all := l.ask(t, end); after.State != doctor.OK {
		t.Errorf("after the remedy: %s %s: %s\n%s", after.State, after.ID, after.Evidence, all)
	}
}

// ask runs doctor at an end and returns the first finding that is not ok, or an ok one if all are.
func (l *doctorLab) ask(t *testing.T, end string) (first doctor.Finding, all string) {
	t.Helper()
	code, out, problems := l.end(end).try("doctor", "--json")
	var answer struct {
		OK     bool
		Checks []doctor.Finding
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatalf("%v\n%s%s", err, out, problems)
	}
	if answer.OK != (code == 0) {
		t.Errorf("exit status %d with ok %v", code, answer.OK)
	}
	first = answer.Checks[0]
	for i := len(answer.Checks) - 1; i >= 0; i-- {
		if c := answer.Checks[i]; c.State == doctor.Failed || c.State == doctor.Warning {
			first = c
		}
	}
	return first, out
}

func (l *doctorLab) end(name string) *end {
	if name == "vps" {
		return l.vps
	}
	return l.router
}

func (l *doctorLab) run(t *testing.T, name *strings.Replacer, steps []string, remedy string) {
	t.Helper()
	for _, step := range steps {
		step = name.Replace(step)
		host, command, _ := strings.Cut(step, ": ")
		switch {
		case step == "mtu": // as the remedy says, at both ends
			mtu := regexp.MustCompile(`option mtu '\d+'`).FindString(remedy)
			for _, end := range []string{"vps", "router"} {
				l.end(end).write(strings.Replace(l.files[end], "\n", "\n\t"+mtu+"\n", 1))
			}
		case host == "max":
			setGlobal(t, conntrackMax, command)
		case command == "file:":
			l.end(host).write(l.files[host])
		case strings.HasPrefix(command, "file: "):
			out, err := l.hosts[host].RunInput(l.files[host], "sed", strings.TrimPrefix(command, "file: "))
			if err != nil {
				t.Fatal(err)
			}
			l.end(host).write(out)
		case strings.HasPrefix(command, "ds4relay "):
			l.end(host).do(append([]string{"-q"}, strings.Fields(command)[1:]...)...)
		default:
			if _, err := l.hosts[host].Run("sh", "-c", command); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestDoctorPorts: all is well with a relay that only forwards ports, with TCP test packets.
func TestDoctorPorts(t *testing.T) {
	r := newRelay(t, lab.Options{}, forwardWeb)
	serveTCP(t, r.Host2, 80)
	serveUDP(t, r.Host2, 80)
	r.up()
	for name, end := range map[string]*end{"vps": r.vps, "router": r.router} {
		if code, out, _ := end.try("doctor"); code != 0 {
			t.Errorf("%s:\n%s", name, out)
		}
	}
}

// TestDoctorWithoutBPF: on a router whose kernel has no bpf(2), test packets arrive on lo.
func TestDoctorWithoutBPF(t *testing.T) {
	r := newRelay(t, lab.Options{}, forwardAll)
	r.up()
	var out, problems bytes.Buffer
	code := 0
	r.Router.Do(func() error { // the thread, which has lost rights, ends afterwards
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&header, &data[0]); err != nil {
			t.Error(err)
		}
		for _, capability := range []uint{unix.CAP_SYS_ADMIN, unix.CAP_BPF} {
			data[capability/32].Effective &^= 1 << (capability % 32)
			data[capability/32].Permitted &^= 1 << (capability % 32)
		}
		if err := unix.Capset(&header, &data[0]); err != nil {
			t.Error(err)
		}
		a := &app{stdout: &out, stderr: &problems, env: func(string) string { return "" }}
		code = a.main([]string{"-c", r.router.config, "--run", r.router.runDir(), "doctor"})
		return nil
	})
	if code != 0 ||
		!strings.Contains(out.String(), "ok       home: The answer goes back through the tunnel: 192.168.1.210: "+
			"into the tunnel wrap1") {
		t.Errorf("doctor: %d\n%s%s", code, out.String(), problems.String())
	}
}
