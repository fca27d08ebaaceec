//go:build lab

package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/lab"
	"github.com/ds4relay/ds4relay/internal/reconcile"
	"github.com/ds4relay/ds4relay/internal/state"
)

// forwarded counts the IPv4 packets that reach the VPS's rules from now on, until the returned function is called.
func forwarded(t *testing.T, h *lab.Host) func() int {
	t.Helper()
	if err := h.NFT("table ip count {\n\tchain forward { type filter hook forward priority 5; " +
		"counter; }\n}"); err != nil {
		t.Fatal(err)
	}
	return func() int {
		t.Helper()
		out, err := h.Run("nft", "list", "table", "ip", "count")
		if err != nil {
			t.Fatal(err, out)
		}
		match := regexp.MustCompile(`packets (\d+)`).FindStringSubmatch(out)
		if match == nil {
			t.Fatal(out)
		}
		n, _ := strconv.Atoi(match[1])
		if out, err := h.Run("nft", "delete", "table", "ip", "count"); err != nil {
			t.Fatal(err, out)
		}
		return n
	}
}

// mistakesTunnels reports whether the lab has a kernel whose flowtables must not have tunnels of IPv4 in IPv6, as with
// KERNEL=trixie-backports (docs/dev/kernel.md).
func mistakesTunnels(t *testing.T) bool {
	t.Helper()
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	major, _, _ := strings.Cut(string(release), ".")
	n, err := strconv.Atoi(major)
	if err != nil {
		t.Fatal(err)
	}
	return n >= 7
}

// decoded reads the output of status --json.
func decoded(t *testing.T, output string) (status reconcile.Status) {
	t.Helper()
	if err := json.Unmarshal([]byte(output), &status); err != nil {
		t.Fatal(err)
	}
	return status
}

// TestFlowOffloading: established flows bypass the VPS's rules and are still counted, also when devices come and go,
// but not if the configuration turns this off.
func TestFlowOffloading(t *testing.T) {
	const size = 4 << 20
	r := newRelay(t, lab.Options{Second: true}, forwardWeb)
	serveTCP(t, r.Host2, 80)
	if out, err := r.VPS.Run("sysctl", "-qw", "net.netfilter.nf_conntrack_acct=1"); err != nil {
		t.Fatal(err, out)
	}
	r.up()
	few := func(what string) {
		t.Helper()
		count := forwarded(t, r.VPS)
		transfers(t, r.Client, public+":8080", size)
		if n := count(); n > 20 {
			t.Errorf("%s: %d packets met the rules", what, n)
		}
	}
	many := func(what string) {
		t.Helper()
		count := forwarded(t, r.VPS)
		transfers(t, r.Client, public+":8080", size)
		if n := count(); n < 100 {
			t.Errorf("%s: only %d packets met the rules", what, n)
		}
	}
	if mistakesTunnels(t) {
		many("on Linux 7")
		if out, err := r.VPS.Run("nft", "list", "tables"); err != nil || strings.Contains(out, "ds4relay_flows") {
			t.Errorf("Linux 7 would mistake the tunnel for IPv6 in IPv6: %v, %s", err, out)
		}
		return
	}
	few("after up")
	web := decoded(t, r.vps.do("status", "--json")).Relays[0].Forwards[0]
	if web.Flows == nil || web.Flows.In == nil || web.Flows.In.Bytes < size || web.Flows.Out.Bytes < size ||
		web.Flows.Answered == 0 {
		t.Errorf("of %d bytes each way the status has %+v", size, web.Flows)
	}

	// The router remembers that a client has come.
	r.router.do("watch")
	home := decoded(t, r.router.do("status", "--json")).Relays[0]
	note := filepath.Join(kernel.KeptDir, "served", home.Name)
	if text, err := os.ReadFile(note); err != nil || string(text) != public+"\n" ||
		home.Served == nil || !*home.Served {
		t.Errorf("after a client has come: served %v, %s has %q, %v", home.Served, note, text, err)
	}

	// The kernel removes a deleted device from the flowtable.
	if out, err := r.VPS.Run("ip", "link", "del", "wrap1"); err != nil {
		t.Fatal(err, out)
	}
	r.vps.do("up")
	few("after the tunnel was removed by hand, and up")
	if out := r.vps.do("up"); !strings.HasPrefix(out, "Nothing to do") {
		t.Errorf("a second up: %s", out)
	}

	// If the option is turned off, an idle flow in the flowtable returns to the normal path, and later comes back.
	stream := open(t, r.Client, public+":8080")
	alive(t, "a stream", stream)
	r.vps.write(strings.Replace(vpsRelay, "\toption device", "\toption flow_offloading '0'\n\toption device", 1) +
		forwardWeb)
	r.vps.do("reload")
	alive(t, "a stream, without offloading", stream)
	many("flow_offloading 0")
	if out, _ := r.VPS.Run("nft", "list", "tables"); strings.Contains(out, "ds4relay_flows") {
		t.Error(out)
	}
	r.vps.write(vpsRelay + forwardWeb)
	r.vps.do("reload")
	alive(t, "a stream, with offloading again", stream)
	few("flow_offloading again")

	r.vps.do("down")
	if out, _ := r.VPS.Run("nft", "list", "tables"); strings.Contains(out, "ds4relay") {
		t.Errorf("after down:\n%s", out)
	}
}

