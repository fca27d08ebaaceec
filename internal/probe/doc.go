// Package probe gathers evidence for the doctor: what this machine's kernel knows, and what happens to test packets.
package probe
