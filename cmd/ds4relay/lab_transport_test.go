//go:build lab

package main

import (
	"crypto/sha256"
	"fmt"
	"hash/fnv"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config/configtest"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// transportEnv makes tests use another transport than the one in their configurations: wireguard.
const transportEnv = "DS4RELAY_TRANSPORT"

var relayHead = regexp.MustCompile(`(?m)^config relay '?(\w+)'?\n([ \t]+.*\n)*`)

// overWireGuard returns a configuration with the transport of its relays changed to wireguard. Both ends of a relay get
// keys and a port that depend on its name only.
func (e *end) overWireGuard(text string) string {
	return relayHead.ReplaceAllStringFunc(text, func(section string) string {
		name := relayHead.FindStringSubmatch(section)[1]
		role, other := "router", "vps"
		if strings.Contains(section, "'vps'") || !strings.Contains(section, "'router'") {
			role, other = other, role
		}
		var kept []string
		peer := regexp.MustCompile(`option ipaddr\s+'?([\d.]+)`).FindStringSubmatch(section)[1]
		for line := range strings.Lines(section) {
			words := append(strings.Fields(line), "", "")
			if words[1] == "peeraddr" {
				peer = outerPeer(strings.Trim(words[2], "'"))
			}
			switch words[1] {
			case "ip6addr", "peeraddr", "encaplimit", "ttl":
				continue
			}
			kept = append(kept, line)
		}
		sum := fnv.New32()
		fmt.Fprint(sum, name)
		port := 40000 + sum.Sum32()%10000
		head := fmt.Sprintf("\toption transport 'wireguard'\n\toption private_key_file '%s'\n"+
			"\toption public_key '%s'\n",
			e.secretOf(name, role), keyOf(name, other).Public())
		if role == "router" {
			head += fmt.Sprintf("\toption peeraddr '%s'\n\toption endpoint_port '%d'\n", peer, port)
		} else {
			head += fmt.Sprintf("\toption listen_port '%d'\n", port)
		}
		return kept[0] + head + strings.Join(kept[1:], "")
	})
}

// outerPeer is the VPS's own address in the network of its endpoint, or its name.
func outerPeer(peeraddr string) string {
	addr, _, _ := strings.Cut(peeraddr, "/")
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return peeraddr
	}
	p, _ := a.Prefix(64)
	return p.Addr().Next().String()
}

func keyOf(relay, role string) transport.Secret {
	return transport.Secret(sha256.Sum256([]byte(relay + role))).Clamp()
}

func (e *end) secretOf(relay, role string) string {
	path := filepath.Join(e.dir, relay+"."+role)
	if _, err := os.Stat(path); err != nil {
		if err := writeSecret(path, keyOf(relay, role)); err != nil {
			e.t.Fatal(err)
		}
	}
	return path
}

// withKeys makes the keys that a random configuration may have, and returns it with their place.
func (e *end) withKeys(text string) string {
	dir := filepath.Join(e.dir, "keys")
	for i := range 3 {
		for j := range 3 {
			name := fmt.Sprintf("r%d.%d", i, j)
			path := filepath.Join(dir, name)
			if _, err := os.Stat(path); err != nil {
				if err := writeSecret(path, keyOf(name, "")); err != nil {
					e.t.Fatal(err)
				}
			}
		}
	}
	return strings.ReplaceAll(text, "'"+configtest.KeyDir, "'"+dir+"/")
}
