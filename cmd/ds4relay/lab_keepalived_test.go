//go:build lab

package main

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/lab"
)

// pairPage has the files of two VPSs with one public address.
const pairPage = "../../docs/more-than-one.md"

// twin is one of two VPSs with one public address, or their home, with the files of the page.
type twin struct {
	*room
	dir  string // with what its daemons say
	port string // its end of the cable at the provider
}

// peers are the relays of the VPSs: with transport wireguard, keys go by the names, so they have those of the home.
var peers = map[string]string{"VPS 1": "first", "VPS 2": "second"}

// pairFiles returns the files of the page for the machine of that name, by path. The second VPS's are those of the
// first with both addresses and prefixes exchanged, and with the other priority, as the page says.
func pairFiles(t *testing.T, name string) map[string]string {
	t.Helper()
	page, err := os.ReadFile(pairPage)
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(page), "\n## Two VPSs, one address\n")
	if !ok {
		t.Fatalf("%s has no section about one address", pairPage)
	}
	second := strings.NewReplacer("198.51.100.150", "198.51.100.200", "198.51.100.200", "198.51.100.150",
		"2001:db8:6ef9::", "2001:db8:6efa::", "priority 150", "priority 100")
	files := map[string]string{}
	for _, b := range blocks(section) {
		who, path, _ := strings.Cut(b.head, ": ")
		text := strings.Join(b.lines, "\n") + "\n"
		switch {
		case strings.HasPrefix(path, "/etc/systemd/"):
			continue // there is no systemd here
		case who == name, who == "both VPSs" && name != "router":
		case who == "VPS 1" && name == "VPS 2":
			text = second.Replace(text)
		default:
			continue
		}
		files[path] = text
	}
	return files
}

// newTwin writes the files of a machine of the page. With transport wireguard its relays have other ends and keys.
func newTwin(t *testing.T, h *lab.Host, name, port string) *twin {
	t.Helper()
	v := &twin{dir: t.TempDir(), port: port}
	v.room = newRoom(t, h, `
		mkdir -p /run/lock /etc/keepalived /etc/conntrackd
		for dir in /etc/keepalived /etc/conntrackd; do mount -t tmpfs -o mode=755 room $dir; done`)
	for path, text := range pairFiles(t, name) {
		if path == "/etc/config/ds4relay" {
			text = v.relays(t, h, name, text)
		}
		mode := "0644"
		if strings.HasPrefix(text, "#!") {
			mode = "0755"
			text = strings.Replace(text, "status home", "status "+peers[name], 1)
		}
		v.do(t, "cat >"+path+" && chmod "+mode+" "+path, text)
	}
	return v
}

// relays returns the relays of a machine with the transport of the test.
func (v *twin) relays(t *testing.T, h *lab.Host, name, text string) string {
	if peer, ok := peers[name]; ok {
		prefix := map[string]netip.Prefix{"first": lab.VPSPrefix, "second": lab.VPS2Prefix}[peer]
		text = strings.NewReplacer("config relay 'home'\n", "config relay '"+peer+"'\n\toption device 'ds4-home'\n",
			"config forward 'server'\n",
			fmt.Sprintf(cabinOfVPS, peer, public, prefix, lab.CabinLAN, cabinPort, cabinHost)+
				"config forward 'server'\n\toption relay '"+peer+"'\n").Replace(text)
	}
	if os.Getenv(transportEnv) == "wireguard" {
		text += "\toption egress 'all'\n" // of the forward, which is the last section
		if name == "router" {
			text = strings.Replace(text, "relay 'first'\n", "relay 'first'\n\toption backup 'second'\n", 1)
		}
	}
	e := newEnd(t, h, text)
	written, err := os.ReadFile(e.config)
	if err != nil {
		t.Fatal(err)
	}
	return string(written)
}

