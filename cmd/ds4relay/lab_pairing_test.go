//go:build lab

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/lab"
	"github.com/ds4relay/ds4relay/internal/paired"
)

// programEnv makes the test binary the program itself.
const programEnv = "DS4RELAY_TEST_PROGRAM"

// installed puts the program where sshd and the ends of TestPairing find it, and makes the user that homes log in as.
var installed = sync.OnceValue(func() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	const program = "/usr/lib/ds4relay.test" // others may not read the folder of a test binary
	for path, text := range map[string]string{"/usr/sbin/ds4relay": "#!/bin/sh\n" + programEnv + "=1 exec " + program +
		" \"$@\"\n", "/usr/local/sbin/systemctl": systemctlLike} {
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			return err
		}
	}
	for _, command := range [][]string{
		{"cp", self, program},
		{"useradd", "--system", "--home-dir", "/var/lib/ds4relay", "--shell", "/bin/sh", "--password", "*", "ds4relay"},
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w: %s", command, err, out)
		}
	}
	return nil
})

// systemctlLike does what the units of the package do; the Debian machine has the real ones.
const systemctlLike = `#!/bin/sh
case "$*" in
*enable*|*reload*) exec ds4relay up ;;
esac
`

// room is a machine with files of its own, in the namespace of a host.
type room struct {
	host *lab.Host
	pid  string
}

// newRoom keeps a mount namespace until the test ends. The script sets it up; then it has systemd's folder.
func newRoom(t *testing.T, h *lab.Host, script string) *room {
	t.Helper()
	keeper := h.Command("unshare", "--mount", "bash", "-ec", `
		mkdir -p /etc/config /etc/ds4relay /var/lib/ds4relay
		for dir in /run /etc/config /etc/ds4relay /var/lib/ds4relay /etc/ssh; do mount -t tmpfs -o mode=755 room $dir; done
		mkdir -p /run/systemd/system /run/sshd /run/ds4relay /var/lib/ds4relay/.ssh /var/lib/ds4relay/relays
		chmod 700 /etc/ds4relay
		{ `+script+`
		} >/dev/null
		echo ready
		exec sleep infinity`)
	out, err := keeper.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	keeper.Stderr = os.Stderr
	if err := keeper.Start(); err != nil {
		t.Fatal(err)
	}
	if said, err := io.ReadAll(io.LimitReader(out, int64(len("ready\n")))); err != nil || string(said) != "ready\n" {
		t.Fatalf("%s: its files: %q, %v", h.Name, said, err)
	}
	return &room{h, fmt.Sprint(keeper.Process.Pid)}
}

// try runs a shell command there, with an input.
func (r *room) try(t *testing.T, command, input string) (status int, out string) {
	t.Helper()
	cmd := r.host.Command("nsenter", "--target", r.pid, "--mount", "sh", "-c", command)
	cmd.Stdin = strings.NewReader(input)
	said, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %s: %v", r.host.Name, command, err)
	}
	return cmd.ProcessState.ExitCode(), string(said)
}

func (r *room) do(t *testing.T, command, input string) string {
	t.Helper()
	status, out := r.try(t, command, input)
	if status != 0 {
		t.Fatalf("%s: %s: exit status %d\n%s", r.host.Name, command, status, out)
	}
	return out
}

// pushes waits until the VPS has answered to what the home wants, in that state and with that word. What has failed is
// tried again, as by the run of each minute.
func (r *room) pushes(t *testing.T, state, word string) {
	t.Helper()
	text := ""
	for end := time.Now().Add(24 * patience); time.Now().Before(end); time.Sleep(300 * time.Millisecond) {
		text = r.do(t, "cat /run/ds4relay/push-*.json", "")
		var push struct{ State string }
		if json.Unmarshal([]byte(text), &push) == nil && push.State == state && strings.Contains(text, word) {
			return
		}
		if push.State == "failed" {
			r.try(t, "ds4relay watch", "")
		}
	}
	t.Fatalf("the push is not %s (%s): %s", state, word, text)
}

