//go:build lab && bench

package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/lab"
)

// measuredUnits are what paths are profiled with: n of a unit in a run, which returns the time of one.
var measuredUnits = []struct {
	name string
	n    int
	run  func(r *relay, to string, n int) time.Duration
}{
	{"a round trip", 1500, func(r *relay, to string, n int) time.Duration {
		c := r.ask(to, 'e', n)
		defer c.Close()
		return inParts(r.vps.t, n, func() { r.echo(c) })
	}},
	{"a new connection", 250, func(r *relay, to string, n int) time.Duration {
		return inParts(r.vps.t, n, func() {
			c := r.ask(to, 'e', 1)
			r.echo(c)
			c.Close()
		})
	}},
	{"1 MB down", 10, func(r *relay, to string, n int) time.Duration {
		c := r.ask(to, 'd', n*1e6)
		defer c.Close()
		start := time.Now()
		if _, err := io.Copy(io.Discard, c); err != nil {
			r.vps.t.Fatal(err)
		}
		return time.Since(start) / time.Duration(n)
	}},
	{"1 MB up", 10, func(r *relay, to string, n int) time.Duration {
		c := r.ask(to, 'u', n*1e6)
		defer c.Close()
		start := time.Now()
		io.CopyN(c, zeros{}, int64(n)*1e6)
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			r.vps.t.Fatal(err)
		}
		return time.Since(start) / time.Duration(n)
	}},
}

// ask opens a connection to benchServer.
func (r *relay) ask(to string, what byte, n int) io.ReadWriteCloser {
	r.vps.t.Helper()
	c, err := r.Client.Dial("tcp", to, patience)
	if err != nil {
		r.vps.t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(5 * time.Minute))
	fmt.Fprintf(c, "%c%010d", what, n)
	return c
}

func (r *relay) echo(c io.ReadWriter) {
	r.vps.t.Helper()
	one := make([]byte, 1)
	c.Write(one)
	if _, err := io.ReadFull(c, one); err != nil {
		r.vps.t.Fatal(err)
	}
}

// inParts runs something n times, in parts with a pause before each, and returns the median of the parts' time of one.
func inParts(t *testing.T, n int, run func()) time.Duration {
	t.Helper()
	var times []time.Duration
	for range parts {
		time.Sleep(rest)
		took := computing(t, func() {
			for range n / parts {
				run()
			}
		})
		times = append(times, took/time.Duration(n/parts))
	}
	return median(times)
}

// detour leads plain IPv6 from and to the client through the VPS, like the packets of a relay.
var detour = map[string]string{
	"core": `
for device in client isp; do
	ip -6 rule add iif $device lookup 77
done
ip -6 route add default via 2001:db8:6ef9::1 dev vps table 77
`,
	"core down": "ip -6 rule del lookup 77; ip -6 rule del lookup 77; ip -6 route flush table 77\n",
	"vps":       "sysctl -qw net.ipv6.conf.all.forwarding=1\n",
	"vps down":  "sysctl -qw net.ipv6.conf.all.forwarding=0\n",
}

// bareTunnel is a tunnel without any rule: the core routes the host's private address to the VPS.
var bareTunnel = map[string]string{
	"core":        "ip route add 192.168.1.210 via 198.51.100.144\n",
	"core down":   "ip route del 192.168.1.210\n",
	"vps down":    strings.Replace(byHand["vps down"], "nft delete table ip byhand; ", "", 1),
	"router down": "ip link del wrap1\n",
}

func init() {
	bareTunnel["vps"], _, _ = strings.Cut(byHand["vps"], "nft -f")
	bareTunnel["router"], _, _ = strings.Cut(byHand["router"], "ip route add default")
	bareTunnel["router"] += "ip route add 203.0.113.0/24 dev wrap1\n"
}

