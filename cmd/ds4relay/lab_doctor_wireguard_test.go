//go:build lab

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/doctor"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/lab"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// handshakeFault is a fault of a tunnel of WireGuard, and what doctor must say of it first at both ends.
type handshakeFault struct {
	name           string
	inject, repair func(*wireGuardLab)
	vps, router    [2]string // a part of the evidence, and of the remedy
}

// wireGuardLab is a relay with the transport wireguard whose options change.
type wireGuardLab struct {
	*relay
	t                 *testing.T
	vpsKey, routerKey transport.Key
}

func newWireGuardLab(t *testing.T, prefix string) *wireGuardLab {
	l := &wireGuardLab{relay: newRelay(t, lab.Options{Prefix: prefix}, forwardAll), t: t}
	l.vpsKey, l.routerKey = l.vps.newKey(), l.router.newKey()
	l.configure("", "")
	l.up()
	for _, h := range []*lab.Host{l.VPS, l.Router} {
		if err := h.Sysctl("net.ipv4.icmp_ratelimit", "0"); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// configure writes both files, with more options.
func (l *wireGuardLab) configure(vps, router string) {
	for _, c := range []struct {
		end  *end
		role string
		peer transport.Key
		more string
	}{
		{l.vps, "vps", l.routerKey, vps},
		{l.router, "router", l.vpsKey, "\toption peeraddr '" + public + "'\n" + router},
	} {
		c.end.write(c.end.wireGuardHead(c.role, c.peer, c.more) + forwardAll)
	}
}

// preshared makes a preshared key for one end, and returns the option.
func (l *wireGuardLab) preshared(e *end) string {
	secret, err := newSecret()
	if err == nil {
		err = os.WriteFile(e.keyFile()+".psk", []byte(transport.Key(secret).String()+"\n"), 0o600)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	return "\toption preshared_key_file '" + e.keyFile() + ".psk'\n"
}

// again takes the tunnels down and brings them up with new sessions.
func (l *wireGuardLab) again(ends ...*end) {
	for _, e := range ends {
		e.do("-q", "down")
	}
	for _, e := range ends {
		e.do("-q", "up")
	}
}

// ask returns the first finding at each end that is not well, or the last one. Both ends are asked at once: they mostly
// wait.
func (l *wireGuardLab) ask() (vps, router doctor.Finding) {
	var both sync.WaitGroup
	for e, first := range map[*end]*doctor.Finding{l.vps: &vps, l.router: &router} {
		both.Add(1)
		go func() {
			defer both.Done()
			if err := e.host.Do(func() (err error) {
				d := doctor.New((&app{path: e.config, run: e.runDir()}).examined())
				checks, err := d.Checks()
				for _, c := range checks {
					*first, err = d.Run(c.ID, c.Relay)
					if err != nil || first.State == doctor.Failed || first.State == doctor.Warning {
						return err
					}
				}
				return err
			}); err != nil {
				l.t.Error(err)
			}
		}()
	}
	both.Wait()
	return vps, router
}

func (l *wireGuardLab) try(t *testing.T, faults ...handshakeFault) {
	for _, f := range faults {
		began := time.Now()
		f.inject(l)
		vps, router := l.ask()
		for _, c := range []struct {
			end   string
			first doctor.Finding
			want  [2]string
		}{{"vps", vps, f.vps}, {"router", router, f.router}} {
			if c.first.State != doctor.Failed || !strings.Contains(c.first.Evidence, c.want[0]) ||
				!strings.Contains(c.first.Remedy, c.want[1]) {
				t.Errorf("%s, %s: doctor says first: %s %s: %s\n→ %s\nwant …%s… → …%s…", f.name, c.end, c.first.State,
					c.first.ID, c.first.Evidence, c.first.Remedy, c.want[0], c.want[1])
			} else {
				t.Logf("%s, %s: %s\n→ %s", f.name, c.end, c.first.Evidence, c.first.Remedy)
			}
		}
		f.repair(l)
		t.Logf("%s: %v", f.name, time.Since(began))
	}
}

func (l *wireGuardLab) run(h *lab.Host, command string) {
	l.t.Helper()
	if _, err := h.Run("sh", "-ec", command); err != nil {
		l.t.Fatal(err)
	}
}

// both restarts both ends.
func (l *wireGuardLab) both() { l.again(l.vps, l.router) }

const filtered = "nft -f - <<'E'\ntable inet filter {\n chain HOOK { type filter hook HOOK priority 0; udp dport " +
	"51846 drop; }\n}\nE"

// TestDoctorWireGuard breaks WireGuard's handshake, and asks doctor at both ends.
func TestDoctorWireGuard(t *testing.T) {
	t.Parallel() // it mostly waits
	nothing := [2]string{"no packet in", "UDP port 51846"}
	elsewhere := [2]string{"no packet in", "run `ds4relay doctor` at the VPS"}
	first := newWireGuardLab(t, "wgends-")
	vps, router := first.ask()
	for name, last := range map[string]doctor.Finding{"vps": vps, "router": router} {
		if last.State != doctor.OK || last.ID != "clock" {
			t.Fatalf("%s, without a fault: %+v", name, last)
		}
	}
	first.traced(t)

	t.Run("ends", func(t *testing.T) {
		t.Parallel()
		first.try(t, handshakeFault{name: "the VPS is down", inject: func(l *wireGuardLab) {
			l.vps.do("-q", "down")
			l.again(l.router)
		}, repair: func(*wireGuardLab) {}, vps: [2]string{"ip link add name wrap1", "ds4relay up"},
			router: [2]string{"198.51.100.144 says: nothing listens on UDP port 51846", "`ds4relay up`"},
		}, handshakeFault{name: "preshared key at the VPS only", inject: func(l *wireGuardLab) {
			l.configure(l.preshared(l.vps), "")
			l.both()
		}, repair: func(l *wireGuardLab) { l.configure("", "") },
			// Which end asks first decides the words.
			vps: [2]string{"answer", "option preshared_key_file"}, router: [2]string{"answer", "option preshared_key_file"},
		}, handshakeFault{name: "a container has the port", inject: func(l *wireGuardLab) {
			l.run(l.VPS, "ip link add docker0 type dummy\nip addr add 172.17.0.1/16 dev docker0\n"+
				"ip link set docker0 up\nnft -f - <<'E'\ntable ip nat {\n chain PREROUTING { type nat hook prerouting "+
				"priority -102; udp dport 51846 dnat to 172.17.0.2:51820; }\n}\nE")
			l.both()
		}, repair: func(*wireGuardLab) {}, vps: [2]string{"this machine sends them on to 172.17.0.2:51820",
			"remove the rule that takes this port"}, router: elsewhere})
	})
	t.Run("way and keys", func(t *testing.T) {
		t.Parallel()
		newWireGuardLab(t, "wgway-").try(t, handshakeFault{name: "port filtered on the way",
			inject: func(l *wireGuardLab) {
				l.run(l.Core, strings.ReplaceAll(filtered, "HOOK", "forward"))
				l.both()
			}, repair: func(l *wireGuardLab) { l.run(l.Core, "nft delete table inet filter") },
			vps: nothing, router: elsewhere,
		}, handshakeFault{name: "own firewall at home", inject: func(l *wireGuardLab) {
			l.run(l.Router, strings.ReplaceAll(filtered, "HOOK", "output"))
			l.both()
		}, repair: func(l *wireGuardLab) { l.run(l.Router, "nft delete table inet filter") },
			vps: nothing, router: [2]string{"no packet out: this machine's firewall drops WireGuard's packets (nft " +
				"table inet filter, a rule of chain output)", "allow it with `nft insert rule inet filter output"},
		}, handshakeFault{name: "wrong key at home", inject: func(l *wireGuardLab) {
			right := l.vpsKey
			l.vpsKey = transport.Secret{7}.Public()
			l.configure("", "")
			l.vpsKey = right
			l.both()
		}, repair: func(*wireGuardLab) {},
			vps:    [2]string{"made for another public key than this end's", "at home option public_key has to be "},
			router: elsewhere,
		}, handshakeFault{name: "wrong key at the VPS", inject: func(l *wireGuardLab) {
			right := l.routerKey
			l.routerKey = transport.Secret{7}.Public()
			l.configure("", "")
			l.routerKey = right
			l.both()
		}, repair: func(*wireGuardLab) {},
			vps:    [2]string{"with another key than option public_key has", "`ds4relay pubkey home` prints at home"},
			router: elsewhere})
	})
}

// TestDoctorClock: WireGuard takes no handshake with a time before the last one's. Nobody else runs while the clock is
// wrong.
func TestDoctorClock(t *testing.T) {
	began := time.Now()
	fault := handshakeFault{name: "the home's clock is behind", inject: func(l *wireGuardLab) {
		shakesHands(t, l.vps)
		setClock(t, began, time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC))
		l.again(l.router)
	}, repair: func(*wireGuardLab) { setClock(t, began, began) },
		vps:    [2]string{"with a time before the last one's", "set the clock at home"},
		router: [2]string{"it is 2020-01-01", "set the clock"}}
	newWireGuardLab(t, "wgclock-").try(t, fault)
}

// traced follows a connection at both ends.
func (l *wireGuardLab) traced(t *testing.T) {
	t.Helper()
	serveTCP(t, l.Host, 80)
	vps, router := l.vps.traces("-t", "20", "-c", "6", client4), l.router.traces("-t", "20", "-c", "6")
	seenTCP(t, l.Client, public+":80", client4)
	text := vps()
	t.Logf("trace on the VPS\n%s", text)
	inOrder(t, "VPS", text, "relay home (vps), WireGuard; 192.0.2.1:", " is the other end\n",
		"eth0        in   from the internet", "wrap1       out  into the tunnel, DNAT done",
		"eth0        out  in UDP, to the other end     198.51.100.144:51846 > 192.0.2.1:", "encrypted",
		"eth0        in   in UDP, from the other end", "encrypted",
		"wrap1       in   out of the tunnel", "eth0        out  to the internet")
	text = router()
	t.Logf("trace on the router\n%s", text)
	inOrder(t, "router", text, "relay home (router), WireGuard; 198.51.100.144:51846 is the other end\n",
		"in UDP, from the other end", "wrap1       in   out of the tunnel", "br-lan      out  to the host",
		"br-lan      in   from the host", "wrap1       out  into the tunnel", "in UDP, to the other end")
}

// TestNarrowPathWireGuard: large packets of WireGuard are lost, and nothing says so. The tunnels get the MTU that
// passes, and an hour later the VPS's that of the route again, if that passes then.
func TestNarrowPathWireGuard(t *testing.T) {
	t.Parallel() // it mostly waits
	r := newWireGuard(t, lab.Options{Prefix: "wgpath-"}, "2001:db8:6ef9::1", forwardAll)
	serveUDP(t, r.Host, 5000)
	r.up()
	seenUDP(t, r.Client, public+":5000", client4, 1400)
	if err := r.Core.NFT("table ip6 narrow { chain forward { type filter hook forward priority filter; meta l4proto " +
		"udp meta length > 1460 drop; }; }"); err != nil {
		t.Fatal(err)
	}
	hasMTU := func(t *testing.T, e *end, want string) {
		t.Helper()
		e.do("watch")
		if out, err := e.host.Run("ip", "-o", "link", "show", "dev", "wrap1"); err != nil ||
			!strings.Contains(out, " mtu "+want+" ") {
			t.Errorf("%s: want an MTU of %s: %v %s", e.host.Name, want, err, out)
		}
		if out := e.do("up"); !strings.Contains(out, "Nothing to do") {
			t.Errorf("%s: up after that: %s", e.host.Name, out)
		}
	}
	t.Run("measured", func(t *testing.T) {
		r.atOnce(t, func(t *testing.T, e *end) { hasMTU(t, e, "1376") }) // a multiple of 16 bytes
	})
	r.vps.t, r.router.t = t, t
	seenUDP(t, r.Client, public+":5000", client4, 1400)
	if _, err := r.Core.Run("nft", "delete", "table", "ip6", "narrow"); err != nil {
		t.Fatal(err)
	}
	hasMTU(t, r.vps, "1376")
	record := filepath.Join(r.vps.runDir(), kernel.PathPrefix+"home")
	data, err := os.ReadFile(record)
	if err == nil {
		err = os.WriteFile(record, regexp.MustCompile(` \d+"`).ReplaceAll(data, []byte(` 1"`)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	hasMTU(t, r.vps, "1420")
}
