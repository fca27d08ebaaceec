//go:build openwrt

package probe

// loadable is true: OpenWrt's modules are loaded at boot.
func loadable(string, string) bool { return true }
