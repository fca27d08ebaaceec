//go:build !openwrt

package state

// Offloading tells whether this program makes flowtables.
const Offloading = true
