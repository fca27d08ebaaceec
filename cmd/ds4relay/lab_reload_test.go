//go:build lab

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/lab"
	"github.com/ds4relay/ds4relay/internal/lab/vm"
	"github.com/ds4relay/ds4relay/internal/reconcile"
	"github.com/ds4relay/ds4relay/internal/state"
)

// open connects to an echoing server and reads the first line.
func open(t *testing.T, h *lab.Host, to string) net.Conn {
	t.Helper()
	_, conn, err := askTCP(h, to)
	if err != nil {
		t.Fatalf("%s to %s: %v", h.Name, to, err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// alive fails the test unless the connection echoes.
func alive(t *testing.T, what string, conn net.Conn) {
	t.Helper()
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Write([]byte("!")); err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// echoes fails the test unless the connection echoes that many bytes.
func echoes(t *testing.T, what string, conn net.Conn, size int) {
	t.Helper()
	conn.SetDeadline(time.Now().Add(12 * patience))
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(make([]byte, size))
		sent <- err
	}()
	if _, err := io.ReadFull(conn, make([]byte, size)); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	if err := <-sent; err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// ended fails the test unless the connection is broken or nothing is echoed.
func ended(t *testing.T, what string, conn net.Conn) {
	t.Helper()
	conn.SetDeadline(time.Now().Add(1500 * time.Millisecond))
	if _, err := conn.Write([]byte("!")); err != nil {
		return
	}
	if n, _ := io.ReadFull(conn, make([]byte, 1)); n > 0 {
		t.Errorf("%s goes on", what)
	}
}

// TestConnectionsEnd: connections of removed forwards end, if removed at either end alone; others continue.
func TestConnectionsEnd(t *testing.T) {
	two := strings.Replace(forwardWeb, "'web'", "'two'", 1)
	two = strings.Replace(strings.Replace(two, "8080", "8081", 1), "'80'", "'81'", 1)
	for _, egress := range []string{"replies", "all"} {
		for _, ends := range []string{"both", "vps", "router"} {
			if egress == "all" && ends != "both" {
				continue
			}
			t.Run(egress+" "+ends, func(t *testing.T) {
				option := "\toption egress '" + egress + "'\n"
				both, one := forwardWeb+option+two+option, forwardWeb+option
				r := newRelay(t, lab.Options{}, both)
				for _, port := range []int{80, 81} {
					serveTCP(t, r.Host2, port)
					serveUDP(t, r.Host2, port)
				}
				r.up()
				stays, goes := open(t, r.Client, public+":8080"), open(t, r.Client, public+":8081")
				udp, err := r.Client.Dial("udp4", public+":8081", patience)
				if err != nil {
					t.Fatal(err)
				}
				defer udp.Close()
				udp.Write([]byte("?"))
				udp.SetDeadline(time.Now().Add(patience))
				if _, err := udp.Read(make([]byte, 100)); err != nil {
					t.Fatal(err)
				}
				if ends != "router" {
					r.vps.write(vpsRelay + one)
					r.vps.do("reload")
				}
				if ends != "vps" {
					r.router.write(routerRelay + one)
					r.router.do("reload")
				}
				alive(t, "what stays", stays)
				ended(t, "the removed forward", goes)
				udp.SetDeadline(time.Now().Add(time.Second))
				udp.Write([]byte("?"))
				if n, err := udp.Read(make([]byte, 100)); err == nil {
					t.Errorf("over UDP the removed forward goes on: %d bytes", n)
				}

				for _, e := range []*end{r.vps, r.router} {
					if ends == "both" && !strings.HasPrefix(e.do("up"), "Nothing to do") {
						t.Errorf("%s: a second up has something to do", e.host.Name)
					}
				}

				// The forward returns; clients that kept trying are served again.
				r.vps.write(vpsRelay + both)
				r.router.write(routerRelay + both)
				r.up()
				// The first error may be an earlier one.
				for range 3 {
					udp.SetDeadline(time.Now().Add(patience))
					if _, err = udp.Write([]byte("?")); err == nil {
						if _, err = udp.Read(make([]byte, 100)); err == nil {
							break
						}
					}
				}
				if err != nil {
					t.Errorf("the forward that came again: %v", err)
				}
				alive(t, "what stays", stays)

				// down ends all connections.
				r.vps.do("down")
				ended(t, "what had stayed, after down", stays)
			})
		}
	}
}

// TestEgressEnds: when a host has no egress all any more, at either end alone, its open connections do not go on past
// that: on the router they belong to another line from then on, and are answered there. When it has egress all again,
// none goes on with the address that the router has given it for the other line.
func TestEgressEnds(t *testing.T) {
	all := forwardWeb + "\toption egress 'all'\n"
	r := newRelay(t, lab.Options{}, all)
	serveTCP(t, r.Client, 90)
	serveUDP(t, r.Client, 90)
	if err := r.Router.NFT("table ip home { chain nat { type nat hook postrouting priority srcnat; oifname " +
		lab.DSLiteDevice + " snat to 192.168.1.1; }; }"); err != nil {
		t.Fatal(err)
	}
	r.up()
	udp, err := r.Host2.Dial("udp4", client4+":90", patience)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	answered := func(what, want string) {
		t.Helper()
		var seen string
		var err error
		for range 3 { // the first error may be an earlier one
			answer := make([]byte, 100)
			udp.SetDeadline(time.Now().Add(patience))
			if _, err = udp.Write([]byte("?")); err != nil {
				continue
			}
			var n int
			if n, err = udp.Read(answer); err == nil {
				seen, _, _ = strings.Cut(string(answer[:n]), ":")
				break
			}
		}
		if seen != want {
			t.Errorf("%s: a datagram comes from %q (%v), want %s", what, seen, err, want)
		}
	}
	for _, e := range []*end{r.router, r.vps} {
		relay := map[*end]string{r.router: routerRelay, r.vps: vpsRelay}[e]
		tcp := open(t, r.Host2, client4+":90")
		alive(t, "a connection through the tunnel", tcp)
		answered("through the tunnel", public)
		e.write(relay + forwardWeb)
		e.do("reload")
		ended(t, e.host.Name+": a connection that was in the tunnel", tcp)
		if e == r.router {
			answered("by the line", lab.CarrierIPv4.String())
		} else {
			ended(t, e.host.Name+": what was in the tunnel over UDP", udp)
		}
		e.write(relay + all)
		e.do("reload")
		lab.Settle()
		answered(e.host.Name+": egress all again", public)
	}
}

// countDiscards counts the packets that the kernel discards from now on because another CPU has just renewed the
// exception of their route (docs/dev/kernel.md, "Renewed exceptions"): a program cannot prevent that.
func countDiscards(t *testing.T) func() int {
	t.Helper()
	if os.Getenv(lab.Environment) == "host" {
		return func() int { return 0 } // tracing concerns the whole machine
	}
	read := func() int {
		t.Helper()
		data, err := os.ReadFile(vm.Drops)
		if err != nil {
			t.Fatal(err)
		}
		sum := 0
		for _, match := range regexp.MustCompile(`\] dst_discard\w* .*hitcount: *(\d+)`).FindAllSubmatch(data, -1) {
			n, _ := strconv.Atoi(string(match[1]))
			sum += n
		}
		return sum
	}
	before := read()
	return func() int {
		t.Helper()
		return read() - before
	}
}

// missingPackets counts a forward's TCP and UDP packets from now on that one end sent and the other did not receive,
// minus those counted by discards (may be nil). It waits up to a second for packets in flight.
func missingPackets(t *testing.T, client *lab.Host, port string, server *lab.Host, serverPort string,
	discards func() int) func() int {
	t.Helper()
	ends := map[*lab.Host]string{client: port, server: serverPort}
	for h, port := range ends {
		table := fmt.Sprintf(`table ip count {
	counter sent { }
	counter received { }
	chain postrouting {
		type filter hook postrouting priority 300;
		meta l4proto { tcp, udp } th dport %[1]s counter name sent
		meta l4proto { tcp, udp } th sport %[1]s counter name sent
	}
	chain prerouting {
		type filter hook prerouting priority -400;
		meta l4proto { tcp, udp } th dport %[1]s counter name received
		meta l4proto { tcp, udp } th sport %[1]s counter name received
	}
}`, port)
		if out, err := h.RunInput(table, "nft", "-f", "-"); err != nil {
			t.Fatal(err, out)
		}
	}
	packets := regexp.MustCompile(`counter (\w+) \{\s*packets (\d+)`)
	return func() int {
		t.Helper()
		missing := 0
		for range 50 {
			missing = 0
			for h := range ends {
				out, err := h.Run("nft", "list", "counters", "table", "ip", "count")
				if err != nil {
					t.Fatal(err, out)
				}
				for _, match := range packets.FindAllStringSubmatch(out, -1) {
					n, _ := strconv.Atoi(match[2])
					if match[1] == "received" {
						n = -n
					}
					missing += n
				}
			}
			if discards != nil {
				missing -= discards()
			}
			if missing == 0 {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		return missing
	}
}

// changed returns both ends' files after the nth of many changes of forwards other than forwardWeb: some are added,
// changed and removed, and another home comes and goes.
func changed(n int) (vps, router string) {
	var more strings.Builder
	more.WriteString(forwardWeb)
	for i := range n % 4 {
		fmt.Fprintf(&more, "\nconfig forward 'f%d'\n\toption src_dport '%d'\n\toption dest_ip "+
			"'192.168.1.210'\n\toption dest_port '%d'\n", i, 7000+i, 7000+n)
	}
	switch n % 10 {
	case 3:
		more.WriteString("\toption src_ip '203.0.113.0/24'\n")
	case 5:
		more.WriteString(forwardAll)
	case 7:
		more.WriteString("\nconfig forward 'wide'\n\toption src_dport '10000-20000'\n\toption dest_ip " +
			"'192.168.1.211'\n")
	}
	if n%10 < 8 {
		return vpsRelay + more.String(), routerRelay + more.String()
	}
	cabin := strings.Replace(vpsRelay, "relay 'home'", "relay 'cabin'", 1) // with the same addresses
	cabin = strings.NewReplacer("wrap1", "wrap2", "fdd2", "fdd6").Replace(cabin)
	return vpsRelay + "\n" + cabin + "\nconfig forward 'away'\n\toption relay 'cabin'\n\toption src_dport " +
		"'6000'\n\toption dest_ip '192.168.1.211'\n" + strings.ReplaceAll(more.String(), "\toption dest_ip",
		"\toption relay 'home'\n\toption dest_ip"), routerRelay + more.String()
}

// watched calls a function after each step.
type watched struct {
	reconcile.Kernel
	after func(state.Step)
}

func (w watched) Apply(step state.Step) error {
	err := w.Kernel.Apply(step)
	w.after(step)
	return err
}

// TestAloneEveryStepInvisible: after every single step of a change, a packet of an unchanged forward passes in both
// directions. So it does not matter how long the next step takes.
func TestAloneEveryStepInvisible(t *testing.T) {
	r := newRelay(t, lab.Options{Second: true}, forwardWeb)
	serveUDP(t, r.Host2, 80)
	listener, err := r.Host2.Listen("tcp4", ":80")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	accepted := make(chan net.Conn, 1000)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(conn, conn.RemoteAddr())
			accepted <- conn
		}
	}()
	r.up()
	stream := open(t, r.Client, public+":8080")
	server := <-accepted
	udp, err := r.Client.Dial("udp4", public+":8080", patience)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	steps := 0
	missing := missingPackets(t, r.Client, "8080", r.Host2, "80", nil)
	after := func(step state.Step) {
		steps++
		fmt.Fprintf(udp, "%d", steps)
		udp.SetReadDeadline(time.Now().Add(2 * time.Second))
		if _, err := udp.Read(make([]byte, 200)); err != nil {
			t.Errorf("after %s: a datagram: %v", step.Commands()[0], err)
		}
		// The host sends first: the client's packet would create a lost connection tracking entry again.
		server.SetDeadline(time.Now().Add(patience))
		stream.SetDeadline(time.Now().Add(patience))
		if _, err := server.Write([]byte("!")); err != nil {
			t.Errorf("after %s: the host's end of the stream: %v", step.Commands()[0], err)
		} else if _, err := io.ReadFull(stream, make([]byte, 1)); err != nil {
			t.Errorf("after %s: the stream: %v", step.Commands()[0], err)
		}
		if n := missing(); n != 0 {
			t.Errorf("after %s: %d packets were lost", step.Commands()[0], n)
		}
		_, conn, err := askTCP(r.Client, public+":8080")
		if err != nil {
			t.Errorf("after %s: a new connection: %v", step.Commands()[0], err)
			return
		}
		conn.Close()
		(<-accepted).Close()
	}
	for _, e := range []*end{r.vps, r.router} {
		e.apply = func(k reconcile.Kernel) reconcile.Kernel { return watched{k, after} }
	}
	for n := range 22 {
		vps, router := changed(n)
		r.vps.write(vps)
		r.router.write(router)
		r.vps.do("reload")
		r.router.do("reload")
	}
	t.Logf("looked after each of %d steps", steps)
	if steps < 50 {
		t.Error("these are too few steps to say anything")
	}
}

// TestAloneReloadInvisible changes the forwards forty times under 200 TCP streams and a UDP stream of another
// forward. Only the few packets that the kernel itself discards may be lost.
func TestAloneReloadInvisible(t *testing.T) {
	const streams, changes, bearable = 200, 40, 10
	r := newRelay(t, lab.Options{Second: true}, forwardWeb)
	serveTCP(t, r.Host2, 80)
	serveUDP(t, r.Host2, 80)
	r.up()
	discards := countDiscards(t)
	missing := missingPackets(t, r.Client, "8080", r.Host2, "80", discards)

	var stop atomic.Bool
	var wait sync.WaitGroup
	var trips atomic.Int64
	for i := range streams {
		conn := open(t, r.Client, public+":8080")
		wait.Add(1)
		go func() {
			defer wait.Done()
			out, in := make([]byte, 64), make([]byte, 64)
			for n := uint64(1); !stop.Load(); n++ {
				binary.BigEndian.PutUint64(out, n)
				conn.SetDeadline(time.Now().Add(20 * time.Second))
				if _, err := conn.Write(out); err != nil {
					t.Errorf("stream %d: %v", i, err)
					return
				}
				if _, err := io.ReadFull(conn, in); err != nil || binary.BigEndian.Uint64(in) != n {
					t.Errorf("stream %d: %v", i, err)
					return
				}
				trips.Add(1)
				time.Sleep(time.Second)
			}
		}()
	}
	udp, err := r.Client.Dial("udp4", public+":8080", patience)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	defer func() { stop.Store(true); wait.Wait() }()
	var sent, received atomic.Int64
	wait.Add(1)
	go func() {
		defer wait.Done()
		for !stop.Load() {
			if _, err := fmt.Fprintf(udp, "%d", sent.Add(1)); err != nil {
				t.Error(err)
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	wait.Add(1)
	go func() {
		defer wait.Done()
		buffer := make([]byte, 200)
		for !stop.Load() || received.Load() < sent.Load() {
			udp.SetReadDeadline(time.Now().Add(3 * time.Second))
			switch _, err := udp.Read(buffer); {
			case err == nil:
				received.Add(1)
			case !errors.Is(err, os.ErrDeadlineExceeded):
				t.Errorf("the UDP stream: %v", err)
				return
			case stop.Load():
				return
			}
		}
	}()

	start := time.Now()
	for n := range changes {
		vps, router := changed(n)
		r.vps.write(vps)
		r.router.write(router)
		for _, e := range []*end{r.vps, r.router} {
			out := e.do("reload")
			if n > 0 && strings.Contains(out, "Nothing to do") && n%4 != 0 {
				t.Errorf("change %d did nothing", n)
			}
			if n%10 != 3 {
				continue
			}
			if again := e.do("reload"); !strings.Contains(again, "Nothing to do") {
				t.Fatalf("a second reload after change %d:\n%s", n, again)
			}
		}
	}
	took := time.Since(start)
	// Traffic continues for a while after the last change.
	for last, deadline := received.Load(), time.Now().Add(patience); received.Load() < last+20 &&
		time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	stop.Store(true)
	wait.Wait()
	missed, thrown := missing(), discards()
	t.Logf("%d changes in %v: %d round trips over TCP; %d of %d datagrams came back; the kernel threw away %d packets",
		changes, took.Round(time.Millisecond), trips.Load(), received.Load(), sent.Load(), thrown)
	if missed != 0 {
		t.Errorf("%d packets were lost", missed)
	}
	if thrown > bearable {
		t.Errorf("the kernel threw away %d packets", thrown)
	}
	if sent.Load()-received.Load() > int64(thrown) || received.Load() > sent.Load() {
		t.Errorf("of %d datagrams %d came back", sent.Load(), received.Load())
	}
	if trips.Load() < streams {
		t.Errorf("only %d round trips", trips.Load())
	}
}
