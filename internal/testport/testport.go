// Package testport finds ports for tests that start a server by its configuration, and so cannot let the kernel choose
// one.
package testport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"testing"
)

// Ports that are tried: below the local ones (ip_local_port_range, ip(7)), which the kernel gives to connections and
// sockets of any program, also between the moment a test has seen that a port is free and the moment it listens there.
const (
	first   = 10000
	atLeast = 1000
)

// Free is a port on which nothing of this network namespace listens, with TCP or UDP, and which the kernel gives to
// nobody by itself. Until the test ends, no other test gets it, also of another process.
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

// localPorts is the first port that the kernel gives to sockets by itself.
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
