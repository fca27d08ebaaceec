//go:build lab

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/lab"
	"github.com/ds4relay/ds4relay/internal/reconcile"
)

// listens does a run of each minute and checks what status says of the other end then.
func (e *end) listens(t *testing.T, when, want string, wantCode int) reconcile.RelayStatus {
	t.Helper()
	e.do("watch")
	code, out, stderr := e.try("status", "--json")
	var s reconcile.Status
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("%s: %s: %v\n%s%s", e.host.Name, when, err, out, stderr)
	}
	relay := s.Relays[0]
	if string(relay.OtherEnd) != want || code != wantCode {
		t.Errorf("%s: %s: the other end is %q, exit status %d, want %q, %d\n%s", e.host.Name, when, relay.OtherEnd,
			code, want, wantCode, out)
	}
	return relay
}

const forwardMissing = `
config forward 'missing'
	option src_dport '8081'
	option dest_ip '192.168.1.99'

config forward 'itself'
	option src_dport '8082'
	option dest_ip '192.168.1.1'
`

// TestAlive: both ends know whether the other one is alive, and which hosts are.
func TestAlive(t *testing.T) {
	t.Parallel() // it mostly waits
	r := newRelay(t, lab.Options{Prefix: "alive-"}, forwardAll+forwardMissing)
	r.router.do("up")
	if relay := r.router.listens(t, "the VPS never was up", "silent", exitSilent); relay.HeardS != nil {
		t.Errorf("heard %d s ago of a VPS that never was up", *relay.HeardS)
	}
	r.vps.do("up")
	if os.Getenv(transportEnv) == "wireguard" { // the home tries it every few seconds
		shakesHands(t, r.vps)
	}
	for _, e := range []*end{r.vps, r.router} {
		other := map[*end]*end{r.vps: r.router, r.router: r.vps}[e]
		for range 2 {
			if relay := e.listens(t, "both ends are up", "heard", 0); relay.HeardS == nil {
				t.Errorf("%s: no heard_s", e.host.Name)
			}
			other.do("watch")
		}
		e.do("watch") // hears the other end's probe
		other.do("down")
		e.listens(t, "the other end is down", "silent", exitSilent)
		if code, out, _ := e.try("status"); code != exitSilent || !strings.Contains(out, "the other end is silent") {
			t.Errorf("%s: the other end is down: exit status %d\n%s", e.host.Name, code, out)
		}
		if code, out, _ := e.try("up"); code != 0 || !strings.HasPrefix(out, "Nothing to do") {
			t.Errorf("%s: up: exit status %d, %s", e.host.Name, code, out)
		}
		if code, _, _ := e.try("status", "home"); code != exitSilent {
			t.Errorf("%s: after up: exit status %d", e.host.Name, code)
		}
		other.do("up")
		if os.Getenv(transportEnv) == "wireguard" { // this end notices after 15 s that its keys are worth nothing
			shakesAgain(t, e)
		}
		e.listens(t, "the other end is up again", "heard", 0)
	}
	hosts := ""
	for _, f := range r.router.listens(t, "hosts", "heard", 0).Forwards {
		hosts += " " + f.DestIP + " " + f.Host
	}
	if want := " 192.168.1.210 " + kernel.HostUp + " 192.168.1.99 " + kernel.HostMissing + " 192.168.1.1 " +
		kernel.HostUp; hosts != want {
		t.Errorf("hosts:%s, want%s", hosts, want)
	}
	if out := r.vps.do("status", "--json"); strings.Contains(out, `"host"`) {
		t.Errorf("the VPS says something about hosts:\n%s", out)
	}
	for _, e := range []*end{r.vps, r.router} {
		e.do("down")
		e.do("watch")
		if left, err := os.ReadDir(e.runDir()); err != nil || len(left) > 0 {
			t.Errorf("%s: after down and a run with no relay: %v %v", e.host.Name, left, err)
		}
	}
}