// TestFlowOffloadingHome: the same on a router, also beside fw4's own flowtable, and nothing that guards a host is
// lost.
func TestFlowOffloadingHome(t *testing.T) {
	if mistakesTunnels(t) {
		t.Skip("no tunnel of IPv4 in IPv6 is in a flowtable of Linux 7")
	}
	const size = 4 << 20
	option := "\toption egress 'all'\n"
	r := newRelay(t, lab.Options{}, forwardWeb+option)
	serveTCP(t, r.Host2, 80)
	serveTCP(t, r.Client, 90)
	r.up()
	counted := func(h *lab.Host, to string) int {
		t.Helper()
		count := forwarded(t, r.Router)
		transfers(t, h, to, size)
		return count()
	}
	few := func(what string) {
		t.Helper()
		for _, way := range []struct {
			h  *lab.Host
			to string
		}{{r.Client, public + ":8080"}, {r.Host2, client4 + ":90"}} {
			if n := counted(way.h, way.to); n > 20 {
				t.Errorf("%s: %d packets from %s met the rules", what, n, way.h.Name)
			}
		}
	}
	fw4 := flowtable("wan, lan-host, lan-host2, ds-wan6_4").ruleset
	few("after up")
	if err := r.Router.NFT(fw4); err != nil {
		t.Fatal(err)
	}
	few("beside fw4's flowtable")

	// What others do to it is put back.
	for _, command := range []string{"ip link del wrap1", "nft delete table ip ds4relay_flows"} {
		if out, err := r.Router.Run("sh", "-c", command); err != nil {
			t.Fatal(err, out)
		}
		if code, out, _ := r.router.try("status"); code != 3 {
			t.Errorf("%s: status ends with %d: %s", command, code, out)
		}
		r.router.do("watch")
		few(command)
		if out := r.router.do("up"); !strings.HasPrefix(out, "Nothing to do") {
			t.Errorf("%s: a second up: %s", command, out)
		}
	}

	// With a kill switch neither what is in our flowtable leaves another way, nor what was in fw4's before.
	leaves := func(what string, conn net.Conn) {
		t.Helper()
		if n := received(t, r.Client, "eth0", "leak", func() {
			conn.SetDeadline(time.Now().Add(patience))
			conn.Write([]byte("leak"))
		}); n > 0 {
			t.Errorf("with the kill switch, and no tunnel, %s leaves", what)
		}
	}
	killed := routerRelay + forwardWeb + option + "\toption killswitch '1'\n"
	own := open(t, r.Host2, client4+":90")
	alive(t, "a connection through the tunnel", own)
	r.router.write(killed)
	r.router.do("reload")
	alive(t, "a connection through the tunnel, with the kill switch", own)
	if out, err := r.Router.Run("ip", "link", "set", "wrap1", "down"); err != nil {
		t.Fatal(err, out)
	}
	leaves("a connection that was in our flowtable", own)
	r.router.do("up")
	few("with the kill switch")
	r.router.write(routerRelay + forwardWeb)
	r.router.do("reload")
	own = open(t, r.Host2, client4+":90")
	alive(t, "a connection through the line", own)
	alive(t, "a connection through the line", own)
	from := "sport=" + fmt.Sprint(own.LocalAddr().(*net.TCPAddr).Port) + " "
	if out, err := r.Router.Run("sh", "-c", "grep OFFLOAD /proc/net/nf_conntrack"); err != nil ||
		!strings.Contains(out, from) {
		t.Errorf("a connection through the line is in no flowtable: %v\n%s", err, out)
	}
	r.vps.do("down")
	r.router.write(killed)
	r.router.do("reload")
	leaves("a connection that was in fw4's flowtable", own)
	r.vps.do("up")

	// A change of who may come, and of what is forwarded, applies to what is in the flowtable.
	for what, file := range map[string]string{
		"src_ip":     routerRelay + forwardWeb + "\toption src_ip '192.0.2.7'\n",
		"no forward": routerRelay + forwardAll,
	} {
		stream := open(t, r.Client, public+":8080")
		alive(t, "a client's", stream)
		r.router.write(file)
		r.router.do("reload")
		ended(t, what+": a client's connection", stream)
		r.router.write(routerRelay + forwardWeb)
		r.router.do("reload")
	}

	// Turned off, packets meet the rules, and a flow goes on.
	stream := open(t, r.Client, public+":8080")
	alive(t, "a stream", stream)
	r.router.write(strings.Replace(routerRelay, "\toption device", "\toption flow_offloading '0'\n\toption device", 1) +
		forwardWeb)
	r.router.do("reload")
	alive(t, "a stream, without offloading", stream)
	if out, err := r.Router.Run("nft", "delete table inet fastpath"); err != nil {
		t.Fatal(err, out)
	}
	if n := counted(r.Client, public+":8080"); n < 100 {
		t.Errorf("flow_offloading 0: only %d packets met the rules", n)
	}
	r.router.do("down")
	if out, _ := r.Router.Run("nft", "list", "tables"); strings.Contains(out, "ds4relay") {
		t.Errorf("after down:\n%s", out)
	}
}