// The public address has a port of another home, which has relays with both VPSs as well. conntrackd knows no zones:
// its hosts have other addresses than the first home's.
const (
	cabinPort   = "9000"
	cabinRouter = "192.168.2.1"
	cabinHost   = "192.168.2.210"

	cabinOfVPS = `config relay 'far_%[1]s'
	option device   'ds4-cabin'
	option role     'vps'
	option ipaddr   '%[2]s'
	option standby  '1'
	option ip6addr  '%[3]s'
	option peeraddr '%[4]s'

config forward 'cabin_port'
	option relay     'far_%[1]s'
	option proto     'udp'
	option src_dport '%[5]s'
	option dest_ip   '%[6]s'

`
	cabinRelay = `config relay 'far_%[1]s'
	option device   'ds4-%[1]s'
	option role     'router'
	option ipaddr   '%[2]s'
	option ip6addr  '%[3]s'
	option peeraddr '%[4]s'
	option ip4table '%[5]d'
	option priority '%[6]d'

`
	cabinForward = `config forward 'cabin_port'
	list   relay     'far_first'
	list   relay     'far_second'
	option proto     'udp'
	option src_dport '%s'
	option dest_ip   '%s'
`
)

// newCabin is the other home's router.
func newCabin(t *testing.T, n *lab.Net) *end {
	t.Helper()
	for _, a := range []struct {
		host            *lab.Host
		device, address string
	}{{n.CabinRouter, lab.LANDevice, cabinRouter}, {n.CabinHost, "eth0", cabinHost}} {
		if out, err := a.host.Run("ip", "addr", "add", a.address+"/24", "dev", a.device); err != nil {
			t.Fatal(err, out)
		}
	}
	e := newEnd(t, n.CabinRouter,
		fmt.Sprintf(cabinRelay, "first", public, lab.CabinLAN, lab.VPSPrefix, 42, 4600)+
			fmt.Sprintf(cabinRelay, "second", public, lab.CabinLAN, lab.VPS2Prefix, 43, 4610)+
			fmt.Sprintf(cabinForward, cabinPort, cabinHost))
	e.do("up")
	return e
}

// start runs a daemon until the test ends or it is killed.
func (v *twin) start(t *testing.T, command string) {
	t.Helper()
	name, _, _ := strings.Cut(command, " ")
	log, err := os.OpenFile(v.log(name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	cmd := v.host.Command("nsenter", "--target", v.pid, "--mount", "sh", "-c", "exec "+command)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	log.Close()
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	t.Cleanup(func() {
		v.kill(t, name)
		<-done
		if t.Failed() {
			text, _ := os.ReadFile(v.log(name))
			t.Logf("%s: %s:\n%s", v.host.Name, name, text)
		}
	})
}

func (v *twin) log(name string) string { return filepath.Join(v.dir, name+".log") }

// logged waits until a daemon has said something after a place of its log, and returns the place behind that.
func (v *twin) logged(t *testing.T, name, what string, after int) int {
	t.Helper()
	for end := time.Now().Add(12 * patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		text, _ := os.ReadFile(v.log(name))
		if at := strings.Index(string(text[min(after, len(text)):]), what); at >= 0 {
			return after + at + len(what)
		}
	}
	t.Fatalf("%s: %s has not said %q", v.host.Name, name, what)
	return 0
}

// kill ends the processes of a program in the machine at once, and waits until they are gone. They are stopped first:
// none may see another one's end, and clean up.
func (v *twin) kill(t *testing.T, name string) {
	t.Helper()
	signal := unix.SIGSTOP
	for end := time.Now().Add(12 * patience); ; time.Sleep(10 * time.Millisecond) {
		left := v.processes(t, name)
		for _, pid := range left {
			unix.Kill(pid, signal)
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Errorf("%s: %s cannot be killed", v.host.Name, name)
			return
		}
		signal = unix.SIGKILL
	}
}

// processes lists those of a program in the machine.
func (v *twin) processes(t *testing.T, name string) (pids []int) {
	t.Helper()
	here, err := os.Readlink("/proc/" + v.pid + "/ns/mnt")
	if err != nil {
		t.Error(err)
		return nil
	}
	spaces, _ := filepath.Glob("/proc/[0-9]*/ns/mnt")
	for _, space := range spaces {
		process := filepath.Dir(filepath.Dir(space))
		its, _ := os.Readlink(space)
		said, _ := os.ReadFile(process + "/comm")
		pid, err := strconv.Atoi(filepath.Base(process))
		if err == nil && its == here && strings.HasPrefix(string(said), name) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// has reports whether the machine has the public address.
func (v *twin) has(t *testing.T) bool {
	t.Helper()
	addrs, err := v.host.Netlink.AddrList(nil, unix.AF_INET)
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.IP.String() == public })
}

// takes waits until the machine has the public address, and returns when.
func (v *twin) takes(t *testing.T) time.Time {
	t.Helper()
	for end := time.Now().Add(12 * patience); !v.has(t); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s does not take the public address", v.host.Name)
		}
	}
	return time.Now()
}

