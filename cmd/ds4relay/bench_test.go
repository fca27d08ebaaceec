//go:build lab && bench

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/ds4relay/ds4relay/internal/lab"
)

// repetitions of every measurement; the output has medians, and ratios of medians.
const repetitions = 7

func median[T time.Duration | float64](values []T) T {
	slices.Sort(values)
	return values[len(values)/2]
}

// TestBenchUp compares `up` from nothing with the same steps typed as commands, both as processes of their own.
func TestBenchUp(t *testing.T) {
	binary := os.Getenv("DS4RELAY_BINARY")
	if binary == "" {
		t.Fatal("DS4RELAY_BINARY names no program; run this with make bench")
	}
	r := newRelay(t, lab.Options{}, forwardAll)
	for _, e := range []*end{r.vps, r.router} {
		script := "set -e\n" + e.do("plan")
		var program, typed []time.Duration
		for range repetitions {
			start := time.Now()
			if _, err := e.host.Run(binary, "-c", e.config, "--run", e.runDir(), "-q", "up"); err != nil {
				t.Fatal(err)
			}
			program = append(program, time.Since(start))
			e.do("down")
			start = time.Now()
			if _, err := e.host.RunInput(script, "sh"); err != nil {
				t.Fatal(err)
			}
			typed = append(typed, time.Since(start))
			e.do("down")
		}
		a, b := median(program), median(typed)
		fmt.Printf("up from nothing, %s: %v; the same steps as %d commands: %v; ratio %.2f\n", e.host.Name,
			a.Round(time.Millisecond), strings.Count(script, "\nip ")+strings.Count(script, "\nnft ")+
				strings.Count(script, "\nsysctl "), b.Round(time.Millisecond), float64(a)/float64(b))
	}
}

// byHand is the relay as people who know nft set it up: a tunnel without an encapsulation limit, DNAT, SNAT and MSS
// clamp on the VPS, connection marks for the answers and MSS clamp on the router. It has no filter.
var byHand = map[string]string{
	"vps": `
ip -6 addr add 2001:db8:6ef9:0:198:51:100:144/128 dev eth0 preferred_lft 0
ip link add wrap1 type ip6tnl mode ipip6 local 2001:db8:6ef9:0:198:51:100:144 remote 2001:db8:fdd2:0:198:51:100:144 \
	encaplimit none
ip link set wrap1 mtu 1460 up
ip route add 192.168.1.210 dev wrap1
sysctl -qw net.ipv4.ip_forward=1
nft -f - <<EOF
table ip byhand {
	chain prerouting {
		type nat hook prerouting priority dstnat;
		ip daddr 198.51.100.144 tcp dport != 22 dnat to 192.168.1.210
	}
	chain postrouting {
		type nat hook postrouting priority srcnat;
		oifname eth0 ip saddr 192.168.1.210 snat to 198.51.100.144
	}
	chain forward { type filter hook forward priority mangle; tcp flags syn tcp option maxseg size set rt mtu; }
}
EOF
`,
	"vps down": "ip link del wrap1; ip -6 addr del 2001:db8:6ef9:0:198:51:100:144/128 dev eth0; nft delete table ip " +
		"byhand; sysctl -qw net.ipv4.ip_forward=0\n",
	"router": `
ip link add wrap1 type ip6tnl mode ipip6 local 2001:db8:fdd2:0:198:51:100:144 remote 2001:db8:6ef9:0:198:51:100:144 \
	encaplimit none
ip -6 addr add 2001:db8:fdd2:0:198:51:100:144/128 dev wrap1
ip link set wrap1 mtu 1460 up
ip route add default dev wrap1 table 42
ip rule add fwmark 0x42 lookup 42
nft -f - <<EOF
table ip byhand {
	chain prerouting {
		type filter hook prerouting priority mangle;
		iifname wrap1 ct mark set 0x42
		iifname br-lan meta mark set ct mark
	}
	chain forward {
		type filter hook forward priority mangle;
		oifname wrap1 tcp flags syn tcp option maxseg size set 1420
	}
}
EOF
`,
	"router down": "ip link del wrap1; ip rule del fwmark 0x42 lookup 42; nft delete table ip byhand\n",
}

