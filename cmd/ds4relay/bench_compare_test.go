//go:build lab && bench

package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/lab"
	"github.com/ds4relay/ds4relay/internal/lab/benchmark"
)

// Amounts of data of the comparison: less than in TestBenchPath, because there are more and slower paths.
const (
	compareBytes       = 8 << 20
	compareTrips       = 200
	compareRepetitions = 3
)

// way is one of the compared paths to a home server.
type way struct {
	name  string
	start func() (stop func())
	to    string // address and port
	group string // heading in the chart
}

// Groups of ways.
const (
	groupTunnel = "A tunnel in the kernel, not encrypted"
	groupCrypto = "An encrypted tunnel in the kernel"
	groupProxy  = "A program that copies (the server does not see the client's address)"
)

// inGroup puts ways below a heading.
func inGroup(group string, ways ...way) []way {
	for i := range ways {
		ways[i].group = group
	}
	return ways
}

// scriptWay is a path that shell scripts on both ends set up.
func scriptWay(r *relay, name, to string, up, down map[*lab.Host]string) way {
	run := func(scripts map[*lab.Host]string) {
		for h, script := range scripts {
			if out, err := h.RunInput("set -e\n"+script, "sh"); err != nil {
				r.vps.t.Fatal(name, err, out)
			}
		}
	}
	return way{name: name, start: func() func() {
		run(up)
		r.wait(name, to) // WireGuard: until the home has sent its first packet
		return func() { run(down) }
	}, to: to}
}

// daemon is a program that runs on a host while its path is measured.
type daemon struct {
	host *lab.Host
	args []string
}

// daemonWay is a path through programs in user space.
func daemonWay(r *relay, name string, daemons ...daemon) way {
	return way{name: name, start: func() func() {
		var running []*lab.Cmd
		for _, d := range daemons {
			cmd := d.host.Command(d.args[0], d.args[1:]...)
			if err := cmd.Start(); err != nil {
				r.vps.t.Fatal(name, err)
			}
			running = append(running, cmd)
		}
		r.wait(name, public+":80")
		return func() {
			for _, cmd := range running {
				cmd.Process.Kill()
				cmd.Wait()
			}
		}
	}, to: public + ":80"}
}

