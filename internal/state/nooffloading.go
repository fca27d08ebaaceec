//go:build openwrt

package state

// Offloading tells whether this program makes flowtables: on OpenWrt it is fw4 that offloads flows (option flow_offloading).
const Offloading = false
