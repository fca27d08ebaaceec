//go:build openwrt

package config

// pairing is for VPSs, which do not run OpenWrt.
const pairing = false
