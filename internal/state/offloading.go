//go:build !openwrt

package state

// Offloading reports whether this program makes flowtables.
const Offloading = true
