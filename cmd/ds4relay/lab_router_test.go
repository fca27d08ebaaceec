//go:build lab && router

package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/lab"
	"github.com/ds4relay/ds4relay/internal/lab/remote"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// onRouter runs a command on the router, which must succeed.
func onRouter(t *testing.T, input string, args ...string) remote.Answer {
	t.Helper()
	answer, err := remote.Run(input, args...)
	if err != nil || answer.Status != 0 {
		t.Fatalf("%s on the router: %v, exit status %d\n%s", strings.Join(args, " "), err, answer.Status, answer.Output)
	}
	return answer
}

// newRouterVM returns a lab whose router is a second machine, once that has booted.
func newRouterVM(t *testing.T) *lab.Net {
	t.Helper()
	n, err := lab.New(lab.Options{RouterVM: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		if answer, err := remote.Run("", "uname", "-srm"); err == nil {
			t.Logf("the router (%s): %s", os.Getenv(lab.RouterEnvironment), strings.TrimSpace(answer.Output))
			return n
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// TestRouterVM runs the home's end on a second machine with a router's CPU and the package's files.
func TestRouterVM(t *testing.T) {
	const memoryLimit = 16 << 20
	n := newRouterVM(t)
	forwards := forwardAll + "\toption egress 'all'\n"
	vps := newEnd(t, n.VPS, vpsRelay+forwards)
	onRouter(t, routerRelay+forwards, "sh", "-c", "cat >/etc/config/ds4relay")
	t.Log(strings.TrimSpace(onRouter(t, "", "ds4relay", "version").Output), "from the package:",
		strings.TrimSpace(onRouter(t, "", "ls", "-l", "/usr/sbin/ds4relay").Output))
	const show = "ip link; ip addr | grep inet; ip rule; ip route show table all; nft list ruleset"
	before := onRouter(t, "", "sh", "-c", show).Output
	vps.do("up")
	start := time.Now()
	up := onRouter(t, "", "ds4relay", "-q", "up")
	t.Logf("up: %v, %.1f MB", time.Since(start).Round(time.Millisecond), float64(up.Memory)/(1<<20))
	if up.Memory > memoryLimit || up.Memory == 0 {
		t.Errorf("up had %d bytes, want at most %d", up.Memory, memoryLimit)
	}
	if out := onRouter(t, "", "ds4relay", "up").Output; !strings.HasPrefix(out, "Nothing to do") {
		t.Errorf("a second up: %s", out)
	}
	onRouter(t, "", "ds4relay", "watch") // the first run probes
	vps.do("watch")
	t.Logf("a run of each minute: %s", strings.TrimSpace(onRouter(t, "", "sh", "-c",
		"time ds4relay watch; time ds4relay status").Output))
	if out := onRouter(t, "", "ps").Output; strings.Contains(out, "ds4relay") {
		t.Errorf("something of ds4relay runs on:\n%s", out)
	}
	serveTCP(t, n.Host, 80)
	serveUDP(t, n.Host, 5000)
	serveTCP(t, n.Client, 90)
	seenTCP(t, n.Client, public+":80", client4)
	for _, size := range []int{100, 1400, 9000} {
		seenUDP(t, n.Client, public+":5000", client4, size)
	}
	pings(t, n.Client, public)
	transfers(t, n.Client, public+":80", 4<<20)
	doctor := onRouter(t, "", "ds4relay", "doctor").Output
	if strings.Contains(doctor, "cannot send a test packet") ||
		!strings.Contains(doctor, "ok       home: The answer goes back through the tunnel: 192.168.1.210: "+
			"into the tunnel wrap1") {
		t.Errorf("doctor:\n%s", doctor)
	}
	seenTCP(t, n.Host, client4+":90", public)
	// A change while a connection is open.
	conn := open(t, n.Client, public+":80")
	more := forwards + strings.Replace(forwardWeb, "option dest_port '80'", "option src_ip '203.0.113.0/24'", 1)
	vps.write(vpsRelay + more)
	vps.do("reload")
	onRouter(t, routerRelay+more, "sh", "-c", "cat >/etc/config/ds4relay; ds4relay reload")
	alive(t, "what stays", conn)
	onRouter(t, "", "ds4relay", "down")
	same(t, "the router after down", before, onRouter(t, "", "sh", "-c", show).Output)

	vps.do("down")
	here := vps.newKey()
	var made struct { // as LuCI has it made
		PublicKey string `json:"public_key"`
	}
	answer := onRouter(t, `{"relay":"home"}`, "ds4relay", "rpcd", "call", "genkey").Output
	if err := json.Unmarshal([]byte(answer), &made); err != nil {
		t.Fatalf("%v: %s", err, answer)
	}
	public64 := made.PublicKey
	there, ok := transport.ParseKey(public64)
	if again := strings.TrimSpace(onRouter(t, "", "ds4relay", "pubkey", "home").Output); !ok || again != public64 {
		t.Fatalf("genkey: %q, pubkey: %q", public64, again)
	}
	vps.write(vps.wireGuardHead("vps", there, "") + forwards)
	vps.do("up")
	head := strings.Replace(vps.wireGuardHead("router", here, "\toption peeraddr '"+lab.VPSIPv6.String()+"'\n"),
		vps.keyFile(), "/etc/ds4relay/keys/home", 1)
	onRouter(t, head+forwards, "sh", "-c", "cat >/etc/config/ds4relay")
	up = onRouter(t, "", "ds4relay", "-q", "up")
	if up.Memory > memoryLimit || up.Memory == 0 {
		t.Errorf("up with wireguard had %d bytes, want at most %d", up.Memory, memoryLimit)
	}
	if out := onRouter(t, "", "ds4relay", "up").Output; !strings.HasPrefix(out, "Nothing to do") {
		t.Errorf("a second up with wireguard: %s", out)
	}
	seenTCP(t, n.Client, public+":80", client4)
	seenUDP(t, n.Client, public+":5000", client4, 1400)
	transfers(t, n.Client, public+":80", 1<<20)
	seenTCP(t, n.Host, client4+":90", public)
	onRouter(t, "", "ds4relay", "down")
	same(t, "the router after down with wireguard", before, onRouter(t, "", "sh", "-c", show).Output)
}
