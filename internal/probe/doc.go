// Package probe gathers for the doctor what this machine's kernel knows, and what becomes of test packets.
package probe
