package main

import (
	"errors"
	"fmt"
	"math"
	"net/rpc"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/ds4relay/ds4relay/internal/lab"
	"github.com/ds4relay/ds4relay/internal/lab/benchmark"
)

const (
	warmUp    = 300 * time.Millisecond
	settle    = 100 * time.Millisecond
	many      = 64   // parallel streams
	workersN  = 32   // that open new connections
	trips     = 3000 // round trips
	udpPeers  = 16
	udpWindow = 8
	atRest    = time.Second

	idleFew, idleMost = 1000, 20000 // connections
	spareFiles        = 500
)

// end is the load process at one end.
type end struct{ client *rpc.Client }

func startEnd(h *lab.Host) (*end, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := h.Command(self, "load")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &end{rpc.NewClient(stdio{out, in})}, nil
}

func (e *end) do(method string, args, reply any) error {
	return e.client.Call("Load."+method, args, reply)
}

// bencher has what all measurements need.
type bencher struct {
	settings
	net          *lab.ProxyNet
	client, host *end
}

// measurement measures one or more metrics at once.
type measurement struct {
	metrics []benchmark.Metric
	take    func(b *bencher, r *relay, window time.Duration) ([]float64, error)
}

func throughput(what string, ask byte, streams int) measurement {
	return measurement{
		[]benchmark.Metric{{Name: what, Unit: "Gbit/s"}, {Name: what + ", CPU per GB", Unit: "s", LessIsBetter: true}},
		func(b *bencher, r *relay, window time.Duration) ([]float64, error) {
			return b.throughput(r, ask, streams, window)
		},
	}
}

var (
	one = []measurement{throughput("up", askUp, 1), throughput("down", askDown, 1)}

	speed = append(one[:2:2], throughput("up, 64 streams", askUp, many), throughput("down, 64 streams", askDown, many))

	connections = []measurement{
		{[]benchmark.Metric{{Name: "new connections", Unit: "/s"}}, (*bencher).connects},
		{[]benchmark.Metric{{Name: "round trip, p50", Unit: "us", LessIsBetter: true, Show: benchmark.Added},
			{Name: "p99", Unit: "us", LessIsBetter: true, Show: benchmark.Added}}, (*bencher).trips},
		{[]benchmark.Metric{{Name: "UDP packets there and back", Unit: "/s"}}, (*bencher).datagrams},
	}
)

func (b *bencher) throughput(r *relay, ask byte, streams int, window time.Duration) ([]float64, error) {
	receiver := b.host
	if ask == askDown {
		receiver = b.client
	}
	if err := b.client.do("Open", OpenArgs{r.tcp, ask, streams}, nil); err != nil {
		return nil, err
	}
	defer b.client.do("Close", struct{}{}, nil)
	time.Sleep(warmUp)
	var bytes [2]uint64
	var cpu [2]time.Duration
	var at [2]time.Time
	for i := range bytes {
		if i > 0 {
			time.Sleep(window)
		}
		var err error
		if cpu[i], err = busy(); err != nil {
			return nil, err
		}
		if err := receiver.do("Received", struct{}{}, &bytes[i]); err != nil {
			return nil, err
		}
		at[i] = time.Now()
	}
	n := float64(bytes[1] - bytes[0])
	return []float64{n * 8 / 1e9 / at[1].Sub(at[0]).Seconds(), (cpu[1] - cpu[0]).Seconds() / (n / 1e9)}, nil
}

func (b *bencher) connects(r *relay, window time.Duration) ([]float64, error) {
	var reply RateReply
	err := b.client.do("Connects", RateArgs{Address: r.tcp, Workers: workersN, Time: window}, &reply)
	return []float64{reply.PerSecond}, err
}

func (b *bencher) trips(r *relay, _ time.Duration) ([]float64, error) {
	var reply TripsReply
	err := b.client.do("Trips", TripsArgs{r.tcp, trips}, &reply)
	return []float64{float64(reply.P50.Nanoseconds()) / 1e3, float64(reply.P99.Nanoseconds()) / 1e3}, err
}

