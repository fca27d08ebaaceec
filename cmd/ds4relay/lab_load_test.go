//go:build lab

package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/lab"
	"github.com/ds4relay/ds4relay/internal/reconcile"
)

// setGlobal changes a sysctl that all namespaces of the VM share, for the duration of the test.
func setGlobal(t *testing.T, path, value string) {
	t.Helper()
	if os.Getenv(lab.Environment) == "host" {
		t.Skip("would change a sysctl of the machine: " + path)
	}
	before, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, []byte(value), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.WriteFile(path, before, 0) })
}

const conntrackMax = "/proc/sys/net/netfilter/nf_conntrack_max"

// TestFlood: a stream survives a flood of SYNs and datagrams from everywhere, which fill the table of connections.
func TestFlood(t *testing.T) {
	const packets, limit = 12000, 4000
	r := newRelay(t, lab.Options{}, forwardAll)
	serveTCP(t, r.Host, 80)
	serveUDP(t, r.Host, 5000)
	r.up()
	setGlobal(t, conntrackMax, fmt.Sprint(limit))
	conn := open(t, r.Client, public+":80")
	stop := make(chan struct{})
	var wait sync.WaitGroup
	trips := 0
	wait.Add(1)
	go func() {
		defer wait.Done()
		out, in := make([]byte, 1000), make([]byte, 1000)
		for n := uint64(1); ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			binary.BigEndian.PutUint64(out, n)
			conn.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err := conn.Write(out); err != nil {
				t.Error(err)
				return
			}
			if _, err := io.ReadFull(conn, in); err != nil || binary.BigEndian.Uint64(in) != n {
				t.Errorf("round trip %d: %v", n, err)
				return
			}
			trips++
			time.Sleep(5 * time.Millisecond)
		}
	}()
	to := netip.MustParseAddr(public)
	anybody := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(20 + i%200)}),
			uint16(1024+rand.IntN(60000)))
	}
	start := time.Now()
	if err := lab.Flood(r.Client, "eth0", packets, func(i int) []byte {
		return lab.TCP4(anybody(i), netip.AddrPortFrom(to, uint16(1+i%60000)), 2)
	}); err != nil {
		t.Error(err)
	}
	if err := lab.Flood(r.Client, "eth0", packets, func(i int) []byte {
		return lab.UDP4(anybody(i), netip.AddrPortFrom(to, uint16(1+i%60000)), []byte("flood"))
	}); err != nil {
		t.Error(err)
	}
	took := time.Since(start)
	var status reconcile.Status
	if err := json.Unmarshal([]byte(r.vps.do("status", "--json")), &status); err != nil || status.Connections == nil {
		t.Fatal(err, status.Connections)
	}
	close(stop)
	wait.Wait()
	t.Logf("%d packets in %v; %d round trips meanwhile; %d of %d connections tracked", 2*packets,
		took.Round(time.Millisecond), trips, status.Connections.Count, status.Connections.Max)
	if trips < 10 {
		t.Errorf("%d round trips", trips)
	}
	if status.Connections.Count < limit/2 {
		t.Errorf("the flood filled %d of %d", status.Connections.Count, limit)
	}
}

// TestFull: if the table of connections is full, new ones are dropped, open ones continue, and status says so.
func TestFull(t *testing.T) {
	r := newRelay(t, lab.Options{}, forwardAll)
	serveTCP(t, r.Host, 80)
	r.up()
	var conns []net.Conn
	for range 20 {
		conn := open(t, r.Client, public+":80")
		alive(t, "before", conn) // makes the entry assured, so it is not evicted
		conns = append(conns, conn)
	}
	if out := r.vps.do("status"); !strings.Contains(out, "connections tracked: 2") || strings.Contains(out, "note: ") {
		t.Errorf("status before:\n%s", out)
	}
	setGlobal(t, conntrackMax, "20")
	refusedTCP(t, r.Client, public+":80")
	for _, conn := range conns {
		alive(t, "with a full table", conn)
	}
	if out := r.vps.do("status"); !strings.Contains(out, "note: the kernel keeps track of 20 connections of at most "+
		"20: when there is no room, new ones are dropped") {
		t.Errorf("status:\n%s", out)
	}
	conns[0].Close()
}

// fates are the results of datagrams, by the size of the IPv4 packet: those that arrived, those that the sender's own
// kernel refused, and the MTU that ICMP reported for others.
type fates struct {
	arrived, refused map[int]bool
	told             map[int]int
}

