package state

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/config"
)

// TestOffloadDevices: no flowtable has more devices than the kernel accepts, whichever devices the clients use.
func TestOffloadDevices(t *testing.T) {
	for _, accesses := range []int{1, 2, 300} {
		facts := Facts{FlowTables: true, Access: map[string]string{}}
		var relays []*config.Relay
		for i := range 300 {
			name := fmt.Sprintf("r%d", i)
			relays = append(relays, &config.Relay{Name: name, Role: config.VPS, Device: "ds4-" + name,
				IPAddr: netip.MustParseAddr("198.51.100.144"), Offloading: true})
			facts.Access[name] = fmt.Sprintf("eth%d", i%accesses)
		}
		table, ok := offloadTable(relays, facts, slots{})
		_, line, _ := strings.Cut(table.Ruleset, "devices = ")
		line, _, _ = strings.Cut(line, "\n")
		if n := strings.Count(line, `"`) / 2; !ok || n > maxFlowDevices || n < maxFlowDevices-1 {
			t.Errorf("%d devices of access: %d devices", accesses, n)
		}
	}
}
