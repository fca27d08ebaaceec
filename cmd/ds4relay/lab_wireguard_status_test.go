//go:build lab

package main

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/lab"
)

// asNobody is like try, without any capability.
func (e *end) asNobody(args ...string) (code int, stdout string) {
	e.t.Helper()
	err := e.host.Do(func() error {
		head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&head, &none[0]); err != nil { // of this thread, which ends then
			return err
		}
		var out strings.Builder
		a := &app{stdout: &out, stderr: &out, env: func(string) string { return "" }}
		code = a.main(append([]string{"-c", e.config, "--run", e.runDir()}, args...))
		stdout = out.String()
		return nil
	})
	if err != nil {
		e.t.Fatal(err)
	}
	return code, stdout
}

// TestWireGuardStatus: what status, metrics and the run of each minute say of a tunnel of WireGuard, also while the
// home moves, and without root; and what is said where another program has the port.
func TestWireGuardStatus(t *testing.T) {
	t.Parallel()
	r := newWireGuard(t, lab.Options{Prefix: "wgstat-"}, "2001:db8:6ef9::1", forwardAll)
	other, err := r.VPS.ListenPacket("udp4", ":51846")
	if err != nil {
		t.Fatal(err)
	}
	before := r.vps.snapshot()
	for says, command := range map[string]string{"UDP port 51846 (option listen_port) is in use": "check",
		"the relay's UDP port is in use": "up"} {
		if code, out, stderr := r.vps.try(command); code != exitFailed || !strings.Contains(stderr, says) {
			t.Errorf("%s with another program on the port: exit status %d\n%s%s", command, code, out, stderr)
		}
	}
	other.Close()
	if err := os.Chmod(r.vps.keyFile(), 0o640); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"check", "up"} {
		if code, out, stderr := r.vps.try(command); code != exitFailed || !strings.Contains(stderr, "chmod 600 ") {
			t.Errorf("%s with a key that others may read: exit status %d\n%s%s", command, code, out, stderr)
		}
	}
	if err := os.Chmod(r.vps.keyFile(), 0o600); err != nil {
		t.Fatal(err)
	}
	same(t, "the VPS after a failed up", before, r.vps.snapshot())

	r.up()
	shakesHands(t, r.vps)
	r.vps.do("check")
	at := map[*end]string{r.vps: "[2001:db8:fdd1::2]:", r.router: "[2001:db8:6ef9::1]:51846"}
	keys := map[*end]string{}
	for e, endpoint := range at {
		keys[e] = strings.TrimSpace(e.do("pubkey", "home"))
		s := e.listens(t, "both ends are up", "heard", 0)
		if s.Transport != config.WireGuard || s.Port != 51846 || !strings.HasPrefix(s.Endpoint, endpoint) ||
			s.HandshakeS == nil || s.HeardS == nil || *s.HeardS > *s.HandshakeS || s.PublicKey != keys[e] ||
			s.Local != "" || !strings.Contains(endpoint, "["+s.Peer+"]") || s.EncapLimit != nil {
			t.Errorf("%s: %+v", e.host.Name, s)
		}
		if out := e.do("metrics"); !strings.Contains(out, "ds4relay_wireguard_handshake_seconds{relay=\"home\"} ") ||
			!strings.Contains(out, `endpoint="`+endpoint) {
			t.Errorf("%s: metrics\n%s", e.host.Name, out)
		}
		code, out := e.asNobody("status", "--json")
		if code != exitFailed || strings.Contains(out, "handshake_s") || strings.Contains(out, "wg set") ||
			!strings.Contains(out, `"other_end": "heard"`) || !strings.Contains(out, "WireGuard's keys") {
			t.Errorf("%s without root: exit status %d\n%s", e.host.Name, code, out)
		}
	}
	if exported := r.vps.do("export"); !strings.Contains(exported, "option public_key '"+keys[r.vps]+"'") {
		t.Errorf("export:\n%s", exported)
	}

	// The home gets another address: what it sends then tells the VPS, and what is known of it stays.
	if out, err := r.Router.Run("sh", "-c", "ip -6 addr add 2001:db8:fdd1::3/64 dev wan nodad; ip -6 addr del "+
		"2001:db8:fdd1::2/64 dev wan"); err != nil {
		t.Fatal(err, out)
	}
	serveTCP(t, r.Host, 80)
	r.router.do("watch")
	r.router.do("watch") // nothing has come since
	s := r.vps.listens(t, "the home has moved", "heard", 0)
	if !strings.HasPrefix(s.Endpoint, "[2001:db8:fdd1::3]:") {
		t.Errorf("the home has moved, and is still at %s", s.Endpoint)
	}
	seenTCP(t, r.Client, public+":80", client4)

	// The VPS loses its tunnel, and has it back with the home's address: the home need not notice first.
	for _, damage := range []string{"ip link del wrap1", "wg set wrap1 peer " + keys[r.router] + " remove"} {
		if out, err := r.VPS.Run("sh", "-c", damage); err != nil {
			t.Log(damage, err, out) // without wg(8)
			continue
		}
		r.vps.do("up")
		seenTCP(t, r.Client, public+":80", client4)
		if out := r.vps.do("up"); !strings.HasPrefix(out, "Nothing to do") {
			t.Errorf("%s: up, and up again: %s", damage, out)
		}
	}
}
