//go:build lab

package main

import (
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/lab"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/platform"
)

// pi4 is the address of the machine beside the provider's router, and container4 that of a container on it.
const (
	pi4        = "192.168.1.211"
	container4 = "172.17.0.2"
)

const piForwards = `
config forward 'web'
	option src_dport '8080'
	option dest_ip '192.168.1.210'
	option dest_port '80'
	option masq '1'

config forward 'ping'
	list proto 'icmp'
	option dest_ip '192.168.1.210'
	option masq '1'

config forward 'own'
	option src_dport '90'
	option dest_ip '192.168.1.211'

config forward 'container'
	list proto 'tcp'
	option src_dport '85'
	option dest_ip '172.17.0.2'
	option dest_port '80'
`

// docker is what Docker 28 and ufw do to packets that they do not know, with one container.
const docker = `*raw
-A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP
COMMIT
*nat
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
COMMIT
*filter
:INPUT DROP
:FORWARD DROP
-A INPUT -i lo -j ACCEPT
-A INPUT -p icmp -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
COMMIT
`

const ufw6 = `*filter
:INPUT DROP
-A INPUT -i lo -j ACCEPT
-A INPUT -p ipv6-icmp -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
`

// home is a Debian machine with one card beside the provider's router, which is the lab's router. The host's default
// gateway is that router.
type home struct {
	*relay
	pi *end
}

func newHome(t *testing.T) *home {
	t.Helper()
	r := newRelay(t, lab.Options{Prefix: "pi-"}, "")
	h := &home{r, newEnd(t, r.Host2, "")}
	r.run(t, r.Host2, "sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.eth0.accept_ra=1 "+
		"net.ipv6.conf.eth0.use_tempaddr=2; "+
		"ip -6 addr flush dev eth0 scope global; ip -6 route flush default; ip link add docker0 type bridge; "+
		"ip addr add 172.17.0.1/16 dev docker0; ip link add port type veth peer name docker netns pi-lan2; "+
		"ip link set port master docker0 up; ip link set docker0 up")
	r.run(t, r.LAN2, "ip addr add 172.17.0.2/16 dev docker; ip link set docker up; ip route replace default via "+
		"172.17.0.1")
	for program, rules := range map[string]string{"iptables-restore": docker, "ip6tables-restore": ufw6} {
		if out, err := r.Host2.RunInput(rules, program); err != nil {
			t.Fatal(program, err, out)
		}
	}
	for _, server := range []*lab.Host{r.Host, r.Host2} {
		serveTCP(t, server, 443)
	}
	serveTCP(t, r.Host, 80)
	serveUDP(t, r.Host, 80)
	serveTCP(t, r.Host2, 90)
	serveUDP(t, r.Host2, 90)
	serveTCP(t, r.LAN2, 80)
	return h
}

// advertises announces a prefix to the machine, and as deprecated the ones that the home had before.
func (h *home) advertises(t *testing.T, prefix string, before ...string) {
	t.Helper()
	list := []lab.Advertised{{Prefix: netip.MustParsePrefix(prefix), Preferred: 3600}}
	for _, p := range before {
		list = append(list, lab.Advertised{Prefix: netip.MustParsePrefix(p)})
	}
	if err := h.Router.Advertise("br-lan", list...); err != nil {
		t.Fatal(err)
	}
}

// reaches tries all that is forwarded.
func (h *home) reaches(t *testing.T) {
	t.Helper()
	seenTCP(t, h.Client, public+":8080", pi4)
	seenUDP(t, h.Client, public+":8080", pi4, 1300)
	pings(t, h.Client, public)
	seenTCP(t, h.Client, public+":90", client4)
	seenUDP(t, h.Client, public+":90", client4, 1300)
	seenTCP(t, h.Client, public+":85", client4)
}