// whereWays are plain IPv6 routing, what nothing that passes a VPS can be faster than, the relay, and the tunnels by
// hand.
func whereWays(t *testing.T, r *relay) []way {
	onAll := func(scripts map[string]string, suffix string) map[*lab.Host]string {
		return map[*lab.Host]string{r.Core: scripts["core"+suffix], r.VPS: scripts["vps"+suffix],
			r.Router: scripts["router"+suffix]}
	}
	plain := "[" + home6 + "]:80"
	wireGuard := wireGuardWays(t, r, r.newKeys())
	return []way{
		{name: "plain", start: func() func() { return func() {} }, to: plain},
		scriptWay(r, "tunnel without rules", home4+":80", onAll(bareTunnel, ""), onAll(bareTunnel, " down")),
		scriptWay(r, "IPv4 in IPv6 by hand", public+":80", onAll(byHand, ""), onAll(byHand, " down")),
		{name: "ds4relay", start: func() func() {
			r.vps.do("-q", "up")
			r.router.do("-q", "up")
			return func() { r.vps.do("-q", "down"); r.router.do("-q", "down") }
		}, to: public + ":80"},
		wireGuard[1],
		wireGuard[0],
		// The last one: a kernel that has had a policy rule for IPv6 goes through the rules for each packet from then on.
		scriptWay(r, "plain, through the VPS", plain, onAll(detour, ""), onAll(detour, " down")),
	}
}

// TestBenchWhere shows which parts of the kernel use the time of single packets and of bulk data, without segmentation
// offloads, as differences to plain IPv6 routing. It writes the data for docs/dev/figures.md, and a file for each path
// and unit with the functions.
func TestBenchWhere(t *testing.T) {
	r := newCompared(t, false)
	profile := newProfiler(t)
	ways := whereWays(t, r)
	dir := os.Getenv("DS4RELAY_BENCH_DIR")
	write := func(name, text string) {
		if dir != "" {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	tables := make([]whereTable, len(measuredUnits))
	for _, w := range ways {
		stop := w.start()
		for i, unit := range measuredUnits {
			unit.run(r, w.to, unit.n/5) // to warm up
			took := unit.run(r, w.to, unit.n).Seconds() * 1e6
			shares, functions := profile.sample(func() { unit.run(r, w.to, unit.n) })
			t.Log(w.name, unit.name, took)
			tables[i].add(w.name, took, shares)
			var list strings.Builder
			for _, name := range slices.SortedFunc(maps.Keys(functions), func(a, b string) int {
				return int(1e9 * (functions[b] - functions[a]))
			}) {
				fmt.Fprintf(&list, "%9.2f  %s\n", functions[name]*took, name)
			}
			write("where "+unit.name+", "+w.name+".txt", list.String())
		}
		stop()
	}
	text := ""
	for i, table := range tables {
		text += table.text(measuredUnits[i].name) + "\n"
	}
	fmt.Print(text)
	write("where.md", strings.TrimSuffix(text, "\n"))
}

// whereTable is the table of one unit; the first path is the one that the others are compared with.
type whereTable struct {
	paths []string
	took  []float64            // microseconds
	parts []map[string]float64 // microseconds
}

func (t *whereTable) add(path string, took float64, shares map[string]float64) {
	for name := range shares {
		shares[name] *= took
	}
	t.paths, t.took, t.parts = append(t.paths, path), append(t.took, took), append(t.parts, shares)
}

func (t *whereTable) text(unit string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "| %s | %s |\n| --- |%s\n| us |", unit, strings.Join(t.paths, " | "),
		strings.Repeat(" --- |", len(t.paths)))
	for _, took := range t.took {
		fmt.Fprintf(&text, " %.*f |", digits(t.took[0]), took)
	}
	text.WriteString("\n| ratio |")
	for _, took := range t.took {
		fmt.Fprintf(&text, " %.2f |", took/t.took[0])
	}
	names := []string{"programs"}
	for _, part := range kernelParts {
		names = append(names, part.name)
	}
	for _, name := range append(names, "other") {
		fmt.Fprintf(&text, "\n| %s | %.*f |", name, digits(t.took[0]), t.parts[0][name])
		for _, parts := range t.parts[1:] {
			fmt.Fprintf(&text, " %+.*f |", digits(t.took[0]), parts[name]-t.parts[0][name])
		}
	}
	text.WriteByte('\n')
	return text.String()
}

// digits is how many digits after the point a number of microseconds gets.
func digits(whole float64) int {
	if whole < 1000 {
		return 1
	}
	return 0
}