// opens waits until the VPS has a forward that its home has pushed. A push that failed, on a busy machine, is tried
// again by the run of each minute.
func (r *room) opens(t *testing.T, client *lab.Host, to string) {
	t.Helper()
	start := time.Now()
	for run := start.Add(2 * patience); ; time.Sleep(100 * time.Millisecond) {
		if _, conn, err := askTCP(client, to); err == nil {
			conn.Close()
			return
		} else if time.Since(start) > 12*patience {
			t.Fatalf("the forward that the home has added: %v; %s", err, r.do(t, "cat /run/ds4relay/push-*.json", ""))
		}
		if time.Now().After(run) {
			r.try(t, "ds4relay watch", "")
			run = time.Now().Add(2 * patience)
		}
	}
}

// receives is what systemd does for the unit: a service for each connection.
func (r *room) receives(t *testing.T, listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return // it is closed
		}
		file, err := conn.(*net.UnixConn).File()
		conn.Close()
		if err != nil {
			t.Error(err)
			return
		}
		service := r.host.Command("nsenter", "--target", r.pid, "--mount", "sh", "-c",
			"exec ds4relay -q receive --service >>/run/receive.log 2>&1")
		service.Stdin = file
		if err := service.Start(); err != nil {
			t.Error(err)
		}
		file.Close()
		go service.Wait()
	}
}

// TestPairing: setup on the VPS, join at home by the real ssh programs, and from then on one place to configure.
func TestPairing(t *testing.T) {
	// The relays have names of their own, since forget ends the sessions that processes of the machine have for a name.
	for _, c := range []struct{ name, relay, transport, hidden string }{
		{"WireGuard by dropbear", "home", "wireguard", "/usr/bin/ssh /usr/bin/ssh-keygen"},
		{"IPv4 in IPv6 by OpenSSH", "cabin", "ipip6", "/usr/bin/dbclient /usr/bin/dropbearkey"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if err := installed(); err != nil {
				t.Fatal(err)
			}
			pairs(t, c.relay, c.transport, c.hidden)
		})
	}
}

// shellForward is one that the VPS refuses: it keeps the port.
const shellForward = "\nconfig forward 'shell'\n\toption proto 'tcp'\n\toption src_dport '22'\n\toption dest_ip '" +
	home4 + "'\n"

// moves gives the home another prefix. It tells the VPS by a push, which is refused for another reason, and a stream
// goes on. Afterwards the home's own line to the IPv4 internet (DS-Lite) is down.
func moves(t *testing.T, r *relay, vps, home *room, relay string) {
	record := "/var/lib/ds4relay/relays/" + relay + ".json"
	stream := open(t, r.Client, public+":80")
	alive(t, "the stream before the home moves", stream)
	// An address may change once a minute: that minute is over.
	vps.do(t, "sed -i 's/\"peer_changed\":[0-9]*/\"peer_changed\":1/' "+record, "")
	for host, command := range map[*lab.Host]string{
		r.Core: "ip -6 route add 2001:db8:fdd3::/64 via 2001:db8:fdd0::2; ip -6 route del 2001:db8:fdd1::/64",
		r.ISP:  "ip -6 addr add 2001:db8:fdd3::1/64 dev router nodad; ip -6 addr del 2001:db8:fdd1::1/64 dev router",
		r.Router: "ip -6 addr add 2001:db8:fdd3::2/64 dev wan nodad; ip -6 route replace default via 2001:db8:fdd3::1 " +
			"dev wan; ip -6 addr del 2001:db8:fdd1::2/64 dev wan",
	} {
		if out, err := host.Run("sh", "-e", "-c", command); err != nil {
			t.Fatal(err, out)
		}
	}
	home.do(t, "ds4relay reload", "")
	for end := time.Now().Add(4 * patience); ; time.Sleep(300 * time.Millisecond) {
		if text := vps.do(t, "cat "+record, ""); strings.Contains(text, `"2001:db8:fdd3:`) {
			break
		} else if time.Now().After(end) {
			t.Fatalf("the VPS does not know where the home is: %s\n%s", text, home.do(t, "ds4relay status", ""))
		}
	}
	home.pushes(t, "refused", "src_dport") // as before: its address is followed all the same
	alive(t, "the stream after the home has moved", stream)
	seenTCP(t, r.Client, public+":80", client4)
}

// moreForward is a forward that a home adds later.
const moreForward = "\nconfig forward 'more'\n\toption proto 'tcp'\n\toption src_dport '8080'\n\toption dest_ip '" +
	home4 + "'\n\toption dest_port '80'\n"