// wait waits until a connection over the path succeeds.
func (r *relay) wait(name, to string) {
	r.vps.t.Helper()
	for range 1000 {
		if c, err := r.Client.Dial("tcp", to, time.Second); err == nil {
			c.Close()
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	r.vps.t.Fatalf("%s: nobody listens at %s", name, to)
}

// minimal is the relay from the shell script that people copy from blogs: the default encapsulation limit, a source
// rule on the router, no clamp, no guards. (They use iptables for DNAT and SNAT; for an established connection, nft
// does the same work.)
var minimal = map[string]string{
	"vps": `
ip -6 addr add 2001:db8:6ef9:0:198:51:100:144/128 dev eth0 preferred_lft 0
ip link add wrap1 type ip6tnl mode ipip6 local 2001:db8:6ef9:0:198:51:100:144 remote 2001:db8:fdd2:0:198:51:100:144
ip link set wrap1 up
ip route add 192.168.1.210 dev wrap1
sysctl -qw net.ipv4.ip_forward=1
nft -f - <<EOF
table ip byhand {
	chain prerouting {
		type nat hook prerouting priority dstnat;
		ip daddr 198.51.100.144 tcp dport 80 dnat to 192.168.1.210
	}
	chain postrouting {
		type nat hook postrouting priority srcnat;
		oifname eth0 ip saddr 192.168.1.210 snat to 198.51.100.144
	}
}
EOF
`,
	"router": `
ip link add wrap1 type ip6tnl mode ipip6 local 2001:db8:fdd2:0:198:51:100:144 remote 2001:db8:6ef9:0:198:51:100:144
ip -6 addr add 2001:db8:fdd2:0:198:51:100:144/128 dev wrap1
ip link set wrap1 up
ip route add default dev wrap1 table 42
ip rule add from 192.168.1.210 lookup 42
`,
	"router down": "ip link del wrap1; ip rule del from 192.168.1.210 lookup 42\n",
}

// proxies are the programs in user space, set up as in their manuals. frp's programs are in the directory DS4RELAY_FRP.
func proxies(t *testing.T, r *relay) []way {
	t.Helper()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	target := "[" + home6 + "]:80"
	haproxy := file("haproxy.cfg", `
defaults
	mode tcp
	timeout connect 5s
	timeout client 5m
	timeout server 5m
listen web
	bind 198.51.100.144:80
	server home `+target+`
`)
	onVPS := func(args ...string) daemon { return daemon{r.VPS, args} }
	listen, connect := "TCP4-LISTEN:80,bind="+public+",fork,reuseaddr", "TCP6:"+target
	ways := []way{
		daemonWay(r, "HAProxy", onVPS("haproxy", "-f", haproxy)),
		daemonWay(r, "socat", onVPS("socat", listen, connect)),
		daemonWay(r, "socat (64 KiB buffers)", onVPS("socat", "-b", "65536", listen, connect)),
		daemonWay(r, "6tunnel", onVPS("6tunnel", "-d", "-4", "-l", public, "80", home6, "80")),
	}
	if frp := os.Getenv("DS4RELAY_FRP"); frp != "" {
		server := file("frps.toml", "bindAddr = \"::\"\nbindPort = 7000\nproxyBindAddr = \"198.51.100.144\"\n")
		client := file("frpc.toml", `serverAddr = "2001:db8:6ef9::1"
serverPort = 7000
loginFailExit = false
[[proxies]]
name = "web"
type = "tcp"
localIP = "127.0.0.1"
localPort = 80
remotePort = 80
`)
		ways = append(ways, daemonWay(r, "frp (encrypted)", onVPS(filepath.Join(frp, "frps"), "-c", server),
			daemon{r.Host, []string{filepath.Join(frp, "frpc"), "-c", client}}))
	}
	return ways
}

// exchanges measures consecutive connections that each send a byte to the home server and back: a mere connection may
// end at a proxy.
func exchanges(t *testing.T, r *relay, to string) float64 {
	t.Helper()
	const n = 20
	one := make([]byte, 1)
	var times []float64
	for range parts {
		time.Sleep(rest)
		took := computing(t, func() {
			for range n {
				c, err := r.Client.Dial("tcp", to, patience)
				if err != nil {
					t.Fatal(err)
				}
				c.SetDeadline(time.Now().Add(2 * patience))
				fmt.Fprintf(c, "e%010d.", 1)
				if _, err := io.ReadFull(c, one); err != nil {
					t.Fatal(err)
				}
				c.Close()
			}
		})
		times = append(times, took.Seconds()/n)
	}
	return median(times)
}

// computing returns how long the CPU works while something runs. Go's runtime now and then leaves all threads asleep
// until one of its timers looks whether a connection has become ready.
func computing(t *testing.T, run func()) time.Duration {
	t.Helper()
	before, start := idled(t), time.Now()
	run()
	took := time.Since(start)
	return took - (idled(t) - before)
}

// idled is how long the CPU has been idle since the boot.
func idled(t *testing.T) time.Duration {
	t.Helper()
	text, err := os.ReadFile("/proc/timer_list")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ".idle_sleeptime : ")
	number, _, _ := strings.Cut(rest, " ")
	nanoseconds, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		t.Fatal("/proc/timer_list:", err)
	}
	return time.Duration(nanoseconds)
}

// compareMetrics are measured on each path.
var compareMetrics = []benchmark.Metric{
	{Name: "TCP up", Unit: "MB/s"}, {Name: "TCP down", Unit: "MB/s"},
	{Name: "round trip", Unit: "us", LessIsBetter: true}, {Name: "new connections", Unit: "/s"},
}

// withoutOffloads makes the cards of client, VPS, router and host send packet by packet, and merge what arrives (GRO).
// Linux merges on each card that has NAPI; veth does so only if told. The routers between the ends do not.
func withoutOffloads(t *testing.T, r *relay) {
	t.Helper()
	for _, card := range []struct {
		host   *lab.Host
		device string
	}{{r.Client, "eth0"}, {r.VPS, "eth0"}, {r.Router, lab.WANDevice}, {r.Router, "lan-host"}, {r.Host, "eth0"}} {
		if out, err := card.host.Run("ethtool", "-K", card.device, "tso", "off", "gso", "off", "gro", "on"); err != nil {
			t.Fatal(err, out)
		}
	}
}

