//go:build lab

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/config/configtest"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/kernel/fake"
	"github.com/ds4relay/ds4relay/internal/lab"
	"github.com/ds4relay/ds4relay/internal/reconcile"
	"github.com/ds4relay/ds4relay/internal/state"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// everything is a configuration with everything that ds4relay can install on an end.
const everything = forwardAll + "\toption egress 'all'\n" + forwardWeb + `
config forward 'limited'
	option proto 'tcp'
	option src_dport '2222'
	option dest_ip '192.168.1.211'
	option src_ip '203.0.113.0/24'

config forward 'wide'
	option src_dport '20000-30000'
	option dest_ip '192.168.1.211'

config forward 'ping'
	option proto 'icmp'
	option dest_ip '192.168.1.211'
`

// steps returns the steps of `up` on the end.
func (e *end) steps() (steps []state.Step) {
	e.t.Helper()
	err := e.host.Do(func() error {
		c, _, err := config.Load(e.config, config.Defaults{Role: config.VPS})
		if err != nil {
			return err
		}
		steps, err = (&reconcile.End{Config: c, Kernel: &kernel.Kernel{Run: e.runDir()}}).Plan(nil, false)
		return err
	})
	if err != nil {
		e.t.Fatal(err)
	}
	return steps
}

// noIPv6 takes away the endpoint on the router's tunnel, and keeps new ones away.
const noIPv6 = "echo 1 > /proc/sys/net/ipv6/conf/wrap1/disable_ipv6"

// damages are commands that each alter something that the steps created: every step undone by hand, every chain and
// every set changed, and typical commands of users.
func damages(steps []state.Step) []string {
	list := []string{"ip -6 addr flush deprecated", "ip link set wrap1 down", "ip link set wrap1 mtu 1300",
		"ip link change wrap1 type ip6tnl hoplimit 9", "ip link change wrap1 type ip6tnl encaplimit 3",
		"ip link set wrap1 group 0", "ip -4 route flush proto 46 table all", "ip -4 route flush table all dev wrap1",
		"ip -4 rule flush; ip rule add priority 32766 lookup main protocol kernel; ip rule add priority 32767 lookup " +
			"default protocol kernel", "nft flush ruleset", "nft delete table ip6 ds4relay",
		"nft delete table ip ds4relay", "nft delete table ip ds4relay_flows", "ip link set wrap1 alias ''",
		"nft flush chain ip6 ds4relay input", "nft add element ip6 ds4relay endpoint '{ 2001:db8::77 }'",
		"nft add element ip ds4relay open_host '{ wrap1 . 192.168.1.1 }'",
		"echo 0 > /proc/sys/net/ipv4/conf/wrap1/forwarding", noIPv6}
	chain := regexp.MustCompile(`(?m)^\tchain (\w+) \{$`)
	for _, step := range steps {
		for _, undo := range step.Undo() {
			list = append(list, undo.Commands()...)
		}
		load, ok := step.(state.LoadTables)
		if !ok {
			continue
		}
		for _, table := range load.Loaded {
			for _, match := range chain.FindAllStringSubmatch(table.Ruleset, -1) {
				list = append(list, fmt.Sprintf("nft insert rule %s %s counter", table, match[1]))
			}
			for _, set := range table.Sets {
				if len(set.Elements) > 0 {
					list = append(list, fmt.Sprintf("nft flush set %s %s 2>/dev/null || nft flush map %s %s", table,
						set.Name, table, set.Name))
				}
			}
		}
	}
	return list
}

// TestDrift alters each installed object, one after another: status names the difference, and up restores just that.
func TestDrift(t *testing.T) {
	r := newRelay(t, lab.Options{}, everything)
	r.router.write(routerRelay + "\tlist keep 'tcp:22'\n" + everything)
	r.atOnce(t, func(t *testing.T, e *end) {
		before := e.snapshot()
		steps := e.steps()
		e.do("-q", "up")
		up := sameLink(e.snapshot())
		list := damages(steps)
		for _, damage := range list {
			if out, err := e.host.Run("sh", "-c", damage); err != nil {
				if strings.Contains(out, "No such") || strings.Contains(out, "Cannot find device") {
					continue // a table that this end does not have, or a link that another damage removed
				}
				t.Errorf("%s: %v %s", damage, err, out)
				continue
			}
			code, named, _ := e.try("status")
			done := e.do("up", "-v")
			if strings.HasPrefix(done, "Nothing to do") {
				if code == 0 && (damage == noIPv6 && e == r.vps || // its endpoint is on another device
					damage == "ip -4 rule flush; ip rule add priority 32766 lookup main protocol kernel; ip rule "+
						"add priority 32767 lookup default protocol kernel" || strings.HasPrefix(damage, "sysctl")) {
					continue // nothing of ours was altered: a VPS has no rules, and a sysctl may have been 1 before
				}
				t.Errorf("%s: up found nothing to do, status said (%d)\n%s", damage, code, named)
				continue
			}
			if code != exitDiffers {
				t.Errorf("%s: status ended with %d\n%s", damage, code, named)
			}
			commands := strings.ReplaceAll(strings.ReplaceAll(done, "[#] ", ""), "\n", "\n  ")
			if !strings.Contains(named, strings.TrimSpace(commands)) {
				t.Errorf("%s: status named\n%s\nand up did\n%s", damage, named, done)
			}
			if n := strings.Count(done, "[#] "); n > 8 && !strings.Contains(damage, "link del") {
				t.Errorf("%s: up did %d things:\n%s", damage, n, done)
			}
			if left := e.steps(); len(left) > 0 {
				t.Errorf("%s: after up there is left: %v", damage, left)
			}
		}
		same(t, "the kernel at last", up, sameLink(e.snapshot()))
		t.Logf("%d damages", len(list))
		e.do("down")
		same(t, "the kernel after down", before, e.snapshot())
	})
}

