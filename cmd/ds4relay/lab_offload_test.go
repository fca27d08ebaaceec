//go:build lab

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

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
	if err := host.NFT(state.OffloadTable(devices[1:], []string{"eth0"}).Ruleset); err != nil {
		t.Errorf("%d devices: %v", most, err)
	}
	if out, err := host.Run("nft", "delete table ip "+state.FlowTableName); err != nil {
		t.Fatal(err, out)
	}
	if err := host.NFT(state.OffloadTable(devices, []string{"eth0"}).Ruleset); err == nil {
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