func (b *bencher) datagrams(r *relay, window time.Duration) ([]float64, error) {
	if r.udp == "" {
		return []float64{math.NaN()}, nil
	}
	var reply RateReply
	err := b.client.do("Datagrams", RateArgs{Address: r.udp, Workers: udpPeers, Window: udpWindow, Time: window},
		&reply)
	return []float64{reply.PerSecond}, err
}

// compare takes all measurements on all paths, interleaved, so that changes of the machine's load affect all paths
// alike.
func (b *bencher) compare(list []*relay, measurements []measurement) (*benchmark.Comparison, error) {
	c := &benchmark.Comparison{}
	for _, r := range list {
		c.Paths = append(c.Paths, &benchmark.Path{Name: r.name, Ours: r.ours})
	}
	var chosen []measurement
	for _, m := range measurements {
		if b.metrics.MatchString(m.metrics[0].Name) {
			chosen = append(chosen, m)
			c.Metrics = append(c.Metrics, m.metrics...)
		}
	}
	for repetition := range b.repetitions + 1 {
		rows := make([][]float64, len(list))
		for _, m := range chosen {
			for i, r := range list {
				window := b.window
				if repetition == 0 { // the first one is the warm-up
					window /= 4
				}
				values, err := m.take(b, r, window)
				if err != nil {
					return nil, fmt.Errorf("%s: %s: %w", r.name, m.metrics[0].Name, err)
				}
				rows[i] = append(rows[i], values...)
				time.Sleep(settle)
			}
		}
		if repetition > 0 {
			for i, row := range rows {
				c.Paths[i].Values = append(c.Paths[i].Values, row)
			}
		}
	}
	return c, nil
}

// idle measures the memory of each proxy with idle connections, in total and per connection.
func (b *bencher) idle(list []*relay) (*benchmark.Comparison, error) {
	c := &benchmark.Comparison{}
	for _, n := range b.settings.idle {
		for _, what := range []benchmark.Metric{{Name: "%d: MB", Unit: "MB"}, {Name: "KB each", Unit: "KB"},
			{Name: "RSS, KB each", Unit: "KB"}} {
			if what.Unit == "MB" {
				what.Name = fmt.Sprintf(what.Name, n)
			}
			what.Show = benchmark.Value
			c.Metrics = append(c.Metrics, what)
		}
	}
	for _, r := range list {
		if r.start == nil {
			continue
		}
		var row []float64
		for _, n := range b.settings.idle {
			if r.processes && n > idleFew {
				row = append(row, math.NaN(), math.NaN(), math.NaN())
				continue
			}
			values, err := b.idleOf(r, n)
			if err != nil { // for example too few descriptors; some proxies need six per connection
				fmt.Printf("%s: %d connections: %v\n", r.name, n, err)
				values = []float64{math.NaN(), math.NaN(), math.NaN()}
			}
			row = append(row, values...)
		}
		c.Paths = append(c.Paths, &benchmark.Path{Name: r.name, Ours: r.ours, Values: [][]float64{row}})
	}
	return c, nil
}

func (b *bencher) idleOf(r *relay, n int) ([]float64, error) {
	if err := r.up(b.net, b.client); err != nil {
		return nil, err
	}
	defer r.down()
	groups := map[int]bool{}
	for _, cmd := range r.running {
		groups[cmd.Process.Pid] = true
	}
	time.Sleep(atRest)
	pss0, rss0, err := memory(groups)
	if err != nil {
		return nil, err
	}
	if err := b.client.do("Open", OpenArgs{r.tcp, askEcho, n}, nil); err != nil {
		return nil, err
	}
	defer b.client.do("Close", struct{}{}, nil)
	time.Sleep(atRest)
	pss, rss, err := memory(groups)
	return []float64{pss / 1e6, (pss - pss0) / float64(n) / 1e3, (rss - rss0) / float64(n) / 1e3}, err
}