// TestFaults walks through random configurations with failures and kills at random steps: the kernel always matches the
// old or the new configuration, and down restores its initial state. DS4RELAY_SEED repeats a walk, DS4RELAY_ROUNDS
// makes it longer. Package reconcile has the same test on a kernel in memory, with many more rounds. Meanwhile the
// virtual machine's clock jumps.
func TestFaults(t *testing.T) {
	rounds, seed := setting(t, "DS4RELAY_ROUNDS", 30), setting(t, "DS4RELAY_SEED", rand.Uint64())
	fmt.Printf("TestFaults: DS4RELAY_SEED=%d\n", seed)
	r := newRelay(t, lab.Options{}, "")
	if out, err := r.VPS.Run("ip", "addr", "add", "198.51.100.145/24", "dev", "eth0"); err != nil {
		t.Fatal(err, out)
	}
	began := time.Now()
	t.Cleanup(func() { setClock(t, began, began) }) // what atOnce runs comes after a defer
	r.atOnce(t, func(t *testing.T, e *end) {
		role := map[*end]string{r.vps: "vps", r.router: "router"}[e]
		random := rand.New(rand.NewPCG(seed, uint64(len(role))))
		outcomes := map[string]int{}
		first := e.snapshot()
		old := "" // the configuration that the kernel has; "" for none
		is := func(file string) bool {
			if file == "" {
				return strings.Contains(e.do("down"), "Nothing to do")
			}
			e.write(file)
			code, _, _ := e.try("status")
			return code == 0
		}
		for round := range rounds / 2 {
			next, command := e.withKeys(configtest.Random(random, role)), "up"
			if random.IntN(6) == 0 {
				next, command = "", "down"
			}
			if next != "" {
				e.write(next)
			}
			if random.IntN(4) == 0 {
				setClock(t, began, time.Unix(random.Int64N(1<<31), 0)) // up to 2038
			}
			what, at := []string{"done", "failed", "killed"}[random.IntN(3)], 1+random.IntN(16)
			fail := func(format string, args ...any) {
				t.Helper()
				t.Fatalf("seed %d, %s, round %d (%s at step %d of %s): %s\n--- old\n%s\n--- new\n%s", seed, role, round,
					what, at, command, fmt.Sprintf(format, args...), old, next)
			}
			switch what {
			case "done":
				if code, _, stderr := e.try("-q", command); code != 0 {
					fail("exit status %d, %s", code, stderr)
				}
				old = next
			case "failed":
				left := at
				e.apply = func(k reconcile.Kernel) reconcile.Kernel { return faulty{Kernel: k, at: &left} }
				code, _, stderr := e.try("-q", command)
				e.apply = nil
				switch {
				case code == 0: // there were fewer steps, or a step that failed once was tried again
					old = next
					what = "done"
				case code != exitFailed || strings.Contains(stderr, "while undoing"):
					fail("exit status %d, %s", code, stderr)
				}
			case "killed":
				when := []string{"before", "after"}[random.IntN(2)]
				cmd := e.host.Command(os.Args[0], "-c", e.config, "--run", e.runDir(), "-q", command)
				cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", childEnv, when, at))
				out, err := cmd.CombinedOutput()
				var exit *exec.ExitError
				switch {
				case err == nil:
					old = next
					what = "done"
				case !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL:
					fail("%v\n%s", err, out)
				default: // one of the two states must be reachable from here
					if random.IntN(2) == 0 {
						old = next
					}
					back := "down"
					if old != "" {
						e.write(old)
						back = "up"
					}
					if code, _, stderr := e.try("-q", back); code != 0 {
						fail("%s after it: exit status %d, %s", back, code, stderr)
					}
				}
			}
			outcomes[what]++
			if !is(old) {
				_, out, _ := e.try("status")
				fail("the kernel is not as the configuration says:\n%s", out)
			}
			if old == "" {
				if snapshot := e.snapshot(); snapshot != first {
					fail("after down the kernel differs:\n%s", difference(first, snapshot))
				}
			}
		}
		e.do("-q", "down")
		same(t, "the kernel at the end", first, e.snapshot())
		t.Logf("%v", outcomes)
	})
}

