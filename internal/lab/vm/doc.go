// Package vm boots a distribution kernel in QEMU's software emulation and runs one program in it, on a writable overlay
// of the machine's own root file system.
package vm