// setOffloads switches segmentation offloads and GRO on all devices.
func (b *bencher) setOffloads(on bool) error {
	state := map[bool]string{true: "on", false: "off"}[on]
	for _, d := range []struct {
		host   *lab.Host
		device string
	}{{b.net.Client, "eth0"}, {b.net.VPS, "eth0"}, {b.net.VPS, "home"}, {b.net.Host, "eth0"}} {
		if _, err := d.host.Run("ethtool", "-K", d.device, "tso", state, "gso", state, "gro", state); err != nil {
			return err
		}
	}
	return nil
}

func bench(s settings) (err error) {
	net, err := lab.NewProxyNet(fmt.Sprintf("ds4bench%d-", os.Getpid()))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, net.Close()) }()
	dir, err := os.MkdirTemp("", "proxybench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-signals
		net.Close()
		os.RemoveAll(dir)
		os.Exit(1)
	}()
	b := &bencher{settings: s, net: net}
	if b.client, err = startEnd(net.Client); err != nil {
		return err
	}
	if b.host, err = startEnd(net.Host); err != nil {
		return err
	}
	if err := b.host.do("Serve", targetPort, nil); err != nil {
		return err
	}
	all, err := relays(net, dir, s.ds4relay, s.frp, s.idle[1]+100)
	if err != nil {
		return err
	}
	var list []*relay
	for i, r := range all {
		if i == 0 || s.only.MatchString(r.name) {
			list = append(list, r)
		}
	}
	var tables string
	show := func(text string, c *benchmark.Comparison, err error) error {
		if err == nil && len(c.Metrics) > 0 {
			text = fmt.Sprintf("%s\n\n%s\n", text, c.Table())
			fmt.Print("\n", text)
			tables += text
		}
		return err
	}
	if s.metrics.MatchString("memory") {
		memory, err := b.idle(list)
		if err := show("Memory with idle connections (PSS: pages that processes share are counted once).", memory,
			err); err != nil {
			return err
		}
	}
	for _, r := range list {
		defer r.down()
		if err := r.up(net, b.client); err != nil {
			return err
		}
	}
	fast, err := b.compare(list, speed)
	if err := show("TCP throughput.", fast, err); err != nil {
		return err
	}
	conns, err := b.compare(list, connections)
	if err := show("Connections and packets.", conns, err); err != nil {
		return err
	}
	if s.more {
		if err := net.Congestion("bbr"); err != nil {
			fmt.Println("without bbr:", err)
		} else {
			paced, err := b.compare(list, one)
			if err := show("One stream with congestion control bbr, which paces by timers.", paced, err); err != nil {
				return err
			}
			if err := net.Congestion("cubic"); err != nil {
				return err
			}
		}
		if err := b.setOffloads(false); err != nil {
			return err
		}
		slow, err := b.compare(list, one)
		if err := show("One stream without segmentation offloads, packet by packet, as wires have it.", slow,
			err); err != nil {
			return err
		}
	}
	if s.out == "" {
		return nil
	}
	chart := &benchmark.Comparison{Metrics: append(append([]benchmark.Metric{}, fast.Metrics...), conns.Metrics...)}
	for i, p := range fast.Paths {
		joined := &benchmark.Path{Name: p.Name, Ours: p.Ours}
		for j, row := range p.Values {
			joined.Values = append(joined.Values, append(append([]float64{}, row...), conns.Paths[i].Values[j]...))
		}
		chart.Paths = append(chart.Paths, joined)
	}
	return errors.Join(
		os.WriteFile(filepath.Join(s.out, "benchmark-proxy-table.md"), []byte(tables), 0o644),
		os.WriteFile(filepath.Join(s.out, "benchmark-proxy.svg"),
			[]byte(chart.SVG("Proxies, through a VPS to a home server", 0, 2, 1, len(fast.Metrics))),
			0o644))
}
