package testport

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestFree: a port is given to one caller, is not one that the kernel assigns, and is not in use.
func TestFree(t *testing.T) {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		t.Fatal(err)
	}
	lowest, err := strconv.Atoi(strings.Fields(string(text))[0])
	if err != nil {
		t.Fatal(err)
	}
	seen := map[uint16]bool{}
	for range 200 {
		port := Free(t)
		if seen[port] || int(port) >= lowest {
			t.Errorf("port %d has been given before, or is one of the kernel's", port)
		}
		seen[port] = true
	}
	for _, address := range []string{"127.0.0.1", "[::1]"} {
		port := Free(t)
		l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", address, port))
		if err != nil {
			t.Fatal(err)
		}
		if unused(int(port)) {
			t.Errorf("%s: port %d is in use", address, port)
		}
		l.Close()
	}
	port := Free(t)
	c, err := net.ListenPacket("udp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if unused(int(port)) {
		t.Errorf("udp4: port %d is in use", port)
	}
}