const (
	benchBytes = 48 << 20
	benchTrips = 400
)

// Single packets are sent in several parts, with a pause before each. After many packets, a kernel whose only CPU runs
// all the machines defers them to a thread (ksoftirqd). Without a pause this also applies to the few that follow, which
// then wait for the thread.
const (
	parts = 5
	rest  = 100 * time.Millisecond
)

// figures are the results of one run over one path.
type figures struct{ up, down, trip float64 } // bytes a second, bytes a second, seconds

func measure(t *testing.T, r *relay, to string, size, count int64) (f figures) {
	t.Helper()
	dial := func() (conn io.ReadWriteCloser) {
		for attempt := 0; ; attempt++ {
			c, err := r.Client.Dial("tcp", to, patience)
			switch {
			case err == nil:
				c.SetDeadline(time.Now().Add(2 * time.Minute))
				return c
			case !errors.Is(err, syscall.ECONNREFUSED) || attempt == 100:
				t.Fatal(err)
			}
			t.Log(err) // the last child of a killed socat was still listening while we waited for its successor
			time.Sleep(200 * time.Millisecond)
		}
	}
	one := make([]byte, 1)
	ask := func(what byte, n int64) io.ReadWriteCloser {
		c := dial()
		fmt.Fprintf(c, "%c%010d", what, n)
		return c
	}
	c := ask('u', size)
	start := time.Now()
	io.CopyN(c, zeros{}, size)
	io.ReadFull(c, one)
	f.up = float64(size) / time.Since(start).Seconds()
	c.Close()
	c = ask('d', size)
	start = time.Now()
	if n, err := io.CopyN(io.Discard, c, size); err != nil {
		t.Fatal(n, err)
	}
	f.down = float64(size) / time.Since(start).Seconds()
	c.Close()
	var trips []float64
	for range parts {
		time.Sleep(rest)
		c = ask('e', count/parts)
		for range count / parts {
			start = time.Now()
			c.Write(one)
			if _, err := io.ReadFull(c, one); err != nil {
				t.Fatal(err)
			}
			trips = append(trips, time.Since(start).Seconds())
		}
		c.Close()
	}
	f.trip = median(trips)
	return f
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// benchServer receives, sends or echoes, depending on the first eleven bytes of a connection.
func benchServer(t *testing.T, h *lab.Host) {
	t.Helper()
	listener, err := h.Listen("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				var what byte
				var n int64
				head := make([]byte, 11)
				if _, err := io.ReadFull(c, head); err != nil {
					return
				}
				fmt.Sscanf(string(head), "%c%d", &what, &n)
				switch what {
				case 'u':
					io.CopyN(io.Discard, c, n)
					c.Write(head[:1])
				case 'd':
					io.CopyN(c, zeros{}, n)
				case 'e':
					io.CopyN(c, c, n)
				}
			}()
		}
	}()
}