// newCompared is a relay of everything to the host with benchServer, behind a router with a firewall.
func newCompared(t *testing.T, offloads bool) *relay {
	t.Helper()
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
	return r
}

// compareWays measures each of the ways, taking turns.
func compareWays(t *testing.T, r *relay, c *benchmark.Comparison, ways []way, repetitions int) {
	t.Helper()
	for _, w := range ways {
		ours := w.name == oursIPIP6 || w.name == oursWireGuard
		c.Paths = append(c.Paths, &benchmark.Path{Name: w.name, Group: w.group, Ours: ours})
	}
	for repetition := range repetitions + 1 {
		for i, w := range ways {
			t.Log(repetition, w.name)
			stop := w.start()
			f := measure(t, r, w.to, compareBytes, compareTrips)
			exchange := exchanges(t, r, w.to)
			stop()
			if repetition > 0 { // the first is a warm-up
				c.Paths[i].Values = append(c.Paths[i].Values,
					[]float64{f.up / 1e6, f.down / 1e6, f.trip * 1e6, 1 / exchange})
			}
		}
	}
}

// unlike keeps encrypted ways and those in clear from being compared.
func unlike(ours, other *benchmark.Path) bool {
	encrypted := func(p *benchmark.Path) bool { return p.Group == groupCrypto || strings.Contains(p.Name, "encrypted") }
	return encrypted(ours) != encrypted(other)
}

// TestBenchCompare compares common ways to reach a home server, with and without segmentation offloads, and writes the
// data for the benchmark page.
func TestBenchCompare(t *testing.T) {
	compare := func(t *testing.T, offloads bool) *benchmark.Comparison {
		r := newCompared(t, offloads)
		ways := []way{
			{name: "plain IPv6 routing", start: func() func() { return func() {} }, to: "[" + home6 + "]:80"}}
		ways = append(ways, inGroup(groupTunnel,
			way{name: oursIPIP6, start: func() func() {
				r.vps.do("-q", "up")
				r.router.do("-q", "up")
				return func() { r.vps.do("-q", "down"); r.router.do("-q", "down") }
			}, to: public + ":80"},
			scriptWay(r, "IPv4 in IPv6 by hand", public+":80",
				map[*lab.Host]string{r.VPS: byHand["vps"], r.Router: byHand["router"]},
				map[*lab.Host]string{r.VPS: byHand["vps down"], r.Router: byHand["router down"]}),
			scriptWay(r, "minimal IPv4 in IPv6", public+":80",
				map[*lab.Host]string{r.VPS: minimal["vps"], r.Router: minimal["router"]},
				map[*lab.Host]string{r.VPS: byHand["vps down"], r.Router: minimal["router down"]}))...)
		ways = append(ways, inGroup(groupCrypto, wireGuardWays(t, r, r.newKeys())...)...)
		if os.Getenv("DS4RELAY_BENCH_TUNNELS") == "" {
			ways = append(ways, inGroup(groupProxy, proxies(t, r)...)...)
		}
		c := &benchmark.Comparison{Metrics: compareMetrics}
		compareWays(t, r, c, ways, compareRepetitions)
		return c
	}
	write := func(t *testing.T, name, text string) {
		if dir := os.Getenv("DS4RELAY_BENCH_DIR"); dir != "" {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Run("without", func(t *testing.T) {
		c := compare(t, false)
		text := c.Table() + "\n" + c.Ahead(unlike)
		fmt.Print(text)
		write(t, "without.md", "Without segmentation offloads: each card sends packet by packet and merges what "+
			"arrives:\n\n"+text+"\n")
		write(t, "benchmark.svg", c.SVG("The ways to a home server, packet by packet", 0, 1, 2, 3))
	})
	t.Run("with", func(t *testing.T) {
		c := compare(t, true)
		text := c.Table() + "\n" + c.Ahead(unlike)
		fmt.Print(text)
		write(t, "with.md", "With them, as inside one machine:\n\n"+text)
	})
}
