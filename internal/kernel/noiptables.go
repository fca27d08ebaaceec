//go:build openwrt

package kernel

import (
	"net/netip"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/state"
)

// On OpenWrt, services pass rules to the firewall (package openwrt).
func iptablesInUse() (state.IPTables, error) { return nil, nil }

func observeAllowances(*state.Observed) error { return nil }

func changeAllowance(state.Allowance, string) error { return nil }

// heldBy is for a VPS.
func (k *Kernel) heldBy(*config.Relay, netip.Addr, netip.Addr) string { return "" }

// KeepTables does nothing: OpenWrt's firewall does not touch other programs' tables.
func (k *Kernel) KeepTables([]state.Table) error { return nil }
