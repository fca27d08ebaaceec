//go:build !openwrt

package kernel

import (
	"os"
	"slices"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/state"
)

// flowTables tells whether the kernel and nft know what a VPS would have of flowtables. Where the module nft_flow_offload is loaded, or
// a table of ours is there, they do; else nft asks the kernel without changing anything, which loads the module. nft has to
// be 1.0.2 or later (the .deb depends on it): before it did not take devices in quotation marks there.
func flowTables(relays []*config.Relay) bool {
	if !slices.ContainsFunc(relays, func(r *config.Relay) bool { return r.Role == config.VPS && r.Offloading }) {
		return false
	}
	if _, err := os.Stat("/sys/module/nft_flow_offload"); err == nil {
		return true
	}
	trial := state.OffloadTable([]string{"lo"}, []string{"lo"})
	if _, _, ours, err := tableSum(trial); ours && err == nil {
		return true
	}
	_, err := Nft(trial.Ruleset, "--check", "-f", "-")
	return err == nil
}