// loses waits until the machine does not have the public address any more.
func (v *twin) loses(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(12 * patience); v.has(t); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s keeps the public address", v.host.Name)
		}
	}
}

// pairedVPSs is the whole of it: two VPSs, their home, and traffic.
type pairedVPSs struct {
	*lab.Net
	t       *testing.T
	first   *twin
	second  *twin
	home    *twin
	cabin   *end           // another home, with a port of the same address
	stray   net.PacketConn // of the home's server, where the cabin's packets must not arrive
	traffic *streams
	kinds   []string // of the streams
}

const (
	keepalived = "keepalived --dont-fork --log-console --log-detail"
	conntrackd = "conntrackd -C /etc/conntrackd/conntrackd.conf"
)

func newPair(t *testing.T) *pairedVPSs {
	n, err := lab.New(lab.Options{Second: true, OneNetwork: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := installed(); err != nil {
		t.Fatal(err)
	}
	p := &pairedVPSs{Net: n, t: t, first: newTwin(t, n.VPS, "VPS 1", "vps"), second: newTwin(t, n.VPS2, "VPS 2", "vps2"),
		home: newTwin(t, n.Router, "router", "")}
	for _, v := range []*twin{p.first, p.second, p.home} {
		v.do(t, "ds4relay up", "")
	}
	p.cabin = newCabin(t, n)
	for _, v := range []*twin{p.first, p.second} {
		v.start(t, conntrackd)
	}
	p.first.start(t, keepalived) // the second one's comes when the connections are open
	p.first.takes(t)
	return p
}

// load opens connections and lets them carry something all the time.
func (p *pairedVPSs) load(half int) {
	t := p.t
	t.Helper()
	p.traffic = newStreams(t)
	listener, err := p.Host.Listen("tcp4", ":80")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for i := range 2 * half {
		client, server := pair(t, p.Client, public+":80", listener)
		switch {
		case i%2 == 0:
			p.traffic.add("downloads", server, client)
		case i%4 == 1:
			p.traffic.add("uploads", client, server)
		default:
			go echoTCP(server)
			p.traffic.add("echoes", client, client)
		}
	}
	p.kinds = []string{"downloads", "uploads", "echoes"}
	if os.Getenv(transportEnv) == "wireguard" {
		p.kinds = append(p.kinds, "connections of the host")
		from, err := p.Client.Listen("tcp4", ":90")
		if err != nil {
			t.Fatal(err)
		}
		defer from.Close()
		for range half / 5 {
			server, client := pair(t, p.Host, client4+":90", from)
			if seen := client.RemoteAddr().(*net.TCPAddr).IP.String(); seen != public {
				t.Fatalf("a connection of the host comes from %s", seen)
			}
			go echoTCP(client)
			p.traffic.add("connections of the host", server, server)
		}
	}
	datagrams, err := p.Host.ListenPacket("udp4", ":5000")
	if err != nil {
		t.Fatal(err)
	}
	there, back := pairUDP(t, p.Client, public+":5000", datagrams)
	p.traffic.add("UDP to the home", there, back)
	p.traffic.add("UDP from the home", back, there)
	cabin, err := p.CabinHost.ListenPacket("udp4", cabinHost+":"+cabinPort)
	if err != nil {
		t.Fatal(err)
	}
	if p.stray, err = p.Host.ListenPacket("udp4", ":"+cabinPort); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.stray.Close() })
	there, back = pairUDP(t, p.Client, public+":"+cabinPort, cabin)
	p.traffic.add("UDP to the cabin", there, back)
	p.traffic.add("UDP from the cabin", back, there)
	p.kinds = append(p.kinds, "UDP to the home", "UDP from the home", "UDP to the cabin", "UDP from the cabin")
	p.traffic.begin()
}