// TestMends: a run of each minute puts back what other programs have removed, but neither what a person has taken down
// nor what an edited file says.
func TestMends(t *testing.T) {
	t.Parallel()
	r := newRelay(t, lab.Options{Prefix: "mends-"}, forwardWeb)
	serveTCP(t, r.Host2, 80)
	r.up()
	second := strings.NewReplacer("'home'", "'cabin'", "'wrap1'", "'wrap2'", "6ef9", "6efa").Replace(routerRelay) +
		"\toption ip4table '43'\n"
	forward := "\toption relay 'home'\n"
	file := routerRelay + "\n" + second + forwardWeb + forward
	r.router.write(file)
	r.router.do("up")
	r.router.do("down", "cabin")
	for _, damage := range []string{"ip rule flush; ip rule add priority 32766 lookup main", "nft flush ruleset",
		"ip -6 addr flush dev wrap1; ip route flush table 42; ip link set wrap1 down", "ip link del wrap1"} {
		if out, err := r.Router.Run("sh", "-c", damage); err != nil {
			t.Fatal(damage, err, out)
		}
		code, out, stderr := r.router.try("-q", "watch")
		if code != 0 || out != "" || !strings.HasPrefix(stderr, "put back what another program has removed") {
			t.Errorf("watch after %s: exit status %d\n%s%s", damage, code, out, stderr)
		}
		r.router.do("status", "home")
		seenTCP(t, r.Client, public+":8080", client4)
	}
	r.router.do("watch") // a quiet minute
	if code, out, _ := r.router.try("status", "cabin"); code != exitDiffers || !strings.Contains(out, ": down") {
		t.Errorf("what a person has taken down: exit status %d\n%s", code, out)
	}

	// A file that is not reloaded yet is not applied.
	r.router.write(strings.Replace(file, "8080", "9090", 1))
	if out, err := r.Router.Run("ip", "rule", "flush"); err != nil {
		t.Fatal(err, out)
	}
	flushed := r.router.snapshot()
	r.router.do("watch")
	same(t, "the router after a run with an edited file", flushed, r.router.snapshot())
	r.router.write("config relay\n")
	for run, says := range []bool{true, false} {
		code, _, stderr := r.router.try("-q", "watch")
		if code != exitUsage || (stderr != "") != says {
			t.Errorf("run %d with a mistake in the file: exit status %d, %q", run+1, code, stderr)
		}
	}
	r.router.write(file)
	if out, err := r.Router.Run("ip", "rule", "add", "priority", "32766", "lookup", "main"); err != nil {
		t.Fatal(err, out)
	}

	// A rival: it is named once, and then has ten minutes.
	for i := range 7 {
		if out, err := r.Router.Run("nft", "flush", "ruleset"); err != nil {
			t.Fatal(err, out)
		}
		_, _, stderr := r.router.try("-q", "watch")
		if again := strings.Contains(stderr, "again and again"); again != (i == 4) || i > 4 && stderr != "" {
			t.Errorf("after %d repairs in a row: %q", i+1, stderr)
		}
	}
	if code, out, _ := r.router.try("status"); code != exitDiffers || !strings.Contains(out, "again and again") {
		t.Errorf("with a rival: exit status %d\n%s", code, out)
	}
}

// TestKeepsOpen: a stateful firewall in front of the home lets clients in as long as it remembers a packet of the
// home's. The router's runs remind it, also when something came since the run before.
func TestKeepsOpen(t *testing.T) {
	if os.Getenv(transportEnv) != "" {
		t.Skip("WireGuard has its own keepalive")
	}
	t.Parallel()      // it mostly waits
	const memory = 20 // seconds
	r := newRelay(t, lab.Options{Prefix: "open-"}, forwardAll)
	r.run(t, r.ISP, fmt.Sprintf("sysctl -qw net.netfilter.nf_conntrack_generic_timeout=%d; nft add table ip6 f; "+
		"nft add chain ip6 f c '{ type filter hook forward priority 0; policy accept; }'; "+
		"nft add rule ip6 f c iifname core meta l4proto 4 ct state new drop", memory))
	// left waits until the firewall will forget the tunnel in less than a time, and returns that time: -1 if it has.
	left := func(less int) int {
		t.Helper()
		for end := time.Now().Add(12 * patience); ; time.Sleep(500 * time.Millisecond) {
			out, err := r.ISP.Run("sed", "-n", "s/^ipv6 *10 *unknown *4 *\\([0-9]*\\) .*/\\1/p", "/proc/net/nf_conntrack")
			if err != nil {
				t.Fatal(err)
			}
			seconds, err := strconv.Atoi(strings.TrimSpace(out))
			if err != nil {
				seconds = -1
			}
			if seconds < less {
				return seconds
			}
			if time.Now().After(end) {
				t.Fatalf("the firewall still remembers the tunnel for %d s, want less than %d", seconds, less)
			}
		}
	}
	serveTCP(t, r.Host, 80)
	r.up()
	refusedTCP(t, r.Client, public+":80")
	r.router.do("watch")
	for range 2 { // something has come since the run before
		seenTCP(t, r.Client, public+":80", client4)
		left(memory / 2)
		r.router.do("watch")
		if seconds := left(memory + 1); seconds < memory/2 {
			t.Errorf("after a run the firewall remembers for %d s, want %d", seconds, memory)
		}
	}
	left(0)
	refusedTCP(t, r.Client, public+":80") // the runs were it
}