// datagrams sends UDP datagrams of every size from smallest to largest bytes. It repeats those without any result: a
// busy emulated machine may lose some.
func datagrams(t *testing.T, sender *lab.Host, conn *net.UDPConn, to net.Addr, receiver net.PacketConn, fragment bool,
	smallest, largest int) fates {
	t.Helper()
	f := fates{map[int]bool{}, map[int]bool{}, map[int]int{}}
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	mode := unix.IP_PMTUDISC_PROBE
	if fragment {
		mode = unix.IP_PMTUDISC_OMIT
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, mode) })
	if err != nil {
		t.Fatal(err)
	}
	payload := make([]byte, largest)
	send := func(size int) {
		for range 3 { // an ICMP error makes one write fail
			if to == nil {
				_, err = conn.Write(payload[:size])
			} else {
				_, err = conn.WriteTo(payload[:size], to)
			}
			if err == nil {
				delete(f.refused, size)
				return
			}
		}
		f.refused[size] = true // by the link, or because of errors that arrived in between
	}
	heard := func(icmp func() []lab.Packet) {
		for _, p := range icmp() {
			if !p.Outgoing && p.IPv6 == nil && p.Proto == 1 && p.ICMPType == 3 && p.ICMPCode == 4 &&
				len(p.Payload) >= 4 {
				f.told[int(binary.BigEndian.Uint16(p.Payload[2:]))] = p.ICMPMTU
			}
		}
	}
	// The tunnel learns of a narrow path from the first error, and packets sent meanwhile get the same error. So each
	// step down to a size that passes is sent alone.
	for length, silent, tries := 1500, 0, 0; !fragment && silent < 2 && tries < 10; tries++ {
		delete(f.told, length)
		icmp := capture(t, sender, "eth0")
		send(length - udpHeaders)
		lab.Settle()
		heard(icmp)
		if mtu, ok := f.told[length]; ok {
			length, silent = min(length, mtu), 0
		} else {
			silent++
		}
	}
	for range 4 {
		narrow := math.MaxInt // errors about fragments quote more than what passes
		for length := range f.told {
			if fragment {
				narrow = min(narrow, length)
			}
		}
		var unheard []int
		for size := smallest; size <= largest && size+udpHeaders < narrow; size++ {
			if _, told := f.told[size+udpHeaders]; !told && !f.arrived[size] &&
				(!f.refused[size] || size+udpHeaders <= 1500) {
				unheard = append(unheard, size)
			}
		}
		if len(unheard) == 0 {
			break
		}
		icmp := capture(t, sender, "eth0")
		var sent atomic.Bool
		done := make(chan struct{})
		go func() { // until everything is sent and nothing more arrives
			defer close(done)
			buffer := make([]byte, 1<<16)
			for {
				limit := patience
				if sent.Load() {
					limit = 50 * time.Millisecond
				}
				receiver.SetReadDeadline(time.Now().Add(limit))
				n, _, err := receiver.ReadFrom(buffer)
				switch {
				case err == nil:
					f.arrived[n] = true
				case sent.Load():
					return
				}
			}
		}()
		for i, size := range unheard {
			send(size)
			if i%32 == 31 {
				time.Sleep(3 * time.Millisecond)
			}
		}
		lab.Settle()
		sent.Store(true)
		receiver.SetReadDeadline(time.Now())
		<-done
		heard(icmp)
	}
	return f
}

// queueAll enlarges a socket's buffer for all datagrams of a round: with the kernel's 208 KiB, a reader that waits 10
// ms for a CPU misses several in a row.
func queueAll(t *testing.T, conn *net.UDPConn) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20) })
	if err != nil {
		t.Fatal(err)
	}
}

// udpHeaders are the IPv4 and UDP headers in bytes.
const udpHeaders = 28

