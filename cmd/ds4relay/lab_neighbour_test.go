//go:build lab

package main

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/lab"
)

// transfers moves n bytes from the client to the echoing server and back.
func transfers(t *testing.T, h *lab.Host, to string, n int64) {
	t.Helper()
	_, conn, err := askTCP(h, to)
	if err != nil {
		t.Errorf("%s: %v", to, err)
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	go io.CopyN(conn, pattern(1), n)
	if got, err := io.CopyN(io.Discard, conn, n); err != nil {
		t.Errorf("%s: of %d bytes %d came back: %v", to, n, got, err)
	}
}

// neighbour is another program on a router: an nft ruleset, and arguments of ip.
type neighbour struct {
	ruleset string
	ip      []string
}

// flowtable offloads established connections like fw4's flow_offloading, over the devices of its zones.
func flowtable(devices string) neighbour {
	return neighbour{ruleset: fmt.Sprintf(`table inet fastpath {
	flowtable ft { hook ingress priority filter; devices = { %s }; }
	chain forward {
		type filter hook forward priority filter; policy accept;
		meta l4proto { tcp, udp } flow add @ft
	}
}`, devices)}
}

// mwan3 marks new connections like mwan3, in its bits (0x3f00): those to local networks with all bits, others with the
// bits of a line. Its rules precede ours.
var mwan3 = neighbour{ruleset: `table ip mwan3 {
	chain lines {
		meta mark & 0x3f00 == 0 ct mark & 0x3f00 == 0x3f00 meta mark set meta mark | 0x3f00
		meta mark & 0x3f00 == 0 ct mark & 0x3f00 == 0x0100 meta mark set meta mark & 0xffffc0ff | 0x100
		meta mark & 0x3f00 == 0 ip daddr { 192.168.0.0/16, 224.0.0.0/3, 127.0.0.0/8 } meta mark set meta mark | 0x3f00
		meta mark & 0x3f00 == 0 meta mark set meta mark & 0xffffc0ff | 0x100
		meta mark & 0x3f00 == 0x3f00 ct mark set ct mark | 0x3f00
		meta mark & 0x3f00 == 0x0100 ct mark set ct mark & 0xffffc0ff | 0x100
		ip daddr 192.168.0.0/16 meta mark set meta mark | 0x3f00
	}
	chain prerouting { type filter hook prerouting priority mangle; policy accept; jump lines; }
	chain output { type route hook output priority mangle; policy accept; jump lines; }
}`, ip: []string{"route add default dev ds-wan6_4 table 1", "rule add priority 1001 iif ds-wan6_4 lookup main",
	"rule add priority 2001 fwmark 0x100/0x3f00 lookup 1", "rule add priority 2061 fwmark 0x3d00/0x3f00 blackhole"}}

// pbr has a policy for one host, in its bits (0xff0000); its rule precedes the main table's.
var pbr = neighbour{ruleset: `table ip pbr {
	chain prerouting {
		type filter hook prerouting priority mangle; policy accept;
		ip saddr 192.168.1.211 meta mark set meta mark & 0xff00ffff | 0x10000
	}
}`, ip: []string{"route add default dev ds-wan6_4 table 256", "rule add priority 30000 fwmark 0x10000/0xff0000 " +
	"lookup 256"}}

// TestNeighbours: other programs on a router are not affected, and do not interfere.
func TestNeighbours(t *testing.T) {
	for name, n := range map[string]neighbour{
		"nothing":                       {},
		"flow offloading":               flowtable("wan, lan-host, lan-host2"),
		"flow offloading of the bridge": flowtable("wan, br-lan"),
		"flow offloading of the tunnel": flowtable("wan, lan-host, lan-host2, wrap1"),
		"mwan3":                         mwan3,
		"pbr":                           pbr,
	} {
		for _, egress := range []string{"replies", "all"} {
			if name == "mwan3" && egress == "all" {
				continue // mwan3's rules come first: for egress all, users must configure mwan3
			}
			if strings.HasPrefix(name, "flow offloading of") && egress == "all" {
				continue // as without "of …"
			}
			t.Run(name+" "+egress, func(t *testing.T) {
				r := newRelay(t, lab.Options{RouterFirewall: true}, forwardAll+"\toption egress '"+egress+"'\n"+
					forwardWeb)
				serveTCP(t, r.Host, 80)
				serveUDP(t, r.Host, 5000)
				serveTCP(t, r.Host2, 80)
				serveTCP(t, r.Client, 90)
				r.up()
				if err := r.OpenRouterFirewall("wrap1", lab.VPSPrefix); err != nil {
					t.Fatal(err)
				}
				if err := r.Router.NFT(n.ruleset); err != nil {
					t.Fatal(err)
				}
				for _, arguments := range n.ip {
					if out, err := r.Router.Run("sh", "-c", "ip "+arguments); err != nil {
						t.Fatal(arguments, err, out)
					}
				}
				r.reaches(t)
				transfers(t, r.Client, public+":80", 4<<20)
				transfers(t, r.Client, public+":8080", 4<<20)
				seen := natted4
				if egress == "all" {
					seen = public
				}
				seenTCP(t, r.Host, client4+":90", seen)
				transfers(t, r.Host, client4+":90", 4<<20)
				seenTCP(t, r.Host2, client4+":90", natted4)
				if out := r.router.do("up"); !strings.HasPrefix(out, "Nothing to do") {
					t.Errorf("a second up: %s", out)
				}
			})
		}
	}
}

// TestTranslations: other programs' rules on a VPS that translate the same connections do not get them, whoever was
// there first, and check names them. Whoever has an earlier priority does get them, and check says that too.
func TestTranslations(t *testing.T) {
	r := newRelay(t, lab.Options{}, forwardAll+"\toption egress 'all'\n"+forwardWeb)
	serveTCP(t, r.Host, 80)
	serveTCP(t, r.Host2, 80)
	serveTCP(t, r.Client, 90)
	const others = `table ip TABLE {
	chain pre { type nat hook prerouting priority dstnat; policy accept; tcp dport { 80, 8080 } redirect to :9; }
	chain post { type nat hook postrouting priority srcnat; policy accept; masquerade; }
}`
	for _, table := range []string{"before", "after"} {
		if table == "after" {
			r.up()
		}
		if err := r.VPS.NFT(strings.ReplaceAll(others, "TABLE", table)); err != nil {
			t.Fatal(err)
		}
	}
	seenTCP(t, r.Client, public+":80", client4)
	seenTCP(t, r.Client, public+":8080", client4)
	seenTCP(t, r.Host, client4+":90", public)
	_, _, said := r.vps.try("check")
	for _, want := range []string{"nft, table ip before, chain pre: a rule is about packets of " + public + " (tcp:80)",
		"nft, table ip after, chain post: a rule would hide the clients' addresses from the hosts of relay \"home\""} {
		if !strings.Contains(said, want) {
			t.Errorf("check does not say %s:\n%s", want, said)
		}
	}
	if err := r.VPS.NFT("delete table ip before; delete table ip after; table ip first { chain post { type nat hook " +
		"postrouting priority filter; masquerade; }; }"); err != nil {
		t.Fatal(err)
	}
	seenTCP(t, r.Client, public+":80", public)
	const hidden = "the client's address is hidden: its packet goes into wrap1 with the source " + public
	if _, out, _ := r.vps.try("-q", "doctor"); !strings.Contains(out, hidden) {
		t.Errorf("doctor beside a rule that hides clients: %s", out)
	}
	if err := r.VPS.NFT("delete table ip first; table ip first { chain pre { type nat hook " +
		"prerouting priority -150; tcp dport 80 redirect to :9; }; }"); err != nil {
		t.Fatal(err)
	}
	refusedTCP(t, r.Client, public+":80")
	if _, _, said := r.vps.try("check"); !strings.Contains(said, "a rule gets packets of "+public+" (tcp:80) before") {
		t.Errorf("check beside a rule that comes first: %s", said)
	}
}
