//go:build lab

package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/doctor"
	"github.com/ds4relay/ds4relay/internal/lab"
	"github.com/ds4relay/ds4relay/internal/reconcile"
)

// oracle are the rules of iptables that Oracle's images of Ubuntu load when they start.
const oracle = `*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p icmp -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -p tcp -m state --state NEW -m tcp --dport 22 -j ACCEPT
-A INPUT -j REJECT --reject-with icmp-host-prohibited
-A FORWARD -j REJECT --reject-with icmp-host-prohibited
COMMIT
`

// cloudForwards lead all to the server but port 8080, and let the server call through the VPS.
const cloudForwards = forwardAll + "\toption egress 'all'\n" + forwardWeb

// fromVPS fails the test unless the VPS itself answers (serveNamed).
func fromVPS(t *testing.T, h *lab.Host, to string) {
	t.Helper()
	said, err := greeted(h, "tcp4", to)
	if name, _, _ := strings.Cut(said, " "); err != nil || name != "vps" {
		t.Errorf("%s to %s: %q, %v, want the VPS itself", h.Name, to, said, err)
	}
}

// newCloud is a relay whose VPS has a private address that a cloud translates. The router's file is what the VPS
// exports.
func newCloud(t *testing.T, prefix, transport, option, forwards string) *relay {
	t.Helper()
	options := lab.Options{Prefix: prefix, Cloud: true}
	var r *relay
	own := "\toption device 'wrap1'\n\toption tunlink 'wan'\n"
	if transport == "wireguard" {
		r = newWireGuard(t, options, public, "")
		own += "\toption private_key_file '" + r.router.keyFile() + "'\n"
		r.vps.write(strings.TrimRight(r.vps.text, "\n") + "\n" + option + forwards)
	} else {
		r = newRelay(t, options, "")
		r.vps.write(strings.NewReplacer("2001:db8:6ef9::/64", lab.VPSIPv6.String(), "\toption tunlink 'eth0'\n", "").
			Replace(vpsRelay) + option + forwards)
	}
	exported := r.vps.do("export")
	for _, word := range []string{"nicaddr", lab.CardIPv4} {
		if strings.Contains(exported, word) {
			t.Errorf("the router's file has %s:\n%s", word, exported)
		}
	}
	r.router.write(strings.Replace(exported, "config relay 'home'\n", "config relay 'home'\n"+own, 1))
	return r
}

// TestCloud: a VPS has its public address by a cloud's translation only, with either transport; its address on the card
// is given or found.
func TestCloud(t *testing.T) {
	if os.Getenv(transportEnv) != "" {
		t.Skip("it has both transports")
	}
	for i, c := range []struct{ transport, option, iptables string }{
		{"ipip6", "", "iptables-legacy"},
		{"wireguard", "\toption nicaddr '10.0.0.5'\n", "iptables"},
	} {
		t.Run(c.transport, func(t *testing.T) {
			t.Parallel()
			r := newCloud(t, fmt.Sprintf("cloud%d-", i), c.transport, c.option, cloudForwards)
			if out, err := r.VPS.RunInput(oracle, c.iptables+"-restore"); err != nil {
				t.Fatal(err, out)
			}
			before := r.vps.snapshot()
			serveTCP(t, r.Host, 80)
			serveTCP(t, r.Host, 8081)
			serveUDP(t, r.Host, 5000)
			serveTCP(t, r.Host2, 80)
			serveUDP(t, r.Host2, 80)
			serveTCP(t, r.Client, 90)
			serveNamed(t, r.VPS, "vps", 22)
			r.env(t)
			r.vps.do("check")
			r.up()
			for _, e := range []*end{r.vps, r.router} {
				if out := e.do("up"); !strings.HasPrefix(out, "Nothing to do") {
					t.Errorf("%s: a second up: %s", e.host.Name, out)
				}
			}
			if c.transport == "wireguard" {
				shakesHands(t, r.router)
			}
			r.describes(t, c.transport)
			if clients, answered := r.counts(t); clients+answered != 0 {
				t.Errorf("without a connection doctor sees %d clients, status %d", clients, answered)
			}
			one := open(t, r.Client, public+":80")
			if clients, answered := r.counts(t); clients != 1 || answered != 1 {
				t.Errorf("with a connection doctor sees %d clients, status %d", clients, answered)
			}
			one.Close()
			stop := r.vps.counting(t)
			r.clients(t)
			r.calls(t, c.transport)
			if n := r.vps.figure(`forward_connections_total{relay="home",forward="web"}`); n != 2 {
				t.Errorf("the VPS counts %d connections of the forward web, want 2", n)
			}
			stop()
			r.examines(t, c.transport)
			r.vps.do("down")
			same(t, "the VPS after down", before, r.vps.snapshot())
		})
	}
}