// TestBenchPath compares the path through the relay with one set up by hand and with plain IPv6 routing.
func TestBenchPath(t *testing.T) {
	for _, offloads := range []bool{true, false} {
		// The router has a connection tracking firewall, like every home router.
		r := newRelay(t, lab.Options{RouterFirewall: true}, forwardAll)
		if err := r.OpenRouterFirewall("wrap1", lab.VPSPrefix); err != nil {
			t.Fatal(err)
		}
		if err := r.Router.NFT("insert rule inet fw forward ip6 daddr " + home6 + " tcp dport 80 accept"); err != nil {
			t.Fatal(err)
		}
		benchServer(t, r.Host)
		if !offloads {
			withoutOffloads(t, r)
		}
		sh := func(h *lab.Host, script string) {
			if out, err := h.RunInput("set -e\n"+script, "sh"); err != nil {
				t.Fatal(err, out)
			}
		}
		paths := []struct {
			name     string
			to       string
			up, down func()
		}{
			{"plain IPv6 routing", "[" + home6 + "]:80", func() {}, func() {}},
			{"by hand", public + ":80", func() { sh(r.VPS, byHand["vps"]); sh(r.Router, byHand["router"]) },
				func() { sh(r.VPS, byHand["vps down"]); sh(r.Router, byHand["router down"]) }},
			{"ds4relay", public + ":80", r.up, func() { r.vps.do("down"); r.router.do("down") }},
		}
		results := make([][]figures, len(paths))
		for repetition := range repetitions + 1 {
			for i, path := range paths {
				path.up()
				f := measure(t, r, path.to, benchBytes, benchTrips)
				path.down()
				if repetition > 0 { // the first only warms up
					results[i] = append(results[i], f)
				}
			}
		}
		of := func(i int, get func(figures) float64) float64 {
			var values []float64
			for _, f := range results[i] {
				values = append(values, get(f))
			}
			return median(values)
		}
		fmt.Printf("\nsegmentation offloads: %v\n%-20s %8s %8s %8s   ratio to by hand: %6s %6s %6s\n", offloads, "path",
			"up MB/s", "down", "trip us", "up", "down", "trip")
		for i, path := range paths {
			up, down, trip := of(i, func(f figures) float64 { return f.up }),
				of(i, func(f figures) float64 { return f.down }), of(i, func(f figures) float64 { return f.trip })
			fmt.Printf("%-20s %8.1f %8.1f %8.1f   %25.3f %6.3f %6.3f\n", path.name, up/1e6, down/1e6, trip*1e6,
				up/of(1, func(f figures) float64 { return f.up }),
				down/of(1, func(f figures) float64 { return f.down }),
				trip/of(1, func(f figures) float64 { return f.trip }))
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// manyForwards is a file with n forwards of one relay, each from one port to port 80 of a host; the last one's port is
// lastPort.
func manyForwards(relay string, n int) string {
	var b strings.Builder
	b.WriteString(relay)
	for i := range n {
		fmt.Fprintf(&b, "\nconfig forward 'f%d'\n\toption proto 'tcp'\n\toption src_dport '%d'\n\toption dest_ip "+
			"'192.168.1.210'\n\toption dest_port '80'\n", i, lastPort-n+1+i)
	}
	return b.String()
}

const lastPort = 20000

// connects measures how long it takes to open and close a connection, in seconds.
func connects(t *testing.T, r *relay, to string) float64 {
	t.Helper()
	const n = 200
	start := time.Now()
	for range n {
		c, err := r.Client.Dial("tcp", to, patience)
		if err != nil {
			t.Fatal(err)
		}
		c.(interface{ SetLinger(int) error }).SetLinger(0)
		c.Close()
	}
	return time.Since(start).Seconds() / n
}

// TestBenchForwards compares the path through the last of many forwards with the path through a single one.
func TestBenchForwards(t *testing.T) {
	r := newRelay(t, lab.Options{}, "")
	benchServer(t, r.Host)
	to := fmt.Sprintf("%s:%d", public, lastPort)
	counts := []int{1, 100, 10000}
	trips, news := map[int][]float64{}, map[int][]float64{}
	for repetition := range 6 {
		for _, n := range counts {
			r.vps.write(manyForwards(vpsRelay, n))
			r.router.write(manyForwards(routerRelay, n))
			r.vps.do("-q", "up")
			r.router.do("-q", "up")
			runtime.GC() // up ran in this process: collect its garbage before measuring the kernel
			connect := connects(t, r, to)
			c, err := r.Client.Dial("tcp", to, patience)
			if err != nil {
				t.Fatal(err)
			}
			c.SetDeadline(time.Now().Add(time.Minute))
			fmt.Fprintf(c, "e%010d", benchTrips)
			one := make([]byte, 1)
			var times []float64
			for range benchTrips {
				start := time.Now()
				c.Write(one)
				if _, err := io.ReadFull(c, one); err != nil {
					t.Fatal(err)
				}
				times = append(times, time.Since(start).Seconds())
			}
			c.Close()
			if repetition > 0 { // the first only warms up
				trips[n], news[n] = append(trips[n], median(times)), append(news[n], connect)
			}
		}
	}
	fmt.Printf("\n%-10s %10s %12s   ratio to one forward: %6s %8s\n", "forwards", "trip us", "new conns/s", "trip",
		"conns/s")
	for _, n := range counts {
		trip, connect := median(trips[n]), median(news[n])
		fmt.Printf("%-10d %10.1f %12.0f   %28.3f %8.3f\n", n, trip*1e6, 1/connect, trip/median(trips[1]),
			median(news[1])/connect)
	}
}

// TestBenchScale compares `up` of many forwards, a change of one of them, and `check`, with nft loading the finished
// ruleset. It also measures `up` of many relays.
func TestBenchScale(t *testing.T) {
	binary := os.Getenv("DS4RELAY_BINARY")
	if binary == "" {
		t.Fatal("DS4RELAY_BINARY names no program; run this with make bench")
	}
	r := newRelay(t, lab.Options{}, "")
	e := r.vps
	run := func(args ...string) (time.Duration, int64) {
		t.Helper()
		cmd := e.host.Command(binary, append([]string{"-c", e.config, "--run", e.runDir(), "-q"}, args...)...)
		// The lab's tests collect garbage more seldom than the program does.
		cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GOGC=") })
		start := time.Now()
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatal(err, string(out))
		}
		return time.Since(start), cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss
	}
	fmt.Printf("\n%-10s %8s %10s %7s %14s %7s %10s %7s   %s\n", "forwards", "up ms", "nft -f ms", "ratio",
		"change one ms", "ratio", "check ms", "ratio", "(ratios to nft -f)")
	for _, n := range []int{1, 100, 10000} {
		var up, load, change, check []time.Duration
		for range 5 {
			e.write(manyForwards(vpsRelay, n))
			took, _ := run("up")
			up = append(up, took)
			e.write(strings.Replace(manyForwards(vpsRelay, n), "dest_port '80'", "dest_port '81'", 1))
			if plan := e.do("plan"); len(plan) > 600 {
				t.Errorf("a change of one of %d forwards is planned as %d bytes", n, len(plan))
			}
			took, _ = run("up")
			change = append(change, took)
			took, _ = run("check")
			check = append(check, took)
			ruleset, err := e.host.Run("nft", "-s", "list", "ruleset")
			if err != nil {
				t.Fatal(err)
			}
			run("down")
			file := filepath.Join(t.TempDir(), "ruleset")
			if err := os.WriteFile(file, []byte(ruleset), 0o600); err != nil {
				t.Fatal(err)
			}
			// The flowtable includes the tunnel.
			if out, err := e.host.Run("ip", "link", "add", "wrap1", "type", "dummy"); err != nil {
				t.Fatal(err, out)
			}
			start := time.Now()
			if out, err := e.host.Run("nft", "-f", file); err != nil {
				t.Fatal(err, out)
			}
			load = append(load, time.Since(start))
			for _, command := range []string{"nft flush ruleset", "ip link del wrap1"} {
				if out, err := e.host.Run("sh", "-c", command); err != nil {
					t.Fatal(err, out)
				}
			}
		}
		a, b, c, d := median(up), median(load), median(change), median(check)
		fmt.Printf("%-10d %8d %10d %7.2f %14d %7.2f %10d %7.2f\n", n, a.Milliseconds(), b.Milliseconds(),
			float64(a)/float64(b), c.Milliseconds(), float64(c)/float64(b), d.Milliseconds(), float64(d)/float64(b))
	}

	fmt.Printf("\n%-28s %8s %14s %14s\n", "500 relays", "up ms", "ms a relay", "memory MB")
	for name, host := range map[string]func(int) string{
		"a network each":         func(i int) string { return fmt.Sprintf("10.%d.%d.210", i/250, i%250) },
		"all with 192.168.1.210": func(int) string { return home4 },
	} {
		const relays = 500
		e.write(manyRelays(relays, host))
		took, memory := run("up")
		e.do("status")
		run("down")
		fmt.Printf("%-28s %8d %14.1f %14.1f\n", name, took.Milliseconds(), took.Seconds()*1000/relays,
			float64(memory)/1024)
	}
}

// pathVariants are changes that might make the relay faster, as scripts on the ends after `up`.
var pathVariants = []struct {
	name, vps, vpsBack, router, routerBack string
}{
	{name: "as up makes it"},
	{"no flowtable on the VPS", "nft list table ip ds4relay_flows >/run/offload.nft; nft delete table ip " +
		"ds4relay_flows\n", "nft -f /run/offload.nft\n", "", ""},
	{"no flowtable on the router", "", "", "nft list table ip ds4relay_flows >/run/home.nft; nft delete table ip " +
		"ds4relay_flows\n", "nft -f /run/home.nft\n"},
	{"the router's flowtable on the bridge's port, too", "", "", "nft add flowtable ip ds4relay_flows established '{ " +
		"hook ingress priority 0; devices = { lan-host }; }'\n", "nft delete flowtable ip ds4relay_flows established '{ " +
		"hook ingress priority 0; devices = { lan-host }; }'\n"},
	{"the VPS's tunnel without GRO", "ethtool -K wrap1 gro off\n", "ethtool -K wrap1 gro on\n", "", ""},
	{"the router's tunnel without GRO", "", "", "ethtool -K wrap1 gro off\n", "ethtool -K wrap1 gro on\n"},
	{"both tunnels without GSO", "ethtool -K wrap1 tso off gso off\n", "ethtool -K wrap1 tso on gso on\n",
		"ethtool -K wrap1 tso off gso off\n", "ethtool -K wrap1 tso on gso on\n"},
	{"outer packets not tracked on the router", "", "", `nft -f - <<EOF
table ip6 variant {
	chain prerouting {
		type filter hook prerouting priority raw;
		ip6 saddr 2001:db8:6ef9:0:198:51:100:144 meta l4proto ipip notrack
	}
	chain output {
		type filter hook output priority raw;
		ip6 daddr 2001:db8:6ef9:0:198:51:100:144 meta l4proto ipip notrack
	}
}
EOF
`, "nft delete table ip6 variant\n"},
	{"a tracking IPv6 firewall on the VPS", trackingVPS, "nft delete table ip6 firewall\n", "", ""},
	{"the same, outer packets not tracked", trackingVPS + `nft -f - <<EOF
table ip6 variant {
	chain prerouting {
		type filter hook prerouting priority raw;
		ip6 saddr 2001:db8:fdd2:0:198:51:100:144 meta l4proto ipip notrack
	}
	chain output {
		type filter hook output priority raw;
		ip6 daddr 2001:db8:fdd2:0:198:51:100:144 meta l4proto ipip notrack
	}
}
EOF
`, "nft delete table ip6 firewall; nft delete table ip6 variant\n", "", ""},
}

const trackingVPS = `nft -f - <<EOF
table ip6 firewall {
	chain input {
		type filter hook input priority filter; policy drop;
		ct state established,related accept
		meta l4proto { ipv6-icmp, ipip } accept
	}
	chain forward { type filter hook forward priority filter; policy accept; }
}
EOF
`

// TestBenchVariants compares the relay with these variants.
func TestBenchVariants(t *testing.T) {
	for _, offloads := range []bool{true, false} {
		r := newRelay(t, lab.Options{RouterFirewall: true}, forwardAll)
		if err := r.OpenRouterFirewall("wrap1", lab.VPSPrefix); err != nil {
			t.Fatal(err)
		}
		benchServer(t, r.Host)
		if !offloads {
			withoutOffloads(t, r)
		}
		r.up()
		sh := func(h *lab.Host, script string) {
			if out, err := h.RunInput("set -e\n"+script, "sh"); err != nil {
				t.Fatal(err, out)
			}
		}
		results := make([][]figures, len(pathVariants))
		news := make([][]float64, len(pathVariants))
		for repetition := range repetitions + 1 {
			for i, v := range pathVariants {
				sh(r.VPS, v.vps)
				sh(r.Router, v.router)
				f := measure(t, r, public+":80", compareBytes, benchTrips)
				connect := exchanges(t, r, public+":80")
				sh(r.VPS, v.vpsBack)
				sh(r.Router, v.routerBack)
				if repetition > 0 { // the first only warms up
					results[i], news[i] = append(results[i], f), append(news[i], connect)
				}
			}
		}
		of := func(i int, get func(figures) float64) float64 {
			var values []float64
			for _, f := range results[i] {
				values = append(values, get(f))
			}
			return median(values)
		}
		fmt.Printf("\nsegmentation offloads: %v; ratios to what up makes\n%-45s %6s %6s %6s %6s\n", offloads, "variant",
			"up", "down", "trip", "new")
		for i, v := range pathVariants {
			ratio := func(get func(figures) float64) float64 { return of(i, get) / of(0, get) }
			fmt.Printf("%-45s %6.3f %6.3f %6.3f %6.3f\n", v.name, ratio(func(f figures) float64 { return f.up }),
				ratio(func(f figures) float64 { return f.down }), ratio(func(f figures) float64 { return f.trip }),
				median(news[0])/median(news[i]))
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBenchCounting measures what it costs a connection, from its first packet to its end, that forwards are counted.
func TestBenchCounting(t *testing.T) {
	r := newRelay(t, lab.Options{}, forwardAll)
	benchServer(t, r.Host)
	r.up()
	account := func(value string) {
		if err := r.VPS.Sysctl("net.netfilter.nf_conntrack_acct", value); err != nil {
			t.Fatal(err)
		}
	}
	variants := []struct {
		name  string
		begin func() (end func())
	}{
		{"not counted", func() func() { return func() {} }},
		{"nf_conntrack_acct only", func() func() { account("1"); return func() { account("0") } }},
		{"counted", func() func() { return r.vps.counting(t) }},
	}
	results := make([][]float64, len(variants))
	for repetition := range repetitions + 1 {
		for i, variant := range variants {
			end := variant.begin()
			runtime.GC()
			time.Sleep(rest)
			start := time.Now()
			for range 10 {
				connects(t, r, public+":80")
				// Otherwise the ends of these connections would be reported while others are measured.
				flush := func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }
				if err := r.VPS.Do(flush); err != nil {
					t.Fatal(err)
				}
			}
			if took := time.Since(start).Seconds(); repetition > 0 { // the first only warms up
				results[i] = append(results[i], took)
			}
			end()
		}
	}
	fmt.Printf("\n%-24s %12s   ratio to not counted\n", "2000 connections", "seconds")
	for i, variant := range variants {
		took := median(results[i])
		fmt.Printf("%-24s %12.3f   %.3f\n", variant.name, took, took/median(results[0]))
	}
}

// manyRelays is the configuration of a VPS with a relay for each of n homes, with one host each.
func manyRelays(n int, host func(int) string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "config relay 'r%d'\n\toption ipaddr '%s'\n\toption ip6addr '2001:db8:6ef9::/64'\n\toption "+
			"peeraddr '2001:db8:1:%x::/64'\n\toption tunlink 'eth0'\n\nconfig forward 'f%d'\n\toption relay "+
			"'r%d'\n\toption src_dport '%d'\n\toption dest_ip '%s'\n\n", i, public, i+1, i, i, 1000+i, host(i))
	}
	return b.String()
}
