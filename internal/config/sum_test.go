package config

import "testing"

// TestSum: only what concerns relays changes a file's checksum.
func TestSum(t *testing.T) {
	const file = "config relay 'home'\n\toption ipaddr '198.51.100.144'\n\toption ip6addr '2001:db8::1'\n" +
		"\toption peeraddr '2001:db8::2'\n\nconfig forward\n\toption src_dport '80'\n\toption dest_ip '192.168.1.2'\n"
	sum := func(text string) uint64 {
		c, _, err := Parse("F", []byte(text), Defaults{Role: VPS})
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		return c.Sum
	}
	first := sum(file)
	for text, same := range map[string]bool{
		file:                         true,
		"# a comment\n" + file + " ": true,
		file + "\nconfig proxy\n\toption listen '0.0.0.0:81'\n\toption target 'home.example.org'\n": true,
		file + "\toption proto 'udp'\n":                                                      false,
		file + "\tlist src_ip '203.0.113.1'\n":                                               false,
		file + "\nconfig forward\n\toption src_dport '82'\n\toption dest_ip '192.168.1.2'\n": false,
	} {
		if (sum(text) == first) != same {
			t.Errorf("same checksum: %v, want %v\n%s", !same, same, text)
		}
	}
}
