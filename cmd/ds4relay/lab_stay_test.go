//go:build lab

package main

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/lab"
)

// stays is `watch --stay` as a process on an end.
type stays struct {
	*end
	command *lab.Cmd
	mu      sync.Mutex
	out     bytes.Buffer
}

// Write collects what the process prints.
func (s *stays) Write(text []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(text)
}

func (s *stays) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.String()
}

// stay starts the process.
func (e *end) stay() *stays {
	e.t.Helper()
	s := &stays{end: e, command: e.host.Command(os.Args[0], "-c", e.config, "--run", e.runDir(), "watch", "--stay")}
	s.command.Env = append(os.Environ(), childEnv+"=never 0")
	s.command.Stdout, s.command.Stderr = s, s
	if err := s.command.Start(); err != nil {
		e.t.Fatal(err)
	}
	s.awaits("it begins", func() bool { return strings.Contains(s.said(), "watching over home") })
	return s
}

// ends waits until the process ends by itself.
func (s *stays) ends() {
	s.t.Helper()
	kill := time.AfterFunc(time.Minute, func() { s.command.Process.Kill() })
	defer kill.Stop()
	if err := s.command.Wait(); err != nil {
		s.t.Errorf("%s: watch --stay: %v\n%s", s.host.Name, err, s.said())
	}
}

// stop ends the process as systemd does.
func (s *stays) stop() {
	s.t.Helper()
	if err := s.command.Process.Signal(os.Interrupt); err != nil {
		s.t.Error(err)
	}
	s.ends()
}

// awaits waits until a condition holds, which may start programs: the pause leaves the watcher the CPU.
func (s *stays) awaits(what string, condition func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(40 * time.Second); !condition(); time.Sleep(300 * time.Millisecond) {
		if time.Now().After(deadline) {
			_, status, _ := s.try("status")
			s.t.Fatalf("%s: %s: in vain\n%s%s", s.host.Name, what, status, s.said())
		}
	}
}

func (s *stays) settles(what string) {
	s.t.Helper()
	s.awaits("the kernel is as the file says after "+what, func() bool {
		code, _, _ := s.try("status")
		return code == 0
	})
}

// isPutBack takes things away at both ends while the watcher runs there, and waits until they are back. A watcher has
// two of them to repair: a repair that meets the next change is tried again and counts twice, and five are too many.
func (r *relay) isPutBack(t *testing.T) {
	t.Helper()
	const reroute = "ip rule add priority 32766 lookup main; ip rule add priority 32767 lookup default"
	for _, c := range []struct {
		end    *end
		breaks []string
	}{
		{r.vps, []string{"nft flush ruleset", "ip link del wrap1",
			"A=$(ip -6 -o addr show dev eth0 scope global | grep -v metric | awk '{print $4; exit}'); " +
				"G=$(ip -6 route show default | sed 's/ proto.*//'); ip addr flush dev eth0 scope global; sleep 0.2; " +
				"ip addr add " + public + "/24 dev eth0; ip -6 addr add $A dev eth0 nodad; ip route replace default " +
				"via 198.51.100.1; ip -6 route replace $G",
			"ip route flush proto 46; sysctl -qw net.ipv4.conf.eth0.forwarding=0"}},
		{r.router, []string{"ip rule flush; " + reroute, "nft delete table ip ds4relay; ip link set wrap1 down",
			"ip -6 addr flush dev wrap1; ip route flush table 42; ip rule del priority 4602"}},
	} {
		var said strings.Builder
		for breaks := range slices.Chunk(c.breaks, 2) {
			s := c.end.stay()
			for _, command := range breaks {
				if out, err := c.end.host.Run("sh", "-e", "-c", command); err != nil {
					t.Fatal(err, out)
				}
				s.settles(command)
				seenTCP(t, r.Client, public+":80", client4)
			}
			s.stop()
			said.WriteString(s.said())
		}
		if out := said.String(); !strings.Contains(out, "nft (process ") || !strings.Contains(out, "put back: ") {
			t.Errorf("%s: it said: %s", c.end.host.Name, out)
		}
	}
}

// TestStays: whatever somebody takes away comes back, while a relay is up; nothing else does.
func TestStays(t *testing.T) {
	t.Parallel() // it mostly waits
	r := newRelay(t, lab.Options{Prefix: "stays-"}, forwardAll)
	serveTCP(t, r.Host, 80)
	r.up()
	r.isPutBack(t)

	// While a DHCP client has removed the address by which the device is found, the rest stays.
	r.vps.write(strings.Replace(vpsRelay, "\toption tunlink 'eth0'\n", "", 1) + forwardAll)
	r.vps.do("reload")
	s := r.vps.stay()
	const endpoint = "ip -6 addr show dev eth0 to 2001:db8:6ef9:0:198:51:100:144 | grep -q inet6"
	if out, err := r.vps.host.Run("sh", "-e", "-c", "ip -4 addr flush dev eth0; ip route flush proto 46"); err != nil {
		t.Fatal(err, out)
	}
	s.awaits("it repairs without the address", func() bool { return strings.Contains(s.said(), "put back") })
	if out, err := r.vps.host.Run("sh", "-e", "-c", endpoint+"; ip addr add "+public+"/24 dev eth0; ip route replace "+
		"default via 198.51.100.1"); err != nil {
		t.Errorf("without the address: %v\n%s\n%s", err, out, s.said())
	}
	s.settles("the address is back")
	s.stop()

	// A file that was changed, and not applied, is not applied by a repair.
	s = r.vps.stay()
	r.vps.write(vpsRelay + forwardAll + forwardWeb)
	r.vps.host.Run("nft", "flush", "ruleset")
	s.awaits("it says that the file has changed", func() bool {
		return strings.Contains(s.said(), "has changed since")
	})
	if code, _, _ := s.try("status"); code != exitDiffers {
		t.Errorf("with a changed file: status %d", code)
	}
	r.vps.do("reload")
	r.vps.host.Run("nft", "flush", "ruleset")
	s.settles("reload")

	// Somebody takes it away again and again: it gives up, and says who it is.
	rival := r.vps.host.Command("sh", "-c", "while true; do nft delete table ip ds4relay; sleep 0.1; done")
	if err := rival.Start(); err != nil {
		t.Fatal(err)
	}
	s.awaits("it gives up", func() bool { return strings.Contains(s.said(), "5 repairs within a minute") })
	rival.Process.Kill()
	rival.Wait()
	if _, out, _ := s.try("status"); !strings.Contains(out, "note: nft (process") {
		t.Errorf("status beside a rival: %s", out)
	}

	// Who takes a relay down wants that.
	r.vps.do("down")
	s.ends()
	if code, out, _ := r.vps.try("status"); code != exitDiffers || !strings.Contains(out, "has nothing of") {
		t.Errorf("after down: %d %s", code, out)
	}
}

// TestStaysWireGuard is the same with transport wireguard. What is known of the home stays with the VPS when its tunnel
// is made anew, so clients are answered before the home has noticed anything.
func TestStaysWireGuard(t *testing.T) {
	if os.Getenv(transportEnv) != "" {
		t.Skip("it has that transport anyway")
	}
	t.Parallel() // it mostly waits
	r := newWireGuard(t, lab.Options{Prefix: "wgstays-"}, lab.VPSIPv6.String(), forwardAll)
	serveTCP(t, r.Host, 80)
	r.up()
	shakesHands(t, r.vps)
	r.vps.do("watch") // notes where the home is
	r.isPutBack(t)
	r.router.do("down")
	r.vps.do("down")
}
