// Package testport finds free ports for tests whose server reads its port from a configuration, so that the kernel
// cannot choose one.
package testport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"testing"
)

// Ports are chosen below ip_local_port_range (ip(7)). From that range the kernel could give a port to another program
// between the test's check and its use.
const (
	first   = 10000
	atLeast = 1000
)

// Free returns a port on which nothing in this network namespace listens, neither TCP nor UDP, and which the kernel
// does not assign by itself. No other test gets it until this test ends, not even in another process.
func Free(t testing.TB) uint16 {
	t.Helper()
	limit := localPorts(t)
	for range 100 {
		port := first + rand.IntN(limit-first)
		reserved, err := net.Listen("unix", fmt.Sprintf("@ds4relay-testport-%d", port))
		if err != nil {
			continue
		}
		if !unused(port) {
			reserved.Close()
			continue
		}
		t.Cleanup(func() { reserved.Close() })
		return uint16(port)
	}
	t.Fatalf("no port from %d to %d is free", first, limit-1)
	return 0
}

// localPorts returns the first port that the kernel assigns by itself.
func localPorts(t testing.TB) int {
	t.Helper()
	const path = "/proc/sys/net/ipv4/ip_local_port_range"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var lowest int
	if _, err := fmt.Sscan(string(text), &lowest); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if lowest < first+atLeast {
		t.Fatalf("%s begins at %d, which leaves tests no ports", path, lowest)
	}
	return lowest
}

func unused(port int) bool {
	address := fmt.Sprintf(":%d", port)
	l, err := net.Listen("tcp", address)
	if err != nil {
		return false
	}
	defer l.Close()
	c, err := net.ListenPacket("udp", address)
	if err != nil {
		return false
	}
	c.Close()
	return true
}