// settled fails the test unless an end is as its file says.
func (h *home) settled(t *testing.T, e *end) {
	t.Helper()
	if out := e.do("up"); !strings.HasPrefix(out, "Nothing to do") {
		t.Errorf("%s: a second up: %s", e.host.Name, out)
	}
	if code, out, problems := e.try("status"); code != 0 {
		t.Errorf("%s: status: exit status %d\n%s%s", e.host.Name, code, out, problems)
	}
}

// well fails the test unless the doctor is content, too.
func (h *home) well(t *testing.T, e *end) {
	t.Helper()
	h.settled(t, e)
	if code, out, _ := e.try("doctor"); code != 0 {
		t.Errorf("%s: doctor: exit status %d\n%s", e.host.Name, code, out)
	}
}

// TestHomeBesideRouter: a Debian machine beside the provider's router, with one card, Docker and ufw, is a home.
func TestHomeBesideRouter(t *testing.T) {
	if os.Getenv(transportEnv) != "" {
		t.Skip("it has both transports")
	}
	t.Parallel() // it mostly waits
	h := newHome(t)
	before := h.pi.snapshot()
	const relayOf = "config relay 'home'\n\toption role 'router'\n\toption ipaddr '198.51.100.144'\n" +
		"\toption peeraddr '2001:db8:6ef9::/64'\n\toption device 'wrap1'\n"
	h.pi.write(relayOf + piForwards)

	// Without an address it waits, and check says so.
	if code, _, problems := h.pi.try("check"); code != exitFailed || !strings.Contains(problems, "waits for an IPv6 "+
		"default route") {
		t.Errorf("check without IPv6: exit status %d\n%s", code, problems)
	}
	if code, out, _ := h.pi.try("doctor"); code != exitFailed || strings.Contains(out, "DHCPv6-PD") ||
		!strings.Contains(out, "transport wireguard") {
		t.Errorf("doctor without IPv6: exit status %d\n%s", code, out)
	}
	h.pi.do("up")
	s := h.pi.stay()
	const first, second = "2001:db8:fdd2::/64", "2001:db8:fdd2:7::/64"
	h.advertises(t, first)
	const endpoint, moved = "2001:db8:fdd2:0:198:51:100:144", "2001:db8:fdd2:7:198:51:100:144"
	on := func(device, address string) bool {
		out, err := h.Host2.Run("ip", "-6", "-o", "addr", "show", "dev", device)
		return err == nil && strings.Contains(out, address+"/128")
	}
	s.awaits("the endpoint comes with the prefix", func() bool { return on("eth0", endpoint) })
	h.pi.do("check")
	exported := h.pi.do("export")
	h.vps.write(strings.Replace(exported, "2001:db8:6ef9:0:198:51:100:144", "2001:db8:6ef9::/64", 1))
	if !strings.Contains(exported, "option peeraddr '"+endpoint+"'") || strings.Contains(exported, "masq") {
		t.Errorf("the VPS's file:\n%s", exported)
	}
	h.vps.do("up")
	h.reaches(t)
	h.well(t, h.pi)
	h.well(t, h.vps)

	// The host's answers are followed, too.
	wait := h.pi.traces("-c", "12", client4)
	seenTCP(t, h.Client, public+":8080", pi4)
	inOrder(t, "trace", wait(), "out of the tunnel", "to the host", pi4, "from the host", "into the tunnel")

	// What takes the endpoint away does not keep it.
	h.run(t, h.Host2, "ip -6 addr del "+endpoint+"/128 dev eth0")
	s.awaits("the endpoint comes back", func() bool { return on("eth0", endpoint) })
	h.run(t, h.Host2, "iptables -t raw -F; iptables -t raw -A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP; "+
		"iptables -F FORWARD; iptables -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; "+
		"iptables -A FORWARD -i docker0 ! -o docker0 -j ACCEPT")
	s.awaits("the rules come back", func() bool {
		out, err := h.Host2.Run("sh", "-c", "iptables -S FORWARD; iptables -t raw -S")
		return err == nil && strings.Count(out, "-i wrap1 ") == 2
	})
	h.reaches(t)

	// Another prefix: connections at home stay, and the endpoint follows.
	h.run(t, h.Router, "ip -6 addr add 2001:db8:fdd2:7::1/64 dev br-lan nodad")
	h.advertises(t, second, first)
	s.awaits("the endpoint follows the prefix", func() bool { return on("eth0", moved) && !on("eth0", endpoint) })
	if said := s.said(); strings.Contains(said, "put back: ip link") ||
		!strings.Contains(said, "a relay was waiting for") {
		t.Errorf("a prefix that comes or changes is nobody's fault:\n%s", said)
	}
	s.stop()
	h.vps.write(strings.Replace(h.vps.text, endpoint, moved, 1))
	h.vps.do("up")
	h.reaches(t)
	h.settled(t, h.pi)
	h.advertises(t, first, second) // without the watcher, the run of each minute follows
	for deadline := time.Now().Add(patience); !on("eth0", endpoint) && time.Now().Before(deadline); {
		h.pi.do("watch")
	}
	if !on("eth0", endpoint) {
		t.Error("watch does not follow the prefix")
	}
	h.vps.write(strings.Replace(h.vps.text, moved, endpoint, 1))
	h.vps.do("up")
	h.reaches(t)

	h.recipe(t)
	h.withoutMasq(t)
	h.filtered(t)
	h.pi.do("down")
	h.vps.do("down")
	h.run(t, h.Host2, "ip -6 addr flush dev eth0 scope global; ip -6 route flush default; ip -6 route del "+first+
		" dev eth0; ip -6 route del "+second+" dev eth0")
	h.overWireGuard(t)
	h.pi.do("down")
	same(t, "the machine after down", before, h.pi.snapshot())
	h.vps.do("down")

	// A router whose provider delegates nothing: the endpoint is in the line's own network.
	h.router.write(relayOf + "\toption tunlink 'wan'\n" + forwardAll)
	h.router.do("check")
	h.router.do("up")
	h.vps.write(h.router.do("export"))
	if !strings.Contains(h.vps.text, "option peeraddr '2001:db8:fdd1:0:198:51:100:144'") {
		t.Errorf("the VPS's file:\n%s", h.vps.text)
	}
	h.vps.do("up")
	seenTCP(t, h.Client, public+":80", client4)
	h.well(t, h.router)
	h.undelegated(t)
	// One that routes single addresses: the endpoint is the address itself.
	h.router.do("down")
	h.run(t, h.Router, "ip -6 addr flush dev wan scope global; ip -6 addr add 2001:db8:fdd1::2/128 dev wan nodad; "+
		"ip -6 route add 2001:db8:fdd1::1 dev wan; ip -6 route replace default via 2001:db8:fdd1::1 dev wan")
	if out := h.router.do("export"); !strings.Contains(out, "option peeraddr '2001:db8:fdd1::2'") {
		t.Errorf("the VPS's file:\n%s", out)
	}
}

