//go:build openwrt

package reconcile

import (
	"io"

	"github.com/ds4relay/ds4relay/internal/config"
)

// PairedStatus is for VPSs, which do not run OpenWrt.
type PairedStatus struct{}

func pairedStatus(*config.Relay) *PairedStatus { return nil }

func (r *RelayStatus) printPaired(io.Writer) {}