// env refuses to take away the port of an ssh session, whose server has the card's address.
func (r *relay) env(t *testing.T) {
	t.Helper()
	r.vps.env["SSH_CONNECTION"] = client4 + " 5000 " + lab.CardIPv4 + " 8080"
	if code, _, stderr := r.vps.try("up"); code != exitFailed || !strings.Contains(stderr, "which this ssh session uses") {
		t.Errorf("up in an ssh session at a forwarded port: %d %s", code, stderr)
	}
	r.vps.env["SSH_CONNECTION"] = client4 + " 5000 " + lab.CardIPv4 + " 22"
}

// describes checks what status says at the VPS.
func (r *relay) describes(t *testing.T, transport string) {
	t.Helper()
	var s reconcile.Status
	if err := json.Unmarshal([]byte(r.vps.do("status", "--json")), &s); err != nil {
		t.Fatal(err)
	}
	mtu := map[string]int{"ipip6": 1460, "wireguard": 1420}[transport] // not that of a card with frames of 9000 bytes
	if at := s.Relays[0]; at.IPAddr != public || at.NICAddr != lab.CardIPv4 || at.Tunlink != "eth0" || at.MTU != mtu {
		t.Errorf("status: %+v", at)
	}
	if out := r.vps.do("status"); !strings.Contains(out, "public address  198.51.100.144, on this machine 10.0.0.5 (a "+
		"cloud translates it)\n") {
		t.Errorf("status: %s", out)
	}
}

// clients checks what a client on the internet gets.
func (r *relay) clients(t *testing.T) {
	t.Helper()
	r.reaches(t)
	seenUDP(t, r.Client, public+":5000", client4, 1350)
	seenTCP(t, r.Client, public+":8080", client4)
	transfers(t, r.Client, public+":80", 1<<20)
	fromVPS(t, r.Client, public+":22")
}

// calls checks what the homes' hosts and the VPS's own programs get at the public address, and on the internet.
func (r *relay) calls(t *testing.T, transport string) {
	t.Helper()
	seenTCP(t, r.Host, client4+":90", public)
	transfers(t, r.Host, client4+":90", 1<<20)
	for _, to := range []string{public, lab.CardIPv4} {
		seenTCP(t, r.VPS, to+":80", public)
		fromVPS(t, r.VPS, to+":22")
	}
	seenUDP(t, r.VPS, public+":5000", public, 1350)
	transfers(t, r.VPS, public+":80", 1<<20)
	seenTCP(t, r.VPS, public+":8080", public)
	seenTCP(t, r.VPS, home4+":80", public)
	pings(t, r.VPS, public)
	// The neighbours at home stay there.
	seenTCP(t, r.Host2, public+":80", "192.168.1.1")
	fromVPS(t, r.Host, public+":22") // through the tunnel
	refusedTCP(t, r.Host, lab.CardIPv4+":22")
	if transport == "wireguard" { // whose port is kept
		return
	}
	// Without keep, the router cannot know what stays on the VPS, which sends the packets back.
	file := r.router.text
	r.router.write(strings.Replace(file, "\tlist keep 'tcp:22'\n", "", 1))
	r.router.do("up")
	seenTCP(t, r.Host, public+":8081", public)
	pings(t, r.Host, public)
	r.router.write(file)
	r.router.do("up")
}

// examines checks what doctor, trace and others say.
func (r *relay) examines(t *testing.T, transport string) {
	t.Helper()
	for _, e := range []*end{r.vps, r.router} {
		if code, out, problems := e.try("doctor"); code != 0 || strings.Contains(out, "warning") {
			t.Errorf("%s: doctor: %d\n%s%s", e.host.Name, code, out, problems)
		}
		e.do("check")
	}
	// The doctor sends what clients' packets carry here.
	r.run(t, r.VPS, "nft delete element ip ds4relay port_forward '{ 10.0.0.5 . tcp . 8080 }'")
	if f := r.finding(t, "forward"); f.State != doctor.Failed {
		t.Errorf("doctor, without the translation that clients need: %s", f.Evidence)
	}
	r.vps.do("up")
	trace := r.vps.traces("-t", "20", "-c", "6", client4)
	seenTCP(t, r.Client, public+":8080", client4)
	outer := map[string]string{"ipip6": "in IPv6", "wireguard": "in UDP"}[transport]
	inOrder(t, "trace", trace(), "eth0        in   from the internet            203.0.113.10:", " > 10.0.0.5:8080 tcp SYN",
		"wrap1       out  into the tunnel, DNAT done   203.0.113.10:", " > 192.168.1.211:80 tcp SYN",
		"eth0        out  "+outer+", to the other end", "wrap1       in   out of the tunnel            192.168.1.211:80 > ",
		"eth0        out  to the internet              10.0.0.5:8080 > 203.0.113.10:", "tcp SYN ACK",
		"conntrack: tcp from 203.0.113.10 to 10.0.0.5:8080, translated to 192.168.1.211:80")
}