func echoTCP(conn net.Conn) {
	io.Copy(conn, conn)
	conn.Close()
}

// measure lets something happen, after which a machine has the public address, and waits until all traffic has moved.
func (p *pairedVPSs) measure(what string, then *twin, event func()) {
	p.t.Helper()
	p.traffic.restart()
	event()
	p.traffic.since(what, then.takes(p.t), p.kinds...)
}

// cable switches a VPS's cable at the provider on or off.
func (p *pairedVPSs) cable(v *twin, state string) {
	p.t.Helper()
	if out, err := p.Core.Run("ip", "link", "set", v.port, state); err != nil {
		p.t.Fatal(err, out)
	}
}

// network sets the state of a VPS's port at the switch: 3 forwards, 0 does not. The VPS does not see it.
func (p *pairedVPSs) network(v *twin, state string) {
	p.t.Helper()
	if out, err := p.Core.Run("bridge", "link", "set", "dev", v.port, "state", state); err != nil {
		p.t.Fatal(err, out)
	}
}

// off is a power failure: nothing says good-bye.
func (p *pairedVPSs) off(v *twin) {
	p.t.Helper()
	p.cable(v, "down")
	v.kill(p.t, "keepalived")
	v.kill(p.t, "conntrackd")
}

// boots is what a VPS does after that, until its relay: keepalived does not wait for it, and must not take the address.
func (p *pairedVPSs) boots(v *twin) {
	t := p.t
	t.Helper()
	v.do(t, "ds4relay down; ip addr del "+public+"/32 dev eth0; rm -rf /run/lock/* /run/*.pid /run/conntrackd.ctl", "")
	p.cable(v, "up")
	v.start(t, conntrackd)
	text, _ := os.ReadFile(v.log("keepalived"))
	v.start(t, keepalived)
	v.logged(t, "keepalived", "entering FAULT state", len(text))
	p.traffic.since("the first is back without its relay", time.Now(), p.kinds...)
	if v.has(t) {
		t.Error("without its relay the first VPS has taken the public address")
	}
}

// unsynced ends conntrackd, and lets the second VPS forget what it knows of connections.
func (p *pairedVPSs) unsynced() {
	p.t.Helper()
	for _, v := range []*twin{p.first, p.second} {
		v.kill(p.t, "conntrackd")
	}
	if err := p.second.host.Netlink.ConntrackTableFlush(netlink.ConntrackTable); err != nil {
		p.t.Fatal(err)
	}
}

// stranded: without conntrackd the other VPS does not know connections whose clients only listen.
func (p *pairedVPSs) stranded() {
	t := p.t
	t.Helper()
	p.unsynced()
	p.off(p.first)
	at := p.second.takes(t)
	p.traffic.since("without conntrackd", at, "uploads", "echoes", "UDP to the home", "UDP from the home")
	stuck := p.traffic.behind(at, "downloads")
	if len(stuck) == 0 {
		t.Error("without conntrackd the downloads have moved, too")
	}
	for _, one := range p.traffic.all {
		if one.kind == "downloads" {
			one.receive.Write([]byte("?"))
		}
	}
	p.traffic.since(fmt.Sprintf("without conntrackd, %d downloads wait for a word of their clients", len(stuck)),
		time.Now(), "downloads")
}

