//go:build !amd64

package vm

// knownTSC returns nothing, because here QEMU's emulated x86 has its own counter.
func knownTSC() string { return "" }
