// Package trace follows one connection over an end's devices and writes each step of its packets as a line. It decides
// which packets belong to it and what they mean, and does no I/O.
package trace