// noDelegation is OpenWrt without a delegated prefix.
type noDelegation struct{ platform.Debian }

func (noDelegation) NamesNetworks() bool { return true }

func (b noDelegation) Networks() (platform.Networks, error) { return b, nil }

func (noDelegation) Uplink(*config.Relay) *platform.Uplink { return nil }

func (noDelegation) Awaited(*config.Relay) *message.Text { return message.New("a delegated prefix") }

func (noDelegation) Free(string, []string) error { return nil }

// undelegated: OpenWrt takes its line's own network too, but a tunnel with an endpoint in a delegated prefix waits for
// that.
func (h *home) undelegated(t *testing.T) {
	t.Helper()
	auto := h.router.text
	for _, c := range []struct{ prefix, device, local string }{
		{"2001:db8:fdd1::/64", "wan", "2001:db8:fdd1:0:198:51:100:144"},
		{"2001:db8:fdd2::/64", "wrap1", routerEndpoint.String()},
	} {
		h.router.write(strings.Replace(auto, "\toption peeraddr", "\toption ip6addr '"+c.prefix+"'\n\toption peeraddr", 1))
		h.router.do("up")
		h.router.write(auto)
		relays, _, err := config.Load(h.router.config, config.Defaults{})
		if err != nil {
			t.Fatal(err)
		}
		err = h.Router.Do(func() error {
			facts, err := (&kernel.Kernel{Run: h.router.runDir(), Platform: noDelegation{}}).Facts(relays.Relays)
			if got := facts.Local["home"].String(); got != c.local {
				t.Errorf("OpenWrt with an endpoint on %s: %s, want %s", c.device, got, c.local)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// recipe follows the page for such a machine, then goes back to the files before.
func (h *home) recipe(t *testing.T) {
	t.Helper()
	vps, pi := h.vps.text, h.pi.text
	(&kitchen{relay: &relay{h.Net, h.vps, h.pi}}).follow(t, read(t, "pi"))
	seenTCP(t, h.Client, public+":443", client4)
	seenTCP(t, h.Client, public+":8443", pi4)
	for e, text := range map[*end]string{h.vps: vps, h.pi: pi} {
		e.write(text)
		e.do("up")
	}
	h.reaches(t)
}

// withoutMasq: the host answers by its own gateway, and doctor names the option; with this machine as its gateway the
// host sees the client.
func (h *home) withoutMasq(t *testing.T) {
	t.Helper()
	text := h.pi.text
	h.pi.write(strings.ReplaceAll(text, "\toption masq '1'\n", ""))
	h.pi.do("up")
	refusedTCP(t, h.Client, public+":8080")
	if code, out, _ := h.pi.try("doctor"); code != exitFailed || !strings.Contains(out, "option masq '1'") {
		t.Errorf("doctor without masq: exit status %d\n%s", code, out)
	}
	h.run(t, h.Host, "ip route replace default via "+pi4)
	seenTCP(t, h.Client, public+":8080", client4)
	h.run(t, h.Host, "ip route replace default via 192.168.1.1")
	h.pi.write(text)
	h.pi.do("up")
	h.reaches(t)
}

// filtered: the provider's router lets no packet of the tunnel in. Doctor's remedies are Debian's.
func (h *home) filtered(t *testing.T) {
	t.Helper()
	h.run(t, h.Router, "nft add table ip6 f; nft add chain ip6 f c '{ type filter hook forward priority 0; "+
		"policy accept; iifname wan meta l4proto 4 drop; }'")
	code, out, _ := h.pi.try("doctor")
	if code != exitFailed || !strings.Contains(out, "exposed host") || !strings.Contains(out, "transport wireguard") {
		t.Errorf("doctor behind a firewall: exit status %d\n%s", code, out)
	}
	for _, word := range []string{"opkg", "ifstatus", "service ", "LuCI", "wan6"} {
		if strings.Contains(out, word) {
			t.Errorf("doctor on Debian says %q:\n%s", word, out)
		}
	}
}

// overWireGuard is the same with transport wireguard, which passes that firewall and needs no IPv6 at home.
func (h *home) overWireGuard(t *testing.T) {
	t.Helper()
	vps, pi := h.vps.newKey(), h.pi.newKey()
	h.pi.write(h.pi.wireGuardHead("router", vps, "\toption peeraddr '198.51.100.144'\n\toption masq '0'\n") + piForwards)
	h.vps.write(h.vps.wireGuardHead("vps", pi, "\tlist keep 'tcp:22'\n") +
		strings.ReplaceAll(piForwards, "\toption masq '1'\n", ""))
	h.pi.do("check")
	h.vps.do("up")
	h.pi.do("up")
	shakesHands(t, h.pi)
	h.reaches(t)
	h.well(t, h.pi)
	h.well(t, h.vps)
}
