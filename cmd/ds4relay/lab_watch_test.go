//go:build lab

package main

import (
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/lab"
)

// dns answers AAAA queries from a table; without a table it does not answer at all.
type dns struct {
	mu      sync.Mutex
	records map[string][]netip.Addr
}

func (d *dns) set(records map[string][]netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.records = records
}

func serveDNS(t *testing.T, h *lab.Host) *dns {
	t.Helper()
	conn, err := h.ListenPacket("udp4", ":53")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	d := &dns{}
	go func() {
		buffer := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			if answer := d.answer(buffer[:n]); answer != nil {
				conn.WriteTo(answer, from)
			}
		}
	}()
	return d
}

// answer builds a reply to the query (RFC 1035 §4.1), which has one name, its type and class.
func (d *dns) answer(question []byte) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.records == nil || len(question) < 17 {
		return nil
	}
	var labels []string
	i := 12
	for i < len(question) && question[i] != 0 {
		labels = append(labels, string(question[i+1:i+1+int(question[i])]))
		i += 1 + int(question[i])
	}
	end := i + 5
	addrs := d.records[strings.Join(labels, ".")]
	if binary.BigEndian.Uint16(question[i+1:]) != 28 { // AAAA
		addrs = nil
	}
	answer := append([]byte{}, question[:end]...)
	binary.BigEndian.PutUint16(answer[2:], 0x8180) // an answer, recursion available
	binary.BigEndian.PutUint16(answer[6:], uint16(len(addrs)))
	binary.BigEndian.PutUint16(answer[8:], 0)
	binary.BigEndian.PutUint16(answer[10:], 0)
	for _, addr := range addrs {
		answer = append(answer, 0xc0, 12, 0, 28, 0, 1, 0, 0, 0, 60, 0, 16)
		answer = append(answer, addr.AsSlice()...)
	}
	return answer
}

// alone runs the program as a separate process: Go's resolver uses threads outside the lab's namespaces.
func (e *end) alone(args ...string) (out string, code int) {
	e.t.Helper()
	cmd := e.host.Command(os.Args[0], append([]string{"-c", e.config, "--run", e.runDir()}, args...)...)
	cmd.Env = append(os.Environ(), childEnv+"=never 0")
	text, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		e.t.Fatal(err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

// TestPrefixChanges: the home's prefix changes during a connection, and the VPS follows the DNS name of its endpoint.
// Another home of the VPS is not affected. While the name cannot be looked up, nothing changes.
func TestPrefixChanges(t *testing.T) {
	if os.Getenv(lab.Environment) == "host" {
		t.Skip("would change the machine's /etc/resolv.conf")
	}
	r := newRelay(t, lab.Options{Second: true}, forwardAll)
	before, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.WriteFile("/etc/resolv.conf", before, 0o644) })
	if err := os.WriteFile("/etc/resolv.conf", []byte("nameserver 198.51.100.1\noptions timeout:1 attempts:1\n"),
		0o644); err != nil {
		t.Fatal(err)
	}
	names := serveDNS(t, r.Core)
	names.set(map[string][]netip.Addr{"home.example.org": {routerEndpoint}})
	cabin := `
config relay 'cabin'
	option role 'vps'
	option ipaddr '198.51.100.144'
	option ip6addr '2001:db8:6ef9::/64'
	option peeraddr '2001:db8:fdd6::/64'
	option tunlink 'eth0'

config forward 'cabinweb'
	option relay 'cabin'
	option src_dport '81'
	option dest_ip '192.168.1.210'
	option dest_port '80'
`
	r.vps.write(strings.Replace(vpsRelay, "2001:db8:fdd2::/64", "home.example.org", 1) + strings.Replace(forwardAll,
		"\toption proto", "\toption relay 'home'\n\toption proto", 1) + cabin)
	cabinRouter := newEnd(t, r.CabinRouter,
		strings.NewReplacer("'home'", "'cabin'", "fdd2", "fdd6").Replace(routerRelay)+forwardAll)
	serveTCP(t, r.Host, 80)
	serveTCP(t, r.CabinHost, 80)
	if out, code := r.vps.alone("up"); code != 0 {
		t.Fatal(out)
	}
	r.router.do("up")
	cabinRouter.do("up")
	stream, other := open(t, r.Client, public+":80"), open(t, r.Client, public+":81")
	alive(t, "home", stream)
	alive(t, "cabin", other)

	watch := func(what string, wantCode int, want string) {
		t.Helper()
		out, code := r.vps.alone("watch")
		if code != wantCode || want == "" && out != "" || !strings.Contains(out, want) {
			t.Errorf("watch, %s: exit status %d, want %d\n%s\nwant …%s…", what, code, wantCode, out, want)
		}
	}
	watch("nothing has changed", 0, "")
	names.set(nil)
	watch("no answer", 0, "")
	if out, code := r.vps.alone("up"); code != 0 || !strings.Contains(out, "Nothing to do") {
		t.Errorf("up without DNS: %d\n%s", code, out)
	}
	if out, _ := r.vps.alone("status"); !strings.Contains(out, "the tunnel keeps the last address, "+
		routerEndpoint.String()) {
		t.Errorf("status without DNS:\n%s", out)
	}
	alive(t, "home, without DNS", stream)

	// The provider gives the home another prefix. A stream of the cabin runs all the time, and loses nothing.
	moved := netip.MustParseAddr("2001:db8:fdd3:0:198:51:100:144")
	missing := missingPackets(t, r.Client, "81", r.CabinHost, "80", nil)
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
				alive(t, "cabin, while the home moves", other)
			}
		}
	}()
	for host, command := range map[*lab.Host]string{
		r.Core: "ip -6 route del 2001:db8:fdd2::/56; ip -6 route add 2001:db8:fdd3::/56 via 2001:db8:fdd0::2",
		r.ISP:  "ip -6 route del 2001:db8:fdd2::/56; ip -6 route add 2001:db8:fdd3::/56 via 2001:db8:fdd1::2",
	} {
		if out, err := host.Run("sh", "-c", command); err != nil {
			t.Fatal(err, out)
		}
	}
	r.router.write(strings.Replace(routerRelay, "fdd2", "fdd3", 1) + forwardAll)
	r.router.do("reload")
	names.set(map[string][]netip.Addr{"home.example.org": {moved}})
	watch("the name has another address", 0, "ip link change dev wrap1 type ip6tnl mode ipip6 local "+
		vpsEndpoint.String()+" remote "+moved.String())
	close(stop)
	<-ended
	if n := missing(); n != 0 {
		t.Errorf("%d packets were lost while the home moved", n)
	}
	alive(t, "home, after it has moved", stream)
	seenTCP(t, r.Client, public+":80", client4)
	watch("nothing has changed any more", 0, "")

	// With a name with several addresses the current one stays, and down and up need no DNS.
	names.set(map[string][]netip.Addr{"home.example.org": {routerEndpoint, moved}})
	watch("one more address", 0, "")
	names.set(nil)
	if out, code := r.vps.alone("down"); code != 0 {
		t.Error(out)
	}
	if out, code := r.vps.alone("up", "-q"); code != 0 {
		t.Error(out)
	}
	seenTCP(t, r.Client, public+":80", client4)
	if left, err := filepath.Glob(r.vps.runDir() + "/peers"); len(left) != 1 {
		t.Errorf("the record of peers, which the timer waits for: %v %v", left, err)
	}
}