// newPairable makes rooms of a VPS and of a home without the hidden programs.
func newPairable(t *testing.T, n *lab.Net, hidden string) (vps, home *room) {
	t.Helper()
	return newPairableVPS(t, n.VPS), newRoom(t, n.Router, "for program in "+hidden+"; do mount --bind /dev/null $program; done")
}

// newPairableVPS makes a room of a VPS with sshd and the service for homes.
func newPairableVPS(t *testing.T, h *lab.Host) *room {
	t.Helper()
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	if err := os.Chmod(listener.Addr().String(), 0o666); err != nil {
		t.Fatal(err)
	}
	// One host key, the one that invitations have: an emulated processor takes long to find an RSA key.
	vps := newRoom(t, h, "ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key\n"+
		"/usr/sbin/sshd -f /dev/null -E /run/sshd.log\n"+
		"touch /run/ds4relay-receive.sock; mount --bind "+listener.Addr().String()+" /run/ds4relay-receive.sock")
	go vps.receives(t, listener)
	return vps
}

// pairs lets a home without the hidden programs join a VPS.
func pairs(t *testing.T, relay, transport, hidden string) {
	r := newRelay(t, lab.Options{Prefix: "p" + relay + "-"}, "")
	serveTCP(t, r.Host, 80)
	vps, home := newPairable(t, r.Net, hidden)
	t.Cleanup(func() {
		if t.Failed() {
			_, out := vps.try(t, "ds4relay status; tail -n 30 /run/sshd.log /run/receive.log", "")
			t.Log(out)
		}
	})

	out := vps.do(t, "ds4relay setup --yes --relay "+relay+" --transport "+transport, "")
	invitation := regexp.MustCompile(`ds4relay1\.\S+`).FindString(out)
	if again := vps.do(t, "ds4relay setup --yes --relay "+relay, ""); !strings.Contains(again, "Nothing to change") {
		t.Errorf("setup once more: %s", again)
	}
	if status, out := home.try(t, "ds4relay join --yes", invitation[:len(invitation)-1]); status != exitUsage {
		t.Errorf("a part of the invitation: exit status %d, %s", status, out)
	}
	first := "--host " + home4 + " --port tcp:80"
	if transport == "ipip6" {
		first = ""
	}
	out = home.do(t, "ds4relay join --yes "+first, invitation)
	if !strings.Contains(out, "the VPS knows what this home wants") ||
		strings.Contains(out, "No port is open") != (first == "") {
		t.Errorf("join: %s", out)
	}
	if first == "" {
		home.do(t, "cat >>/etc/config/ds4relay && ds4relay up", "\nconfig forward 'server'\n\toption proto 'tcp'\n\toption "+
			"src_dport '80'\n\toption dest_ip '"+home4+"'\n")
		home.pushes(t, "ok", "")
	}
	seenTCP(t, r.Client, public+":80", client4)
	thief := newRoom(t, r.Client, ":")
	if status, out := thief.try(t, "ds4relay join --yes", invitation); status != exitFailed ||
		!strings.Contains(out, "has been used already") {
		t.Errorf("the invitation once more: exit status %d, %s", status, out)
	}
	if out := vps.do(t, "ds4relay status", ""); !strings.Contains(out, "has tried the invitation") {
		t.Errorf("the VPS's status after the second use: %s", out)
	}

	// One place to configure. What the VPS does not take leaves what it took before.
	home.do(t, "cat >>/etc/config/ds4relay && ds4relay up", moreForward)
	home.opens(t, r.Client, public+":8080")
	home.pushes(t, "ok", "")
	home.do(t, "cat >>/etc/config/ds4relay && ds4relay up", shellForward)
	home.pushes(t, "refused", "src_dport")
	seenTCP(t, r.Client, public+":80", client4)
	seenTCP(t, r.Client, public+":8080", client4)

	// What the VPS's owner has written and not applied yet stays so.
	vps.do(t, "cat >>/etc/config/ds4relay", "\nconfig forward 'own'\n\toption relay '"+relay+"'\n\toption proto 'tcp'\n"+
		"\toption src_dport '8081'\n\toption dest_ip '"+home4+"'\n\toption dest_port '80'\n")
	home.do(t, "sed -i s/\"'22'\"/\"'8082'\"/ /etc/config/ds4relay && ds4relay up", "")
	home.pushes(t, "failed", "ds4relay up")
	refusedTCP(t, r.Client, public+":8081")
	vps.do(t, "ds4relay up", "")
	home.try(t, "ds4relay watch", "")
	home.pushes(t, "ok", "")
	seenTCP(t, r.Client, public+":8081", client4)

	if status, out := vps.try(t, "ds4relay forget nobody", ""); status != exitUsage || !strings.Contains(out, relay) {
		t.Errorf("forget of a relay that there is not: exit status %d, %s", status, out)
	}

	vps.do(t, "ds4relay forget "+relay, "")
	if keys := vps.do(t, "cat "+paired.Path.Keys().Path, ""); keys != "" {
		t.Errorf("after forget there are keys: %s", keys)
	}
	refusedTCP(t, r.Client, public+":80")
	home.do(t, "sed -i s/\"'8082'\"/\"'8083'\"/ /etc/config/ds4relay && ds4relay up", "")
	home.pushes(t, "failed", "does not accept this key")

	// Joining again brings back what the VPS has taken before, and nothing has to be edited for that.
	home.do(t, "sed -i '/shell/,$d' /etc/config/ds4relay", "")
	again := regexp.MustCompile(`ds4relay1\.\S+`).FindString(vps.do(t, "ds4relay invite "+relay, ""))
	home.do(t, "ds4relay join --yes", again)
	seenTCP(t, r.Client, public+":80", client4)
	seenTCP(t, r.Client, public+":8080", client4)
	if transport == "ipip6" {
		home.do(t, "cat >>/etc/config/ds4relay && ds4relay up", shellForward)
		home.pushes(t, "refused", "src_dport")
		moves(t, r, vps, home, relay)
	}
}

