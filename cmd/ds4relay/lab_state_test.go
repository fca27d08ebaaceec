//go:build lab

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/lab"
	"github.com/ds4relay/ds4relay/internal/reconcile"
	"github.com/ds4relay/ds4relay/internal/state"
)

// variants are two configurations of one end that differ in everything that a step can change.
func variants(e *end) (first, second string) {
	relay := vpsRelay
	if e.host.Name != "" && strings.HasSuffix(e.host.Name, "router") {
		relay = routerRelay
	}
	return relay + forwardAll + "\toption egress 'all'\n",
		strings.Replace(relay, "2001:db8:6ef9::/64", "2001:db8:6ef9::5", 1) + "\toption mtu '1400'\n\toption " +
			"encaplimit '7'\n" + forwardWeb
}

// TestProxiesOnly: the messages name the proxies' service, and do not miss a relay.
func TestProxiesOnly(t *testing.T) {
	r := newRelay(t, lab.Options{}, "")
	r.vps.write("config proxy 'web'\n\tlist listen '0.0.0.0:443'\n\toption target '[2001:db8:fdd2::210]:443'\n")
	before := r.vps.snapshot()
	if out := r.vps.do("up"); !strings.HasPrefix(out, "Nothing to do: ") || !strings.Contains(out, "ds4relay-proxy") {
		t.Errorf("up: %s", out)
	}
	same(t, "the kernel after up", before, r.vps.snapshot())
}

// TestComesAndGoes: a second up changes nothing, down leaves nothing. TestDrift has what a user changes in between.
func TestComesAndGoes(t *testing.T) {
	r := newRelay(t, lab.Options{}, forwardAll+"\toption egress 'all'\n")
	for _, e := range []*end{r.vps, r.router} {
		t.Run(e.host.Name, func(t *testing.T) {
			before := e.snapshot()
			if code, out, _ := e.try("status"); code != exitDiffers || !strings.Contains(out, "relay home") ||
				!strings.Contains(out, ": down") {
				t.Errorf("status before up: %d, %s", code, out)
			} else if !strings.Contains(out, "The kernel has nothing of the configuration") ||
				strings.Contains(out, "nft -f") {
				t.Errorf("status before up says more than that nothing is there: %s", out)
			}
			if out := e.do("down"); !strings.Contains(out, "Nothing to do") {
				t.Errorf("down before up: %s", out)
			}
			first := e.do("up")
			if !strings.Contains(first, "[#] ip link add name wrap1") {
				t.Errorf("up did not print its steps:\n%s", first)
			}
			if n := strings.Count(first, "[#] "); n != strings.Count(first, "\n") ||
				!strings.Contains(first, "[#] nft -f - # table ip ds4relay: ") {
				t.Errorf("up did not print a line for each step:\n%s", first)
			}
			up := e.snapshot()
			if out := e.do("up"); out != "Nothing to do: the kernel is as the configuration says.\n" {
				t.Errorf("second up: %s", out)
			}
			if out := e.do("-q", "up"); out != "" {
				t.Errorf("-q up printed %s", out)
			}
			same(t, "the kernel after a second up", up, e.snapshot())
			if out := e.do("plan"); out != "" {
				t.Errorf("plan after up: %s", out)
			}
			var status reconcile.Status
			if err := json.Unmarshal([]byte(e.do("status", "--json")), &status); err != nil ||
				len(status.Relays) != 1 || !status.Relays[0].Up {
				t.Errorf("status --json: %v, %+v", err, status)
			}
			e.do("plan", "--down")
			if out := e.do("down"); !strings.Contains(out, "[#] ") {
				t.Errorf("down: %s", out)
			}
			same(t, "the kernel after down", before, e.snapshot())
			if left, _ := filepath.Glob(e.runDir() + "/*"); len(left) != 0 {
				t.Errorf("after down there is %v", left)
			}
		})
	}
}

var errInjected = errors.New("injected failure")

// faulty fails at one step and lets all others through.
type faulty struct {
	reconcile.Kernel
	at   *int // counts down
	kill func(before bool)
	skip func(state.Step) bool // steps not to count; may be nil
}

