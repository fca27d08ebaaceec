//go:build lab && router && bench

package main

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/lab"
	"github.com/ds4relay/ds4relay/internal/lab/remote"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// handMade is what takes the place of ds4relay's tables on the router: marks and MSS clamp, as in byHand, and no
// rp_filter. The tunnel, its addresses, routes and policy rules stay.
const handMade = `nft flush ruleset
echo 0 >/proc/sys/net/ipv4/conf/wrap1/rp_filter
nft -f - <<EOF
table ip byhand {
	chain prerouting {
		type filter hook prerouting priority mangle;
		iifname wrap1 ct mark set 0x46000000
		iifname br-lan meta mark set ct mark
	}
	chain forward {
		type filter hook forward priority mangle;
		oifname wrap1 tcp flags syn tcp option maxseg size set rt mtu
	}
}
EOF
`

// Directions of a flood.
const (
	toHome = iota
	toClient
)

// floodSize is the payload of its datagrams. With all headers the outer packets are smaller than 1500 bytes.
const floodSize = 1380

// flood is a stream of datagrams between a client and the host, through the router's machine.
type flood struct {
	client   net.Conn
	host     net.PacketConn
	from     net.Addr // of the client, as the host sees it
	received [2]atomic.Int64
}

// newFlood connects a client with the host, and lets each answer the other, so that the connection is established.
func newFlood(t *testing.T, n *lab.Net, network, to string) *flood {
	t.Helper()
	host, err := n.Host.ListenPacket(network, ":5000")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close() })
	client, err := n.Client.Dial(network, to, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	f := &flood{client: client, host: host}
	buffer := make([]byte, 2*floodSize)
	for try := 0; f.from == nil; try++ { // WireGuard: until the first handshake
		if try == 100 {
			t.Fatalf("nothing arrives at %s", to)
		}
		client.Write(buffer[:floodSize])
		host.SetReadDeadline(time.Now().Add(time.Second))
		if _, from, err := host.ReadFrom(buffer); err == nil {
			f.from = from
		}
	}
	host.SetReadDeadline(time.Time{})
	count := func(direction int, read func([]byte) error) {
		buffer := make([]byte, 2*floodSize)
		for read(buffer) == nil {
			f.received[direction].Add(1)
		}
	}
	go count(toHome, func(b []byte) error { _, _, err := host.ReadFrom(b); return err })
	go count(toClient, func(b []byte) error { _, err := client.Read(b); return err })
	for _, direction := range []int{toClient, toHome, toClient} { // a flowtable takes it from now on
		f.send(direction)
		time.Sleep(rest)
	}
	return f
}

func (f *flood) send(direction int) {
	data := make([]byte, floodSize)
	if direction == toHome {
		f.client.Write(data)
	} else {
		f.host.WriteTo(data, f.from)
	}
}

// run sends until stop is closed, at most a window ahead of what has arrived. Lost datagrams are given up.
func (f *flood) run(direction int, stop <-chan struct{}) {
	const window = 64
	stuck := time.Now()
	for sent := f.received[direction].Load(); ; {
		select {
		case <-stop:
			return
		default:
		}
		switch arrived := f.received[direction].Load(); {
		case sent-arrived < window:
			f.send(direction)
			sent++
			stuck = time.Now()
		case time.Since(stuck) > patience:
			sent = arrived
		default:
			time.Sleep(50 * time.Microsecond)
		}
	}
}

// spin lets a loop take what is left of the router's CPU, for a time of its clock.
func spin(t *testing.T, long time.Duration) remote.Spun {
	t.Helper()
	var s remote.Spun
	output := onRouter(t, "", "/sbin/agent", "-spin", long.String()).Output
	if err := json.Unmarshal([]byte(output), &s); err != nil {
		t.Fatal(err, output)
	}
	return s
}

// TestBenchRouter counts the instructions of a router's CPU for each datagram, with both transports: through ds4relay,
// and through the same tunnel with the rules of one made by hand. The router's clock counts one instruction a
// nanosecond, and never stands still, as a loop of the lowest priority takes what is left. The rounds that it does not
// get are the datagrams' cost.
func TestBenchRouter(t *testing.T) {
	const (
		repetitions = 5
		calibration = time.Second
		measurement = calibration / 2
	)
	n := newRouterVM(t)
	vps := newEnd(t, n.VPS, vpsRelay+forwardAll)
	here := vps.newKey()
	up := func(vpsText, routerText string) {
		vps.write(vpsText)
		onRouter(t, routerText, "sh", "-c", "cat >/etc/config/ds4relay")
		vps.do("-q", "up")
		onRouter(t, "", "ds4relay", "-q", "up")
	}
	ipip6 := func() { up(vpsRelay+forwardAll, routerRelay+forwardAll) }
	wireGuard := func() {
		onRouter(t, `{"relay":"home"}`, "ds4relay", "rpcd", "call", "genkey")
		there, ok := transport.ParseKey(strings.TrimSpace(onRouter(t, "", "ds4relay", "pubkey", "home").Output))
		if !ok {
			t.Fatal("the router has no key")
		}
		head := strings.Replace(vps.wireGuardHead("router", here, "\toption peeraddr '"+lab.VPSIPv6.String()+"'\n"),
			vps.keyFile(), "/etc/ds4relay/keys/home", 1)
		up(vps.wireGuardHead("vps", there, "")+forwardAll, head+forwardAll)
	}
	spin(t, measurement) // the first start reads the program
	idle := spin(t, calibration)
	round := float64(idle.Elapsed.Nanoseconds()) / float64(idle.Rounds) // instructions
	fmt.Print("| path | to the home server | to the client |\n| --- | --- | --- |\n")
	for _, way := range []struct {
		name, network, to string
		start             func()
		handMade          bool
	}{
		{"plain IPv6 routing", "udp6", "[" + home6 + "]:5000", func() {}, false},
		{oursIPIP6, "udp4", public + ":5000", ipip6, false},
		{"IPv4 in IPv6 by hand", "udp4", public + ":5000", ipip6, true},
		{oursWireGuard, "udp4", public + ":5000", wireGuard, false},
		{byHandWireGuard, "udp4", public + ":5000", wireGuard, true},
	} {
		way.start()
		if way.handMade {
			onRouter(t, "", "sh", "-c", handMade)
		}
		t.Run(way.name, func(t *testing.T) {
			f := newFlood(t, n, way.network, way.to)
			var cost [2]float64
			for direction, card := range []string{toHome: "wan", toClient: "br-lan"} {
				var costs []float64
				for range repetitions {
					stop, stopped := make(chan struct{}), make(chan struct{})
					go func() { f.run(direction, stop); close(stopped) }()
					s := spin(t, measurement)
					close(stop)
					<-stopped
					t.Logf("%s: %d packets, %d rounds in %v", card, s.Packets[card], s.Rounds, s.Elapsed)
					lost := float64(s.Elapsed.Nanoseconds()) - float64(s.Rounds)*round
					costs = append(costs, lost/float64(s.Packets[card]))
				}
				cost[direction] = median(costs)
			}
			fmt.Printf("| %s | %.0f | %.0f |\n", way.name, cost[toHome], cost[toClient])
		})
		if way.name != "plain IPv6 routing" {
			onRouter(t, "", "sh", "-c", "nft flush ruleset; ds4relay -q down")
			vps.do("-q", "down")
		}
	}
}