// finding is what one of the doctor's checks says at the VPS.
func (r *relay) finding(t *testing.T, check string) (f doctor.Finding) {
	t.Helper()
	err := r.VPS.Do(func() (err error) {
		f, err = doctor.New((&app{path: r.vps.config, run: r.vps.runDir()}).examined()).Run(check, "")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// counts are the open connections to the first forward, as doctor and status see them at the VPS.
func (r *relay) counts(t *testing.T) (clients, answered int) {
	t.Helper()
	if f := r.finding(t, "internet"); f.State == doctor.OK {
		fmt.Sscanf(f.Evidence, "connections of clients that are open: %d", &clients)
	}
	var s reconcile.Status
	if err := json.Unmarshal([]byte(r.vps.do("status", "--json")), &s); err != nil {
		t.Fatal(err)
	}
	return clients, s.Relays[0].Forwards[0].Flows.Answered
}

// TestCloudMistakes: nothing is content with an address that no packet carries.
func TestCloudMistakes(t *testing.T) {
	if os.Getenv(transportEnv) != "" {
		t.Skip("it is the same with both")
	}
	t.Parallel() // it mostly waits
	r := newCloud(t, "mist-", "ipip6", "", cloudForwards)
	file := r.vps.text
	with := func(option string) string { return strings.Replace(file, "\tlist keep", option+"\tlist keep", 1) }
	second := strings.NewReplacer("'home'", "'cabin'", public, "198.51.100.145", "wrap1", "wrap2", "fdd2", "fdd9",
		"'server'", "'shed'", "'web'", "'hut'").Replace(strings.ReplaceAll(file, "\toption dest_ip",
		"\toption relay 'home'\n\toption dest_ip"))
	both := strings.ReplaceAll(file, "\toption dest_ip", "\toption relay 'home'\n\toption dest_ip") + second
	const several = "it could be translated to several private ones (10.0.0.5, 10.0.0.6); write the one that it is " +
		"into: option nicaddr"
	const none = "no device has the address 198.51.100.144 (option ipaddr); correct it, or, if a cloud translates it, " +
		"name the address that a device has with: option nicaddr"
	// To the case before; and a proxy, which up is not about.
	alike := []string{"several, tunlink", "public", "not there, tunlink", "itself", "proxy"}
	// Without a mistake, status has the card's address or not.
	const translated, native = "translated", "native"
	for _, c := range []struct{ what, machine, file, want string }{
		{"several", "ip addr add 10.0.0.6/24 dev eth0", file, several},
		{"several, tunlink", "ip addr add 10.0.0.6/24 dev eth0", with("\toption tunlink 'eth0'\n"), several},
		{"several, given", "ip addr add 10.0.0.6/24 dev eth0", with("\toption nicaddr '10.0.0.5'\n"), translated},
		{"none", "ip addr flush dev eth0; ip -6 addr add 2001:db8:6ef9::1/128 dev eth0", file, none},
		{"public", "ip addr flush dev eth0; ip addr add 198.51.100.7/24 dev eth0; ip route add default via " +
			"198.51.100.1", file, none},
		{"elsewhere", "ip link add lan type dummy; ip addr add 10.1.0.5/24 dev lan; ip link set lan up; ip addr flush " +
			"dev eth0; ip addr add 198.51.100.7/24 dev eth0; ip route add default via 198.51.100.1",
			with("\toption tunlink 'lan'\n"), "no device has the address 198.51.100.144 (option ipaddr), and lan has only " +
				"10.1.0.5"},
		{"not there", "", with("\toption nicaddr '10.0.0.9'\n"), "no device has the address 10.0.0.9 (option nicaddr)"},
		{"not there, tunlink", "", with("\toption nicaddr '10.0.0.9'\n\toption tunlink 'eth0'\n"), "no device has the " +
			"address 10.0.0.9 (option nicaddr)"},
		{"two", "", both, "may be that of relay \"cabin\"; write into both which one is theirs: option nicaddr"},
		{"gateway", "", strings.Replace(file, home4, lab.CloudIPv4, 1), "10.0.0.1 (option dest_ip) is an address of this " +
			"VPS or of its gateway"},
		{"itself", "", strings.Replace(file, home4, lab.CardIPv4, 1), "10.0.0.5 (option dest_ip) is an address of this " +
			"VPS or of its gateway"},
		{"proxy", "", strings.Replace(file, cloudForwards, forwardWeb+"\nconfig proxy 'site'\n\tlist listen "+
			"'198.51.100.144:443'\n\toption target '[2001:db8:fdd2::210]:443'\n", 1), "no packet to this machine has the " +
			"address 198.51.100.144 (option listen): a cloud translates it to 10.0.0.5"},
		{"anchor", "ip addr add 198.51.100.7/32 dev eth0", file, translated},
		{"anchor, tunlink", "ip addr add 198.51.100.7/32 dev eth0", with("\toption tunlink 'eth0'\n"), native},
		{"native", "ip addr add 198.51.100.144/32 dev lo", with("\toption tunlink 'eth0'\n"), native},
	} {
		r.run(t, r.VPS, c.machine)
		r.vps.write(c.file)
		before := r.vps.snapshot()
		commands := []string{"check", "up", "doctor"}
		if c.want != several && c.want != none { // doctor says what check does
			commands = commands[:2]
		}
		if c.what == "elsewhere" || slices.Contains(alike, c.what) {
			commands = commands[:1] // up lets the owner have what is elsewhere
		}
		if c.want == translated || c.want == native {
			r.vps.do("check")
			r.vps.do("up")
			if out := r.vps.do("status"); strings.Contains(out, "10.0.0.5") != (c.want == translated) {
				t.Errorf("%s: status: %s", c.what, out)
			}
			r.vps.do("down")
			commands = nil
		}
		for _, command := range commands {
			code, out, problems := r.vps.try(command)
			if code == 0 || !strings.Contains(strings.Join(strings.Fields(out+problems), " "), c.want) {
				t.Errorf("%s: %s: %d\n%s%s\nwant: %s", c.what, command, code, out, problems, c.want)
			}
		}
		same(t, "the VPS after "+c.what, before, r.vps.snapshot())
		r.run(t, r.VPS, "ip link del lan 2>/dev/null || :; ip addr flush dev lo scope global; ip addr flush dev eth0; "+
			"ip addr add 10.0.0.5/24 dev eth0; ip -6 addr add 2001:db8:6ef9::1/128 dev eth0; ip route add default via "+
			"10.0.0.1; ip -6 route replace default via 2001:db8:6ef9::ff dev eth0 onlink")
	}
	r.flaps(t, file)
}

// flaps takes the card's address away while the relay is up, as DHCP clients do; then gives it another one.
func (r *relay) flaps(t *testing.T, file string) {
	t.Helper()
	serveTCP(t, r.Host, 80)
	r.vps.write(file)
	r.up()
	conn := open(t, r.Client, public+":80")
	r.run(t, r.VPS, "ip -4 addr flush dev eth0")
	if out := r.vps.do("up"); !strings.HasPrefix(out, "Nothing to do") {
		t.Errorf("up while the address is away: %s", out)
	}
	if code, out, problems := r.vps.try("check"); code != exitFailed || !strings.Contains(out+problems,
		"no device has the address 10.0.0.5, which packets to 198.51.100.144 carry here") {
		t.Errorf("check while the address is away: %d %s%s", code, out, problems)
	}
	r.run(t, r.VPS, "ip addr add 10.0.0.5/24 dev eth0; ip route add default via 10.0.0.1")
	alive(t, "a connection from before the address was away", conn)
	if err := r.MoveCard(netip.MustParsePrefix("10.0.0.7/24"), netip.MustParseAddr(lab.CloudIPv4)); err != nil {
		t.Fatal(err)
	}
	r.vps.do("up")
	seenTCP(t, r.Client, public+":80", client4)
	// The machine gets the public address itself.
	r.run(t, r.VPS, "ip addr add "+public+"/32 dev lo")
	r.vps.do("up")
	if out := r.vps.do("status"); strings.Contains(out, "10.0.0.7") {
		t.Errorf("status, with the public address: %s", out)
	}
}