// TestEverySize sends packets of every size over links of different MTU, with equal and different encapsulation limits.
func TestEverySize(t *testing.T) {
	const largest = 1600
	setGlobal(t, "/proc/sys/net/ipv4/icmp_msgs_per_sec", "1000000")
	setGlobal(t, "/proc/sys/net/ipv4/icmp_msgs_burst", "100000")
	for i, c := range []struct {
		access, path int
		vps, router  string // encaplimit
	}{
		{1500, 1500, "none", "none"}, {1500, 1500, "0", "255"}, {1492, 1500, "none", "none"}, {1400, 1500, "none", "4"},
		{1280, 1500, "none", "none"}, {1500, 1280, "4", "4"},
	} {
		t.Run(fmt.Sprintf("access=%d,path=%d,encaplimit=%s,%s", c.access, c.path, c.vps, c.router), func(t *testing.T) {
			smallest := 1150 // smaller sizes are far from every limit, and are tested once
			if i == 0 {
				smallest = 1
			}
			r := newRelay(t, lab.Options{AccessMTU: c.access, PathMTU: c.path}, forwardAll)
			r.vps.write(vpsRelay + "\toption encaplimit '" + c.vps + "'\n" + forwardAll)
			r.router.write(routerRelay + "\toption encaplimit '" + c.router + "'\n" + forwardAll)
			for _, h := range []*lab.Host{r.Client, r.Core, r.VPS, r.ISP, r.Router, r.Host} {
				for _, key := range []string{"net/ipv4/icmp_ratelimit", "net/ipv6/icmp/ratelimit"} {
					if err := h.Sysctl(key, "0"); err != nil {
						t.Fatal(err)
					}
				}
			}
			r.up()
			packets, err := r.Host.ListenPacket("udp4", ":5000")
			if err != nil {
				t.Fatal(err)
			}
			defer packets.Close()
			dialed, err := r.Client.Dial("udp4", public+":5000", patience)
			if err != nil {
				t.Fatal(err)
			}
			defer dialed.Close()
			client, server := dialed.(*net.UDPConn), packets.(*net.UDPConn)
			for _, conn := range []*net.UDPConn{client, server} {
				queueAll(t, conn)
			}
			for direction, limit := range map[string]string{"to the host": c.vps, "to the client": c.router} {
				inner := min(c.access, c.path) - 40
				if limit != "none" {
					inner -= 8
				}
				for _, fragment := range []bool{false, true} {
					var f fates
					if direction == "to the host" {
						f = datagrams(t, r.Client, client, nil, server, fragment, smallest, largest)
					} else {
						// The client's packet opens the connection.
						var from net.Addr
						for range 3 { // the first write may return an earlier error
							client.Write([]byte("x"))
							server.SetReadDeadline(time.Now().Add(time.Second))
							if _, from, err = server.ReadFrom(make([]byte, 1<<16)); err == nil {
								break
							}
						}
						if err != nil {
							t.Fatal(err)
						}
						f = datagrams(t, r.Host, server, from, client, fragment, smallest, largest)
					}
					counts := map[string]int{}
					for size := smallest; size <= largest; size++ {
						length := size + udpHeaders
						switch {
						case f.arrived[size]:
							counts["arrived"]++
							if !fragment && length > inner {
								t.Errorf("%s: %d bytes arrived unfragmented through a tunnel of %d", direction, length,
									inner)
							}
						case length <= inner:
							t.Errorf("%s, fragment=%v: %d bytes did not arrive", direction, fragment, length)
						case f.refused[size] && !fragment && length > 1500:
							counts["refused by the sender's own link"]++
						default:
							mtu, ok := f.told[length]
							for quoted, m := range f.told { // for fragments, the error quotes the fragment
								if fragment && !ok && quoted > inner {
									mtu, ok = m, true
								}
							}
							// The first error about a path narrower than 1320 bytes says 1280 (docs/dev/kernel.md).
							if ok && mtu == 1280 && min(c.access, c.path) == 1280 && counts["told wrongly"] == 0 {
								counts["told wrongly"]++
								continue
							}
							if !ok || mtu < inner || mtu >= min(length, 1501) {
								t.Errorf("%s, fragment=%v: %d bytes did not arrive, and ICMP told %d (%v), want %d",
									direction, fragment, length, mtu, ok, inner)
							}
							counts["answered by ICMP"]++
						}
					}
					t.Logf("%s, fragment=%v: %v", direction, fragment, counts)
				}
			}
		})
	}
}

// TestFollowsMTU: `mtu auto` follows the route to the peer at the next up, and status reports the difference until
// then.
func TestFollowsMTU(t *testing.T) {
	r := newRelay(t, lab.Options{}, forwardAll)
	r.up()
	for _, e := range []*end{r.vps, r.router} {
		device := map[*end]string{r.vps: "eth0", r.router: "wan"}[e]
		for mtu, want := range map[string]string{"1492": "1452", "1500": "1460"} {
			if out, err := e.host.Run("ip", "link", "set", device, "mtu", mtu); err != nil {
				t.Fatal(err, out)
			}
			if code, out, _ := e.try("status"); mtu == "1492" &&
				(code != exitDiffers || !strings.Contains(out, "mtu "+want)) {
				t.Errorf("%s: status after the MTU of %s is %s: %d\n%s", e.host.Name, device, mtu, code, out)
			}
			e.do("up")
			if out := e.do("status"); !strings.Contains(out, "mtu "+want+",") {
				t.Errorf("%s: after up with mtu %s:\n%s", e.host.Name, mtu, out)
			}
		}
	}
}
