// Package buildinfo says from which commit and with which Go a program was built.
package buildinfo

import "runtime"

// Line is what a program prints as its version: its name and version, its commit, Go's version and the machine. The
// linker gives it a commit such as "1a2b3c4d5e6f, 2026-11-30"; without one, Line asks Go.
func Line(program, version, commit string) string {
	built := "commit " + commit
	if commit == "" {
		built = noted()
	}
	return program + " " + version + " (" + built + "), " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH
}