// setting returns the number in a variable of the environment, if it is set.
func setting(t *testing.T, variable string, otherwise uint64) uint64 {
	t.Helper()
	s := os.Getenv(variable)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}

// setClock sets the virtual machine's clock to at plus the time since began. It affects no other machine.
func setClock(t *testing.T, began, at time.Time) {
	t.Helper()
	if os.Getenv(lab.Environment) != "vm" {
		return
	}
	now := unix.NsecToTimespec(at.Add(time.Since(began)).UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &now); err != nil {
		t.Error(err)
	}
}

// mirrored applies each step on a kernel in memory as well, which must accept the same steps as the real one.
type mirrored struct {
	reconcile.Kernel
	t    *testing.T
	twin *fake.Kernel
}

func (m mirrored) Apply(step state.Step) error {
	err := m.Kernel.Apply(step)
	if err != nil {
		return err
	}
	if err := m.twin.Apply(step); err != nil {
		m.t.Errorf("the kernel took %s, the one in memory says: %v", step.Commands()[0], err)
	}
	return nil
}

// shown returns our observed objects as text, in a fixed order.
func shown(o state.Observed) string {
	var lines []string
	add := func(kind string, item any) { lines = append(lines, fmt.Sprintf("%s %+v", kind, item)) }
	for _, link := range o.Links {
		add("link", link)
	}
	for _, addr := range o.Addrs {
		add("address", addr)
	}
	for _, route := range o.Routes {
		add("route", route)
	}
	for _, rule := range o.Rules {
		add("rule", rule)
	}
	for _, sysctl := range o.Sysctls {
		add("sysctl", sysctl)
	}
	for _, sysctl := range o.SavedSysctls {
		add("saved", sysctl)
	}
	for _, table := range o.Tables {
		add("table "+table.String(), table.Ruleset)
		for _, set := range table.Sets {
			for _, element := range set.Elements {
				add("element "+table.String()+" "+set.Name, element)
			}
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// TestFakeKernel compares the kernel in memory, which package reconcile is tested with, with the real one: through
// random changes, with a failure in every third, both accept the same steps and end in the same state.
func TestFakeKernel(t *testing.T) {
	const rounds = 12
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := newRelay(t, lab.Options{}, "")
	if out, err := r.VPS.Run("ip", "addr", "add", "198.51.100.145/24", "dev", "eth0"); err != nil {
		t.Fatal(err, out)
	}
	r.atOnce(t, func(t *testing.T, e *end) {
		role, devices := "vps", []string{"eth0"}
		if e == r.router {
			role, devices = "router", []string{lab.WANDevice, lab.LANDevice, lab.LAN2Device}
		}
		random := rand.New(rand.NewPCG(seed, uint64(len(role))))
		twin := fake.New(devices...)
		for round := range rounds {
			left := 0
			if round%3 == 2 {
				left = 1 + random.IntN(12)
			}
			e.apply = func(k reconcile.Kernel) reconcile.Kernel {
				return faulty{Kernel: mirrored{k, t, twin}, at: &left}
			}
			file := e.withKeys(configtest.Random(random, role))
			e.write(file)
			if code, _, stderr := e.try("-q", "up"); code != 0 && !strings.Contains(stderr, errInjected.Error()) {
				t.Fatalf("up: exit status %d, %s\n%s", code, stderr, file)
			}
			var have state.Observed
			err := e.host.Do(func() (err error) {
				have, err = (&kernel.Kernel{Run: e.runDir()}).Observe(state.State{})
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			want, err := twin.Observe(state.State{})
			if err != nil {
				t.Fatal(err)
			}
			for _, links := range [][]state.Link{want.Links, have.Links} {
				for i := range links { // a router's port is any one
					if tunnel, ok := links[i].Tunnel.(transport.WireGuard); ok && role == "router" {
						tunnel.ListenPort = 0
						links[i].Tunnel = tunnel
					}
				}
			}
			if want, have := shown(want), shown(have); want != have {
				t.Fatalf("round %d: the kernel in memory and the real one differ:\n%s\n%s", round,
					difference(want, have), file)
			}
		}
		e.apply = nil
		e.do("-q", "down")
	})
}
