// Package packetio sees and sends single packets on this machine's devices: taps see what comes and goes, packets are
// put into a tunnel, or onto a device as if they had come in by it.
package packetio
