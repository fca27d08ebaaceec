package kernel

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

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

// mistakesTunnels reports whether the kernel of a release takes flows into a tunnel of IPv4 in IPv6 for IPv6 in IPv6
// (ip6_tnl_fill_forward_path, docs/dev/kernel.md). Linux 7.0 to 7.2 send them to a wrong address, 7.3 does not take
// them, and looks for a route for each packet instead.
func mistakesTunnels(release string) bool {
	major, _, _ := strings.Cut(release, ".")
	n, err := strconv.Atoi(major)
	return err == nil && n >= 7
}

// release is the kernel's, such as 6.1.0-57-amd64.
func release() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return ""
	}
	return unix.ByteSliceToString(name.Release[:])
}