// reset: without conntrackd the other VPS resets what a host with egress all sends in the middle of a connection.
func (p *pairedVPSs) reset() {
	t := p.t
	t.Helper()
	for _, kind := range []string{"downloads", "uploads", "echoes", "connections of the host"} {
		p.traffic.doomed.Store(kind, true)
	}
	p.unsynced()
	p.off(p.first)
	p.traffic.since("without conntrackd", p.second.takes(t), "UDP to the home", "UDP from the home")
	for end := time.Now().Add(12 * patience); p.traffic.cut("downloads") == 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Error("without conntrackd no download of a host with egress all is cut")
			return
		}
	}
	t.Logf("without conntrackd, of a host with egress all are cut: %d downloads, %d uploads, %d echoes, %d of its own",
		p.traffic.cut("downloads"), p.traffic.cut("uploads"), p.traffic.cut("echoes"),
		p.traffic.cut("connections of the host"))
}

// apart checks that each home has received its own packets only.
func (p *pairedVPSs) apart(cabin []lab.Packet) {
	t := p.t
	t.Helper()
	received := 0
	for _, packet := range cabin {
		if packet.IPv6 != nil {
			continue
		}
		received++
		if packet.Proto != unix.IPPROTO_UDP || strconv.Itoa(int(packet.SrcPort)) != cabinPort &&
			strconv.Itoa(int(packet.DstPort)) != cabinPort {
			t.Errorf("the cabin's server has seen %+v", packet)
		}
	}
	if received == 0 {
		t.Error("the cabin's server has seen nothing")
	}
	p.stray.SetReadDeadline(time.Now())
	if _, from, err := p.stray.ReadFrom(make([]byte, 1)); err == nil {
		t.Errorf("the home's server has received a packet for the cabin, from %s", from)
	}
}

// TestKeepalived: two VPSs have one public address by turns, as keepalived decides, with the files of the page. Over
// WireGuard the host has egress all.
func TestKeepalived(t *testing.T) {
	for _, transport := range []string{"ipip6", "wireguard"} {
		t.Run(transport, func(t *testing.T) {
			t.Setenv(transportEnv, transport)
			p := newPair(t)
			cabin := capture(t, p.CabinHost, "eth0")
			p.load(100)
			p.second.start(t, keepalived)
			p.second.logged(t, "keepalived", "VRRP_Script(heard) succeeded", 0)
			p.traffic.since("before", time.Now(), p.kinds...)
			p.measure("the first is switched off", p.second, func() { p.off(p.first) })
			p.boots(p.first)
			p.measure("the first is back with its relay", p.first, func() {
				p.first.do(t, "ds4relay up", "")
				p.home.do(t, "ds4relay watch", "") // the run of each minute
				p.cabin.do("watch")
				// Over WireGuard a VPS cannot send anything to the home before its handshake.
				p.first.takes(t)
				if out := p.first.do(t, "ds4relay status first || true", ""); strings.Contains(out, "no handshake") {
					t.Errorf("the first has taken the address before it can send to the home:\n%s", out)
				}
			})
			p.measure("the first is cut off", p.second, func() { p.network(p.first, "0") })
			p.measure("the first is connected again", p.first, func() {
				p.network(p.first, "3")
				p.second.loses(t)
			})
			p.measure("the first's keepalived is killed", p.second, func() { p.first.kill(t, "keepalived") })
			if !p.first.has(t) {
				t.Error("the address has gone with keepalived")
			}
			p.measure("the first's keepalived is started again", p.first, func() {
				p.first.start(t, keepalived)
				p.second.loses(t)
			})
			if transport == "ipip6" {
				p.stranded()
			} else {
				p.reset()
			}
			p.traffic.end()
			p.apart(cabin())
		})
	}
}