// TestFlowTableFull: the kernel takes as many devices in a flowtable as package state gives it at most, and no more.
func TestFlowTableFull(t *testing.T) {
	const most = 255
	host := newRelay(t, lab.Options{}, "").VPS
	var batch strings.Builder
	var devices []string
	for i := range most {
		devices = append(devices, fmt.Sprintf("d%d", i))
		fmt.Fprintf(&batch, "link add d%d type dummy\n", i)
	}
	file := filepath.Join(t.TempDir(), "batch")
	if err := os.WriteFile(file, []byte(batch.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := host.Run("ip", "-batch", file); err != nil {
		t.Fatal(err, out)
	}
	table := func(tunnels []string) string {
		var flows state.Flows
		for _, tunnel := range tunnels {
			flows.Add(config.VPS, tunnel, "eth0")
		}
		return flows.Table().Ruleset
	}
	if err := host.NFT(table(devices)); err != nil {
		t.Errorf("%d devices: %v", most, err)
	}
	if out, err := host.Run("nft", "delete table ip "+state.FlowTableName); err != nil {
		t.Fatal(err, out)
	}
	one := strings.Replace(table(devices), "devices = {", `devices = { "lo",`, 1)
	if err := host.NFT(one); err == nil {
		t.Errorf("%d devices are taken: there is room for more tunnels", most+1)
	}
}

// TestWithoutFlowTables: on a kernel without flowtables everything works, through the rules.
func TestWithoutFlowTables(t *testing.T) {
	setGlobal(t, "/proc/sys/kernel/modprobe", "/bin/false") // modules that are not loaded stay unloaded
	if out, err := exec.Command("modprobe", "-r", "nft_flow_offload").CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	t.Cleanup(func() {
		if out, err := exec.Command("modprobe", "nft_flow_offload").CombinedOutput(); err != nil {
			t.Error(err, string(out))
		}
	})
	r := newRelay(t, lab.Options{Second: true}, forwardWeb)
	serveTCP(t, r.Host2, 80)
	r.up()
	transfers(t, r.Client, public+":8080", 1<<20)
	if out, err := r.VPS.Run("nft", "list", "tables"); err != nil || strings.Contains(out, "ds4relay_flows") {
		t.Error(err, out)
	}
	for _, command := range []string{"up", "reload"} {
		if out := r.vps.do(command); !strings.HasPrefix(out, "Nothing to do") {
			t.Errorf("a second up: %s", out)
		}
	}
	r.vps.do("status")
}
