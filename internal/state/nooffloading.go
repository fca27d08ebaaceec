//go:build openwrt

package state

// Offloading reports whether this program makes flowtables. On OpenWrt fw4 offloads flows (option flow_offloading).
const Offloading = false
