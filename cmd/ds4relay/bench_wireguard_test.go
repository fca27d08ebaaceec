//go:build lab && bench

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/lab"
	"github.com/ds4relay/ds4relay/internal/lab/benchmark"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// Names of ways.
const (
	oursIPIP6       = "ds4relay (IPv4 in IPv6)"
	oursWireGuard   = "ds4relay (WireGuard)"
	byHandWireGuard = "WireGuard by hand"
)

// benchPeer is where the home finds the VPS in all of them: over IPv6, as with the other tunnels.
const benchPeer = "2001:db8:6ef9::1"

// wireGuardWays are ds4relay's transport wireguard, and WireGuard set up with wg, ip and nft: with the NAT
// and marks of byHand, and like minimal.
func wireGuardWays(t *testing.T, r *relay, ours keys) []way {
	t.Helper()
	vps, router := tunnelByHand(t, r)
	_, nat, _ := strings.Cut(byHand["vps"], "up\n")
	_, marks, _ := strings.Cut(byHand["router"], "up\n")
	_, minimalNAT, _ := strings.Cut(minimal["vps"], "up\n")
	minimalNAT = strings.Replace(minimalNAT, "ip saddr 192.168.1.210 snat to 198.51.100.144", "masquerade", 1)
	_, minimalRule, _ := strings.Cut(minimal["router"], "up\n")
	vpsDown := "ip link del wrap1; nft delete table ip byhand; sysctl -qw net.ipv4.ip_forward=0\n"
	return []way{
		ours.way(r, oursWireGuard, "", ""),
		scriptWay(r, byHandWireGuard, public+":80", map[*lab.Host]string{
			r.VPS:    vps + nat,
			r.Router: router + strings.ReplaceAll(marks, "size set 1420", "size set 1380"),
		}, map[*lab.Host]string{r.VPS: vpsDown, r.Router: byHand["router down"]}),
		scriptWay(r, "minimal WireGuard", public+":80",
			map[*lab.Host]string{r.VPS: vps + minimalNAT, r.Router: router + minimalRule},
			map[*lab.Host]string{r.VPS: vpsDown, r.Router: minimal["router down"]}),
	}
}

// keys are the public keys of both ends.
type keys struct{ vps, router transport.Key }

func (r *relay) newKeys() keys { return keys{r.vps.newKey(), r.router.newKey()} }

// way is ds4relay with transport wireguard, with more lines in the relay of each end.
func (k keys) way(r *relay, name, vps, router string) way {
	return way{name: name, start: func() func() {
		r.vps.write(r.vps.wireGuardHead("vps", k.router, "\tlist keep 'tcp:22'\n"+vps) + forwardAll)
		r.router.write(r.router.wireGuardHead("router", k.vps, "\toption peeraddr '"+benchPeer+"'\n"+router) +
			forwardAll)
		r.vps.do("-q", "up")
		r.router.do("-q", "up")
		r.wait(name, public+":80")
		return func() {
			r.vps.do("-q", "down")
			r.router.do("-q", "down")
			r.vps.write(vpsRelay + forwardAll)
			r.router.write(routerRelay + forwardAll)
		}
	}, to: public + ":80"}
}

// tunnelByHand returns the scripts of a tunnel of WireGuard.
func tunnelByHand(t *testing.T, r *relay) (vps, router string) {
	t.Helper()
	key := func() (file, public string) {
		private, err := r.VPS.Run("wg", "genkey")
		if err != nil {
			t.Fatal(err)
		}
		if public, err = r.VPS.RunInput(private, "wg", "pubkey"); err != nil {
			t.Fatal(err)
		}
		file = filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(file, []byte(private), 0o600); err != nil {
			t.Fatal(err)
		}
		return file, strings.TrimSpace(public)
	}
	vpsFile, vpsKey := key()
	routerFile, routerKey := key()
	vps = fmt.Sprintf(`
ip link add wrap1 type wireguard
wg set wrap1 listen-port 51820 private-key %s peer %s allowed-ips 192.168.1.0/24
ip link set wrap1 mtu 1420 up
`, vpsFile, routerKey)
	router = fmt.Sprintf(`
ip link add wrap1 type wireguard
wg set wrap1 private-key %s peer %s endpoint '[%s]:51820' allowed-ips 0.0.0.0/0 persistent-keepalive 25
ip link set wrap1 mtu 1420 up
`, routerFile, vpsKey, benchPeer)
	return vps, router
}

// TestBenchWireGuard compares ds4relay's transport wireguard, with and without flowtables, with WireGuard by hand.
func TestBenchWireGuard(t *testing.T) {
	for _, offloads := range []bool{true, false} {
		r := newCompared(t, offloads)
		ours := r.newKeys()
		ways := wireGuardWays(t, r, ours)
		ways[0], ways[1] = ways[1], ways[0]
		const off = "\toption flow_offloading '0'\n"
		ways = append(ways, ours.way(r, oursWireGuard+", no flowtable", off, off),
			ours.way(r, oursWireGuard+", on the VPS only", "", off))
		c := &benchmark.Comparison{Metrics: compareMetrics}
		compareWays(t, r, c, ways, compareRepetitions)
		fmt.Printf("\nsegmentation offloads: %v\n%s", offloads, c.Table())
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