// TestPairingStandby: a home joins two VPSs that have one public address by turns, and tells both of its forwards. With
// the address clients move to the other VPS.
func TestPairingStandby(t *testing.T) {
	if err := installed(); err != nil {
		t.Fatal(err)
	}
	r := newRelay(t, lab.Options{Second: true}, "")
	serveTCP(t, r.Host, 80)
	vps, home := newPairable(t, r.Net, "/usr/bin/dbclient")
	vps2 := newPairableVPS(t, r.VPS2)
	for i, end := range []*room{vps, vps2} {
		command := "ds4relay setup --yes --standby --relay pair --ipaddr " + public + " --transport " +
			[]string{"wireguard", "ipip6"}[i]
		invitation := regexp.MustCompile(`ds4relay1\.\S+`).FindString(end.do(t, command, ""))
		first := []string{" --host " + home4 + " --port tcp:80", ""}[i]
		if out := home.do(t, "ds4relay join --yes"+first, invitation); !strings.Contains(out,
			"the VPS knows what this home wants") || strings.Contains(out, "No port is open") {
			t.Errorf("%s: join: %s", end.host.Name, out)
		}
	}
	if out := home.do(t, "ds4relay check && ds4relay status", ""); !strings.Contains(out, "forwards: 1)") ||
		!strings.Contains(out, "pair ") || !strings.Contains(out, "pair2 ") {
		t.Errorf("check and status: %s", out)
	}
	seenTCP(t, r.Client, public+":80", client4)
	home.do(t, "cat >>/etc/config/ds4relay && ds4relay up", moreForward+"\tlist relay 'pair'\n\tlist relay 'pair2'\n")
	for _, end := range []*room{vps, vps2} {
		for stop := time.Now().Add(24 * patience); ; time.Sleep(300 * time.Millisecond) {
			if text := end.do(t, "cat /var/lib/ds4relay/relays/pair", ""); strings.Contains(text, "8080") {
				break
			} else if time.Now().After(stop) {
				t.Fatalf("%s has\n%s\n%s", end.host.Name, text, home.do(t, "ds4relay status", ""))
			}
			home.try(t, "ds4relay watch", "")
		}
	}
	seenTCP(t, r.Client, public+":8080", client4)
	addressMoves(t, r)
	seenTCP(t, r.Client, public+":80", client4)
	seenTCP(t, r.Client, public+":8080", client4)
	if out := vps2.do(t, "ds4relay status", ""); !strings.Contains(out, "on this machine now") {
		t.Errorf("the second VPS: %s", out)
	}
}