func (f faulty) Apply(s state.Step) error {
	if f.skip != nil && f.skip(s) {
		return f.Kernel.Apply(s)
	}
	*f.at--
	if *f.at == 0 && f.kill == nil {
		return errInjected
	}
	if *f.at == 0 {
		f.kill(true)
	}
	err := f.Kernel.Apply(s)
	if *f.at == 0 {
		f.kill(false)
	}
	return err
}

// transitions are the changes during which faults are injected: from nothing, from one configuration to the other and
// back, and to nothing.
var transitions = []struct{ name, from, to string }{
	{"up", "", "first"}, {"change", "first", "second"}, {"change back", "second", "first"}, {"down", "first", ""},
}

// arrange brings the end into a state without faults.
func arrange(e *end, which string) {
	e.t.Helper()
	e.apply = nil
	first, second := variants(e)
	switch which {
	case "":
		e.do("-q", "down")
	case "first":
		e.write(first)
		e.do("-q", "up")
	case "second":
		e.write(second)
		e.do("-q", "up")
	}
}

// commandTo writes a state's file, and returns the command that leads to the state.
func commandTo(e *end, which string) []string {
	first, second := variants(e)
	switch which {
	case "first":
		e.write(first)
		return []string{"up"}
	case "second":
		e.write(second)
		return []string{"up"}
	}
	return []string{"down"}
}

const maxSteps = 60

var (
	randomPart = regexp.MustCompile(`permaddr \S+|@[a-z0-9-]+:`)
	linkLocal  = regexp.MustCompile(`local (fe80::\S+) dev wrap1 `)
)

