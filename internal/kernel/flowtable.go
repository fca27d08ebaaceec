package kernel

import (
	"os"
	"slices"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/state"
)

// flowTables reports whether the kernel and nft support flowtables. They do if the module nft_flow_offload
// is loaded or our table exists. Otherwise nft checks a ruleset without applying it, which loads the module. nft must
// be 1.0.2 or later (the .deb depends on it): earlier versions do not accept quoted devices there.
func flowTables(relays []*config.Relay) bool {
	if !slices.ContainsFunc(relays, func(r *config.Relay) bool { return r.Offloading }) {
		return false
	}
	if _, err := os.Stat("/sys/module/nft_flow_offload"); err == nil {
		return true
	}
	var flows state.Flows
	flows.Add(config.VPS, "lo", "lo")
	trial := flows.Table()
	if _, _, ours, err := tableSum(trial); ours && err == nil {
		return true
	}
	_, err := Nft(trial.Ruleset, "--check", "-f", "-")
	return err == nil
}
