//go:build openwrt

package buildinfo

// noted takes no space on a router, whose program gets its commit from the linker.
func noted() string { return "commit unknown" }