// sameLink removes what differs whenever a link is created again: its index, the random address from which its
// link-local address is derived, and the order of links, addresses and sysctls.
func sameLink(snapshot string) string {
	if _, rest, found := strings.Cut(snapshot, "local fe80::"); found {
		if own := linkLocal.FindStringSubmatch("local fe80::" + rest); own != nil {
			snapshot = strings.ReplaceAll(snapshot, own[1], "fe80::random")
		}
	}
	lines := strings.Split(snapshot, "\n")
	for i, line := range lines {
		if strings.ContainsRune(line, '@') || strings.Contains(line, "permaddr") {
			line = randomPart.ReplaceAllString(line, "")
		}
		if number, rest, ok := strings.Cut(line, ": "); ok {
			if _, err := strconv.Atoi(number); err == nil {
				line = rest
			}
		}
		lines[i] = line
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// everyKind makes a walk from fault to fault skip steps of a kind that it has already met: further ones do not need a
// real kernel, and TestFaults in package reconcile covers them.
func everyKind() func(state.Step) bool {
	seen := map[string]bool{}
	return func(step state.Step) bool {
		kind := fmt.Sprintf("%T", step)
		again := seen[kind]
		seen[kind] = true
		return again
	}
}

// TestEveryStepFails makes a step of each kind fail in each transition: the kernel is then unchanged.
func TestEveryStepFails(t *testing.T) {
	r := newRelay(t, lab.Options{}, "")
	r.atOnce(t, func(t *testing.T, e *end) {
		for _, transition := range transitions {
			t.Run(transition.name, func(t *testing.T) {
				arrange(e, "")
				arrange(e, transition.from)
				before := sameLink(e.snapshot())
				failures := 0
				for n := 1; n <= maxSteps; n++ {
					at := n
					e.apply = func(k reconcile.Kernel) reconcile.Kernel {
						return faulty{Kernel: k, at: &at, skip: everyKind()}
					}
					code, _, stderr := e.try(commandTo(e, transition.to)...)
					if at > 0 {
						break // more than there are steps
					}
					failures++
					if code != exitFailed || !strings.Contains(stderr, errInjected.Error()) ||
						strings.Contains(stderr, "while undoing") {
						t.Fatalf("step %d: exit status %d, %s", n, code, stderr)
					}
					if after := sameLink(e.snapshot()); after != before {
						t.Fatalf("after step %d failed (%s):\n%s", n, strings.TrimSpace(stderr),
							difference(before, after))
					}
				}
				if failures < 5 || failures == maxSteps {
					t.Errorf("%d steps were made to fail", failures)
				}
				t.Logf("%d kinds of steps", failures)
			})
		}
	})
}

// childEnv carries, for a process that kills itself, the step and whether it comes before or after it.
const childEnv = "DS4RELAY_TEST_KILL"

// childKinds, if set, makes only the first step of each kind count.
const childKinds = "DS4RELAY_TEST_KINDS"

// child runs the program with a kernel that kills it with SIGKILL.
func child() int {
	regular = time.Hour // what is put back is put back for a change
	when, number, _ := strings.Cut(os.Getenv(childEnv), " ")
	at, _ := strconv.Atoi(number)
	a := &app{stdout: os.Stdout, stderr: os.Stderr, env: func(string) string { return "" }}
	a.apply = func(k reconcile.Kernel) reconcile.Kernel {
		f := faulty{Kernel: k, at: &at, kill: func(before bool) {
			if before == (when == "before") {
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
		}}
		if os.Getenv(childKinds) != "" {
			f.skip = everyKind()
		}
		return f
	}
	return a.main(os.Args[1:])
}

// TestKilled kills the program at a step of each kind: a later up or down then reaches the right state.
func TestKilled(t *testing.T) {
	r := newRelay(t, lab.Options{}, "")
	r.atOnce(t, func(t *testing.T, e *end) {
		arrange(e, "")
		empty := sameLink(e.snapshot())
		for i, transition := range transitions {
			if transition.name == "change back" {
				continue // another change, with steps of the same kinds
			}
			t.Run(transition.name, func(t *testing.T) {
				for n := 1; n <= maxSteps; n++ {
					// Before a step is the same as after the previous one, except for the first step and for records:
					// alternate.
					when := []string{"after", "before"}[(n+i)%2]
					arrange(e, transition.from) // the last one ended with nothing
					args := append([]string{"-c", e.config, "--run", e.runDir()}, commandTo(e, transition.to)...)
					cmd := e.host.Command(os.Args[0], args...)
					cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", childEnv, when, n), childKinds+"=1")
					out, err := cmd.CombinedOutput()
					if err == nil {
						break // more than there are steps
					}
					var exit *exec.ExitError
					if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
						t.Fatalf("%s step %d: %v\n%s", when, n, err, out)
					}
					if n%2 == 0 {
						e.do("down")
						same(t, fmt.Sprintf("%s step %d, down", when, n), empty, sameLink(e.snapshot()))
						continue
					}
					e.do("up")
					e.do("status")
					e.do("down")
					same(t, fmt.Sprintf("%s step %d, up, down", when, n), empty, sameLink(e.snapshot()))
				}
			})
		}
	})
}

// TestTwoAtOnce: of two processes one waits for the other, and the result is the same.
func TestTwoAtOnce(t *testing.T) {
	r := newRelay(t, lab.Options{}, forwardAll)
	var wait sync.WaitGroup
	outputs := make([]string, 2)
	for i := range outputs {
		wait.Add(1)
		go func() {
			defer wait.Done()
			code, stdout, stderr := r.vps.try("up")
			if code != 0 {
				t.Errorf("exit status %d: %s", code, stderr)
			}
			outputs[i] = stdout
		}()
	}
	wait.Wait()
	slices.Sort(outputs)
	if !strings.HasPrefix(outputs[0], "Nothing to do") || !strings.HasPrefix(outputs[1], "[#]") {
		t.Errorf("two ups printed:\n%s\n---\n%s", outputs[0], outputs[1])
	}

	lock, err := os.OpenFile(filepath.Join(r.vps.runDir(), "lock"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(500*time.Millisecond, func() { syscall.Flock(int(lock.Fd()), syscall.LOCK_UN) })
	if code, _, stderr := r.vps.try("up"); code != 0 ||
		!strings.Contains(stderr, "waiting for another ds4relay (process ") {
		t.Errorf("behind another: exit status %d, %s", code, stderr)
	}
}

// wireGuard returns the settings of the end's tunnel, if it has WireGuard. A router's port is any one.
func (e *end) wireGuard() string {
	e.t.Helper()
	out, err := e.host.Run("sh", "-c", "! ip link show type wireguard dev wrap1 2>/dev/null | grep -q . || "+
		"wg showconf wrap1")
	if err != nil {
		e.t.Fatal(err, out)
	}
	if strings.Contains(e.text, "option role 'router'") {
		out = regexp.MustCompile(`(?m)^ListenPort = .*\n`).ReplaceAllString(out, "")
	}
	return out
}

// TestPlanByHand runs the output of plan on an empty machine and compares the result with that of up.
func TestPlanByHand(t *testing.T) {
	const egress = forwardAll + "\toption egress 'all'\n"
	relays := []func() *relay{
		func() *relay { return newRelay(t, lab.Options{}, egress) },
		func() *relay { return newRelay(t, lab.Options{}, forwardAll+forwardWeb) },
		func() *relay { return newWireGuard(t, lab.Options{}, lab.VPSIPv6.String(), egress) },
	}
	if os.Getenv(transportEnv) != "" {
		relays = relays[:2] // the others have it already
	}
	for _, begin := range relays {
		r := begin()
		for _, e := range []*end{r.vps, r.router} {
			before := e.snapshot()
			plan, down := e.do("plan"), ""
			same(t, "the kernel after plan", before, e.snapshot())
			e.do("up")
			down = e.do("plan", "--down")
			byUp, settings := sameLink(e.snapshot()), e.wireGuard()
			e.do("down")
			if out, err := e.host.RunInput("set -e\n"+plan, "sh"); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			same(t, e.host.Name+": the kernel by plan's lines", byUp, sameLink(e.snapshot()))
			same(t, e.host.Name+": WireGuard by plan's lines", settings, e.wireGuard())
			if out, err := e.host.RunInput("set -e\n"+down, "sh"); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			same(t, e.host.Name+": the kernel by plan --down's lines", before, e.snapshot())
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestForeign: objects of others do not change, and the error says what to do.
func TestForeign(t *testing.T) {
	r := newRelay(t, lab.Options{}, forwardAll)
	for _, c := range []struct {
		name        string
		end         *end
		make, clear string
		want        string
	}{
		{"a rule", r.router, "ip rule add priority 4600 from 10.9.9.9 lookup 7 protocol 186",
			"ip rule del priority 4600",
			`there is an ip rule of priority 4600 that ds4relay did not make (it seems to be from bgp); remove it, ` +
				`or take other priorities with: option priority`},
		{"a device", r.vps, "ip link add wrap1 type dummy", "ip link del wrap1",
			`relay "home": there is a device wrap1 already that ds4relay did not make (dummy); remove it, or give ` +
				`the tunnel another name with: option device`},
		{"the same tunnel by hand", r.vps,
			"ip link add wrap1 type ip6tnl mode ipip6 remote 2001:db8:fdd2:0:198:51:100:144 local " +
				"2001:db8:6ef9:0:198:51:100:144 encaplimit none", "ip link del wrap1",
			`relay "home": there is a device wrap1 already that ds4relay did not make (ip6tnl); remove it, or give ` +
				`the tunnel another name with: option device`},
		{"a table", r.router, "ip route add 10.9.9.0/24 dev lan2 table 42 proto static", "ip route flush table 42",
			`table 42 has a route to 10.9.9.0/24 through lan2 that ds4relay did not make (it seems to be from a ` +
				`person or a script (protocol static)); remove it, or: option ip4table names another table`},
		{"a route to the host", r.vps, "ip route add 192.168.1.210 via 198.51.100.1", "ip route del 192.168.1.210",
			`table main has a route to 192.168.1.210/32 through eth0 that ds4relay did not make (it seems to be from ` +
				`a person or a script (protocol boot)); remove it, or: option dest_ip names another host`},
		{"an nft table", r.vps, "nft 'add table ip ds4relay; add chain ip ds4relay mine'",
			"nft delete table ip ds4relay",
			`there is an nft table ip ds4relay without the chain made_by_ds4relay: somebody else made it; no option ` +
				`avoids this, rename or remove it: nft delete table ip ds4relay`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if out, err := c.end.host.Run("sh", "-c", c.make); err != nil {
				t.Fatal(err, out)
			}
			before := c.end.snapshot()
			code, stdout, stderr := c.end.try("up")
			if code != exitFailed || stdout != "" || stderr != "ds4relay: "+c.want+"\n" {
				t.Errorf("exit status %d, stdout %q, stderr\n%s", code, stdout, stderr)
			}
			if code, out, _ := c.end.try("status"); code != exitDiffers || !strings.Contains(out, c.want) {
				t.Errorf("status: exit status %d\n%s", code, out)
			}
			if code, _, out := c.end.try("check"); code != exitFailed || !strings.Contains(out, c.want) {
				t.Errorf("check: exit status %d\n%s", code, out)
			}
			c.end.do("check", c.end.config)
			c.end.do("down")
			same(t, "the kernel", before, c.end.snapshot())
			if out, err := c.end.host.Run("sh", "-c", c.clear); err != nil {
				t.Fatal(err, out)
			}
			c.end.do("check")
			c.end.do("up")
			c.end.do("down")
		})
	}

	t.Run("an endpoint that the machine has", func(t *testing.T) {
		if _, err := r.VPS.Run("ip", "-6", "addr", "add", vpsEndpoint.String()+"/64", "dev", "eth0"); err != nil {
			t.Fatal(err)
		}
		before := r.vps.snapshot()
		if out := r.vps.do("up"); strings.Contains(out, "addr add") {
			t.Errorf("up:\n%s", out)
		}
		r.vps.do("down")
		same(t, "the kernel", before, r.vps.snapshot())
	})
}

// TestLockout: neither the ssh session's port nor that of a tunnel that the relay runs in is forwarded.
func TestLockout(t *testing.T) {
	r := newRelay(t, lab.Options{}, forwardAll)
	withoutKeep := strings.Replace(vpsRelay, "\tlist keep 'tcp:22'\n", "", 1)
	r.vps.write(withoutKeep + forwardAll)
	before := r.vps.snapshot()
	r.vps.env["SSH_CONNECTION"] = "203.0.113.10 50000 198.51.100.144 22"
	code, stdout, stderr := r.vps.try("up")
	if code != exitFailed || stdout != "" || !strings.Contains(stderr, "list keep 'tcp:22'") ||
		!strings.Contains(stderr, "--force") {
		t.Errorf("exit status %d\n%s%s", code, stdout, stderr)
	}
	same(t, "the kernel", before, r.vps.snapshot())
	r.vps.do("up", "--force")
	r.vps.do("down")
	for _, connection := range []string{"", "203.0.113.10 50000 198.51.100.144 2222",
		"2001:db8:c::10 50000 2001:db8:6ef9::1 22"} {
		r.vps.env["SSH_CONNECTION"] = connection
		r.vps.write(withoutKeep + forwardWeb)
		r.vps.do("up")
	}
	r.vps.env["SSH_CONNECTION"] = "203.0.113.10 50000 198.51.100.144 22"
	r.vps.write(vpsRelay + forwardAll)
	r.vps.do("up")

	// Nor is what carries another tunnel that the relay runs in.
	const relayRoute = "ip -6 route replace 2001:db8:fdd2::/64 dev "
	for _, c := range []struct{ name, add, keep string }{
		{"wg9", "ip link add wg9 type wireguard", `udp:\d+`},
		{"gre9", "ip link add gre9 type gre local 198.51.100.144 remote 203.0.113.10", "gre"},
		{"vx9", "ip link add vx9 type vxlan id 9 dstport 4789 remote 203.0.113.10", "udp:4789"},
		{"six9", "ip link add six9 type ip6tnl mode any local 2001:db8:6ef9::1 remote 2001:db8:c::10", ""},
	} {
		r.vps.write(vpsRelay + forwardAll)
		script := c.add + "; ip link set " + c.name + " up; " + relayRoute + c.name
		if out, err := r.VPS.Run("sh", "-e", "-c", script); err != nil {
			t.Fatal(err, out)
		}
		code, stdout, stderr := r.vps.try("up")
		if c.keep == "" {
			if code != 0 {
				t.Errorf("%s: exit status %d\n%s", c.name, code, stderr)
			}
			continue
		}
		keep := regexp.MustCompile("list keep '(" + c.keep + ")'").FindStringSubmatch(stderr)
		if code != exitFailed || stdout != "" || keep == nil {
			t.Errorf("%s: exit status %d\n%s%s", c.name, code, stdout, stderr)
			continue
		}
		for command, want := range map[string]int{"check": exitFailed, "plan": 0} {
			if code, _, stderr := r.vps.try(command); code != want || !strings.Contains(stderr, keep[0]) {
				t.Errorf("%s: %s: exit status %d\n%s", c.name, command, code, stderr)
			}
		}
		r.vps.write(vpsRelay + "\tlist keep '" + keep[1] + "'\n" + forwardAll)
		r.vps.do("up")
		if _, _, stderr := r.vps.try("check"); strings.Contains(stderr, keep[0]) {
			t.Errorf("%s: check, once it is kept: %s", c.name, stderr)
		}
	}
}

// TestMissing: a missing program or module is reported in one sentence, and nothing is changed.
func TestMissing(t *testing.T) {
	r := newRelay(t, lab.Options{}, forwardAll)
	before := r.vps.snapshot()
	fails := func(t *testing.T, want string) {
		t.Helper()
		code, _, stderr := r.vps.try("up")
		if code != exitFailed || !strings.Contains(stderr, want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("exit status %d, %q, want %q", code, stderr, want)
		}
		same(t, "the kernel", before, r.vps.snapshot())
	}
	t.Run("tunlink", func(t *testing.T) {
		r.vps.write(strings.Replace(vpsRelay, "'eth0'", "'eth9'", 1) + forwardAll)
		fails(t, `relay "home": there is no device eth9 (option tunlink); this machine has: lo, eth0`)
		r.vps.write(strings.ReplaceAll(strings.Replace(vpsRelay, "\toption tunlink 'eth0'\n", "", 1), public,
			"198.51.100.145") + forwardAll)
		fails(t, `no device has the address 198.51.100.145 (option ipaddr)`)
		r.vps.write(strings.Replace(vpsRelay, "\toption tunlink 'eth0'\n", "", 1) + forwardAll)
		if out := r.vps.do("up"); !strings.Contains(out, "dev eth0 metric 46") {
			t.Errorf("tunlink was not found by ipaddr:\n%s", out)
		}
		r.vps.do("down")
		r.vps.write(vpsRelay + forwardAll)
	})
	t.Run("IPv6", func(t *testing.T) {
		set := func(h *lab.Host, device, value string) {
			if out, err := h.Run("sysctl", "-qw", "net.ipv6.conf."+device+".disable_ipv6="+value); err != nil {
				t.Fatal(err, out)
			}
		}
		set(r.VPS, "eth0", "1")
		code, _, stderr := r.vps.try("up")
		if code != exitFailed || !strings.Contains(stderr, "IPv6 is off on eth0; turn it on with `sysctl -w "+
			"net.ipv6.conf.eth0.disable_ipv6=0`") {
			t.Errorf("exit status %d, %q", code, stderr)
		}
		set(r.VPS, "eth0", "0")
		// A device that is down is no mistake, but nothing can arrive.
		run := func(command string) {
			t.Helper()
			if out, err := r.VPS.Run("sh", "-c", command); err != nil {
				t.Fatal(err, out)
			}
		}
		run("ip link set eth0 down")
		if code, _, stderr := r.vps.try("check"); code != exitFailed || !strings.Contains(stderr, "eth0 is down") {
			t.Errorf("check: exit status %d, %q", code, stderr)
		}
		if out := r.vps.do("up"); !strings.Contains(out, "[#] ip link set dev wrap1 up\n") {
			t.Errorf("up: %s", out)
		}
		if _, out, _ := r.vps.try("status"); !strings.Contains(out, "eth0 is down: nothing can arrive") {
			t.Errorf("status: %s", out)
		}
		r.vps.do("down")
		run("ip link set eth0 up; ip route add default via 198.51.100.1 proto static")
		if out, err := r.VPS.Run("sh", "-c", "ip -6 addr add 2001:db8:6ef9::1/64 dev eth0 nodad && ip -6 route add "+
			"default via 2001:db8:6ef9::ff dev eth0 proto static"); err != nil {
			t.Fatal(err, out)
		}
		// A router's endpoint is on the tunnel, which ds4relay has to itself.
		bare := r.router.snapshot()
		set(r.Router, "default", "1")
		if out := r.router.do("up"); !strings.Contains(out, "[#] sysctl -qw net/ipv6/conf/wrap1/disable_ipv6=0\n") {
			t.Errorf("up on a machine that has no IPv6 on new devices:\n%s", out)
		}
		r.router.do("status")
		r.router.do("down")
		set(r.Router, "default", "0")
		same(t, "the router", bare, r.router.snapshot())
	})
	t.Run("nft", func(t *testing.T) {
		path, err := exec.LookPath("nft")
		if err != nil {
			t.Fatal(err)
		}
		if os.Getenv(lab.Environment) == "host" {
			t.Skip("would move the machine's own nft")
		}
		if err := os.Rename(path, path+".away"); err != nil {
			t.Fatal(err)
		}
		code, _, stderr := r.vps.try("up")
		if err := os.Rename(path+".away", path); err != nil {
			t.Fatal(err)
		}
		if code != exitFailed ||
			!strings.Contains(stderr, "the program nft is missing; install it: apt install nftables (Debian), opkg "+
				"install nftables (OpenWrt)") {
			t.Errorf("exit status %d, %q", code, stderr)
		}
		same(t, "the kernel", before, r.vps.snapshot())
	})
	t.Run("ip6_tunnel", func(t *testing.T) {
		if os.Getenv(lab.Environment) == "host" {
			t.Skip("would unload a module of the machine")
		}
		// The lab's own DS-Lite tunnels use the module: they must be removed first.
		const module = "/proc/sys/kernel/modprobe"
		modprobe, err := os.ReadFile(module)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(module, []byte("/bin/false"), 0); err != nil {
			t.Fatal(err)
		}
		defer os.WriteFile(module, modprobe, 0)
		for host, device := range map[*lab.Host]string{r.Router: lab.DSLiteDevice, r.Carrier: lab.SoftwireDevice} {
			if out, err := host.Run("ip", "link", "del", device); err != nil {
				t.Fatal(err, out)
			}
		}
		if out, err := r.VPS.Run("rmmod", "ip6_tunnel"); err != nil {
			t.Fatal(err, out)
		}
		defer r.VPS.Run("modprobe", "ip6_tunnel")
		before = r.vps.snapshot()
		fails(t, "the kernel module ip6_tunnel is missing: on OpenWrt install kmod-ip6-tunnel, on Debian run modprobe "+
			"ip6_tunnel; on a VPS in a container use config proxy instead, see ds4relay(5)")
	})
	t.Run("root", func(t *testing.T) {
		// The directory of the test's binary is closed to others.
		binary, err := os.ReadFile(os.Args[0])
		if err != nil {
			t.Fatal(err)
		}
		program := "/run/ds4relay.test"
		if err := os.WriteFile(program, binary, 0o755); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(program)
		file := "/run/ds4relay.test.conf"
		if err := os.WriteFile(file, []byte(vpsRelay+forwardAll), 0o644); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(file)
		const root, nobody = 0, 65534
		run := func(user uint32, command string) (int, string) {
			t.Helper()
			cmd := r.VPS.Command(program, "-c", file, "--run", "/run/ds4relay.test.run", command)
			cmd.Env = append(os.Environ(), childEnv+"=never 0")
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState == nil {
				t.Fatal(err)
			}
			return cmd.ProcessState.ExitCode(), string(out)
		}
		for _, command := range []string{"up", "down", "plan"} {
			code, out := run(nobody, command)
			if code != exitFailed || out != "ds4relay: this needs root (CAP_NET_ADMIN); run it with sudo\n" {
				t.Errorf("%s: exit status %d, %q", command, code, out)
			}
		}
		cmd := r.VPS.Command("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin", program, "-c", file,
			"up")
		cmd.Env = append(os.Environ(), childEnv+"=never 0")
		if out, _ := cmd.CombinedOutput(); !strings.Contains(string(out), "needs the capability CAP_NET_ADMIN") {
			t.Errorf("up as root without the capability: %s", out)
		}
		// Everything that the kernel shows to everybody is compared. Another test may have loaded ip_tables.
		hidden := regexp.MustCompile("note: the kernel shows (iptables' rules, )?nft's tables and open connections to " +
			"root only")
		for _, c := range []struct {
			before string // a command of ds4relay, or of the shell
			status int
			says   string
		}{
			{"down", exitDiffers, "The kernel has nothing of the configuration"},
			{"up", exitFailed, "relay home (vps): up"},
			{"ip link set wrap1 mtu 1300", exitDiffers, "ip link set dev wrap1 mtu "},
			{"down", exitDiffers, "relay home (vps): down"},
		} {
			if find(c.before) != nil {
				if code, out := run(root, c.before); code != 0 {
					t.Fatal(c.before, code, out)
				}
			} else if out, err := r.VPS.Run("sh", "-c", c.before); err != nil {
				t.Fatal(err, out)
			}
			code, out := run(nobody, "status")
			if code != c.status || !strings.Contains(out, c.says) || strings.Count(out, "note: ") != 1 ||
				!hidden.MatchString(out) {
				t.Errorf("after %s: exit status %d, want %d and %q\n%s", c.before, code, c.status, c.says, out)
			}
		}
		os.RemoveAll("/run/ds4relay.test.run")
	})
	t.Run("configuration", func(t *testing.T) {
		r.vps.write(vpsRelay + strings.Replace(forwardAll, home4, "192.168.1.300", 1))
		for _, args := range [][]string{{"up"}, {"plan"}, {"status"}, {"check"}} {
			if code, _, stderr := r.vps.try(args...); code != exitUsage || !strings.Contains(stderr, "192.168.1.300") {
				t.Errorf("%v: exit status %d, %s", args, code, stderr)
			}
		}
		same(t, "the kernel", before, r.vps.snapshot())
		r.vps.do("down") // needs no configuration
		r.vps.write(vpsRelay + forwardAll)
		if code, _, stderr := r.vps.try("up", "hoem"); code != exitUsage ||
			!strings.Contains(stderr, `unknown relay "hoem"`) {
			t.Errorf("an unknown relay: exit status %d, %s", code, stderr)
		}
	})
}

// TestPing compares the relay with the path over IPv6. It fails if the VPS itself answers instead of the home.
func TestPing(t *testing.T) {
	r := newRelay(t, lab.Options{}, forwardAll)
	r.up()
	client := newEnd(t, r.Client, "")
	ping := func(e *end, wantCode int, wants ...string) {
		t.Helper()
		code, out, stderr := e.try("ping", public, home6, "-c", "4", "-i", "0.05")
		if code != wantCode {
			t.Errorf("%s: exit status %d, want %d", e.host.Name, code, wantCode)
		}
		for _, want := range wants {
			if !strings.Contains(out+stderr, want) {
				t.Errorf("%s: no %q in:\n%s%s", e.host.Name, want, out, stderr)
			}
		}
	}
	ping(client, 0, "--- "+public, "--- "+home6, "4 packets transmitted, 4 received, 0% packet loss",
		"rtt min/avg/max/mdev = ", "IPv4 by relay - IPv6 direct: ", "is not known on this machine")
	ping(r.router, 0)
	ping(r.vps, 0)
	r.vps.write(vpsRelay + "\toption target_local '0'\n" + forwardAll)
	r.vps.do("reload")
	ping(r.vps, exitFailed, "the home has not answered")
	r.vps.write(vpsRelay + "\tlist keep 'icmp'\n" + forwardAll)
	r.vps.do("reload")
	ping(r.vps, exitFailed, "the VPS itself has answered")
	ping(r.router, exitFailed, "the home has not answered")
	r.router.write(routerRelay + forwardWeb)
	r.router.do("reload")
	ping(r.router, exitFailed, "the VPS itself has answered")
}

// TestOneFails: a relay that cannot be brought up does not affect others, and is brought up as soon as that is
// possible.
func TestOneFails(t *testing.T) {
	r := newRelay(t, lab.Options{}, forwardWeb)
	r.vps.do("up")
	serveTCP(t, r.Host2, 80)
	first := r.router.snapshot()
	cabin := strings.NewReplacer("'home'", "'cabin'", "'wrap1'", "'wrap2'", "6ef9", "6efa").Replace(routerRelay) +
		"\toption ip4table '43'\n"
	forward := "\toption relay 'home'\n"
	r.router.write(routerRelay + "\n" + cabin + forwardWeb + forward)
	if out, err := r.Router.Run("ip", "link", "add", "wrap2", "type", "dummy"); err != nil {
		t.Fatal(err, out)
	}
	for range 2 {
		code, _, stderr := r.router.try("up")
		if code != exitSome || !strings.Contains(stderr, `relay "cabin"`) || !strings.Contains(stderr, "wrap2") {
			t.Errorf("up: exit status %d, %s", code, stderr)
		}
		seenTCP(t, r.Client, public+":8080", client4)
	}
	if code, _, _ := r.router.try("watch"); code != exitSome {
		t.Errorf("watch, while it cannot be brought up: exit status %d", code)
	}
	if out, err := r.Router.Run("ip", "link", "del", "wrap2"); err != nil {
		t.Fatal(err, out)
	}
	r.router.do("watch")
	if out := r.router.do("up"); !strings.HasPrefix(out, "Nothing to do") {
		t.Errorf("up after watch: %s", out)
	}
	r.router.do("down")
	same(t, "the router after down", first, r.router.snapshot())
}
