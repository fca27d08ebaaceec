//go:build lab

package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/doctor"
	"github.com/ds4relay/ds4relay/internal/lab"
)

// recipesDir has the pages that TestRecipes follows.
const recipesDir = "../../docs/recipes"

// block is a code block of a page: a file, named by its first line, or commands.
type block struct {
	head  string // the first line without its #; "" for commands
	lines []string
}

// begins reports whether the first section of the block is of that type.
func (b block) begins(section string) bool {
	return len(b.lines) > 0 && strings.HasPrefix(b.lines[0], "config "+section)
}

var blockHead = regexp.MustCompile(`^# ((?:VPS|router|VPS and router|VPS [12]|both VPSs): /\S+)`)

// blocks returns the code blocks of a page, each without its indentation.
func blocks(page string) (found []block) {
	var b block
	indent := 0
	for line := range strings.Lines(page + "end\n") {
		line = strings.TrimRight(line, " \n")
		depth := len(line) - len(strings.TrimLeft(line, " "))
		switch m := blockHead.FindStringSubmatch(strings.TrimLeft(line, " ")); {
		case line == "" && b.lines == nil, depth < 4 && line != "":
			if b.lines != nil {
				found = append(found, b)
			}
			b = block{}
		case b.lines == nil && m != nil:
			indent, b.head, b.lines = depth, m[1], []string{}
		case b.lines == nil:
			indent, b.lines = depth, []string{line[depth:]}
		default:
			b.lines = append(b.lines, line[min(indent, len(line)):])
		}
	}
	return found
}

// kitchen is a lab in which recipes are followed one after the other.
type kitchen struct {
	*relay
	lease string // what the provider's DHCP server gives: an address and a gateway
}

// relayOf and forwardsOf are the two parts of a file.
func relayOf(text string) string {
	return text[:len(text)-len(forwardsOf(text))]
}

func forwardsOf(text string) string {
	if at := regexp.MustCompile(`(?m)^config forward`).FindStringIndex(text); at != nil {
		return text[at[0]:]
	}
	return ""
}

// write puts a block into an end's file: forwards below what is there, a relay in place of the former, and what is
// more in place of all.
func (k *kitchen) write(role string, b block) {
	e, other := k.vps, "router"
	if role == "router" {
		e, other = k.router, "vps"
	}
	text := strings.Join(b.lines, "\n") + "\n"
	switch {
	case b.begins("forward"):
		text = e.text + "\n" + text
	case b.begins("relay") && forwardsOf(text) == "":
		text += "\n" + forwardsOf(e.text)
	}
	if strings.Contains(text, "'wireguard'") {
		text = regexp.MustCompile(`(?m)(option public_key\s+)'.*'$`).ReplaceAllString(text, fmt.Sprintf(
			"${1}'%s'\n\toption private_key_file '%s'", keyOf("home", other).Public(), e.secretOf("home", role)))
	}
	e.write(text)
}

// follow does what a page says until its next block of commands with doctor or status, which it runs as well. It
// returns what is left of the page.
func (k *kitchen) follow(t *testing.T, rest []block) []block {
	t.Helper()
	for i, b := range rest {
		where, file, _ := strings.Cut(b.head, ": ")
		switch {
		case file == "/etc/network/interfaces":
			k.run(t, k.VPS, k.ifup(t, b.lines))
		case file == "/etc/config/ds4relay":
			if where != "router" {
				k.write("vps", b)
				if b.begins("relay") { // "at home the forward is the same"
					k.router.write(relayOf(k.router.text) + forwardsOf(k.vps.text))
				}
			}
			if where != "VPS" {
				k.write("router", b)
			}
		case b.head != "":
			t.Fatalf("a file that this test does not know: %s", b.head)
		case k.types(t, b.lines):
			return rest[i+1:]
		}
	}
	return nil
}

// types runs the commands of a block, and reports whether one of them has looked at the result.
func (k *kitchen) types(t *testing.T, lines []string) (looked bool) {
	t.Helper()
	for _, line := range lines {
		prompt, commands, ok := strings.Cut(line, "# ")
		e := map[string]*end{"vps": k.vps, "router": k.router}[prompt]
		if !ok || e == nil {
			continue
		}
		for command := range strings.SplitSeq(commands, " && ") {
			switch words := strings.Fields(command); {
			case command == "systemctl enable --now ds4relay":
				e.do("up")
			case command == "systemctl enable --now ds4relay-proxy":
				k.proxies(t)
			case words[0] != "ds4relay":
				t.Fatalf("a command that this test does not know: %s", command)
			case words[1] == "genkey": // both ends have one /etc here: keys are elsewhere, and there already
			case words[1] == "doctor":
				k.healthy(t, e)
				looked = true
			default:
				e.do(words[1:]...)
				looked = looked || words[1] == "status"
			}
		}
	}
	return looked
}

// healthy fails the test unless the doctor is content.
func (k *kitchen) healthy(t *testing.T, e *end) {
	t.Helper()
	_, out, problems := e.try("doctor", "--json")
	var answer struct{ Checks []doctor.Finding }
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatalf("%v\n%s%s", err, out, problems)
	}
	ok := 0
	for _, c := range answer.Checks {
		switch c.State {
		case doctor.Failed, doctor.Warning:
			t.Errorf("%s: doctor: %s %s: %s\n→ %s", e.host.Name, c.State, c.ID, c.Evidence, c.Remedy)
		case doctor.OK:
			ok++
		}
	}
	if ok == 0 {
		t.Errorf("%s: the doctor has checked nothing:\n%s", e.host.Name, out)
	}
}

// ifup returns what ifupdown does for stanzas of /etc/network/interfaces, as commands.
func (k *kitchen) ifup(t *testing.T, lines []string) string {
	t.Helper()
	commands := []string{"ip link set eth0 down; ip addr flush dev eth0; ip link set eth0 up"}
	stanza := map[string]string{}
	configure := func() {
		address, gateway := stanza["address"], stanza["gateway"]
		flag := ""
		switch stanza["method"] {
		case "":
			return
		case "inet6 static":
			flag = " nodad"
		case "inet dhcp":
			address, gateway, _ = strings.Cut(k.lease, " ")
			stanza["pointopoint"] = gateway
		}
		if peer := stanza["pointopoint"]; peer != "" {
			address = strings.TrimSuffix(address, "/32") + " peer " + peer
		}
		commands = append(commands, "ip addr add "+address+" dev eth0"+flag,
			"ip route add default via "+gateway+" dev eth0")
	}
	for _, line := range lines {
		words := append(strings.Fields(line), "")
		switch words[0] {
		case "", "auto":
		case "iface":
			configure()
			stanza = map[string]string{"method": words[2] + " " + words[3]}
		case "address", "gateway", "pointopoint":
			stanza[words[0]] = words[1]
		default:
			t.Fatalf("a line that this test does not know: %s", line)
		}
	}
	configure()
	return strings.Join(commands, "\n")
}

// proxies runs the VPS's proxies until the test ends.
func (k *kitchen) proxies(t *testing.T) {
	t.Helper()
	cmd := k.VPS.Command(os.Args[0], "-c", k.vps.config, "--run", k.vps.runDir(), "proxy")
	cmd.Env = append(os.Environ(), childEnv+"=never 0")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Signal(unix.SIGKILL); cmd.Wait() })
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if code, _, _ := k.vps.try("proxy", "--status"); code == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the proxies do not run")
		}
	}
}

// recipe is what a page of docs/recipes needs in the lab: what its provider or router does, and what its reader sees.
type recipe struct {
	pages string // names, followed at the same time
	lease string
	card  string // like lease: what a cloud translates the public address to
	// steps are taken before and after each part of the page: it ends with a look at the result.
	steps []step
	more  func(*testing.T, *kitchen) // what the page says without a block
}

type step struct {
	before string // commands on hosts of the lab, one "HOST: …" after the other
	works  func(*testing.T, *kitchen)
}

// gateway is the provider's router, which the lab's core is: an address on link, and IPv6 by its link-local address.
const gateway = "core: ip link set vps down; ip addr flush dev vps; ip link set vps up; " +
	"ip addr add fe80::1/64 dev vps nodad; ip addr add %s dev vps; ip route replace 198.51.100.144/32 dev vps; " +
	"ip route replace 2001:db8:6ef9::%s"

func gatewayAt(address, ipv6 string) string { return fmt.Sprintf(gateway, address, ipv6) }

// cloudFirewall is a firewall of the provider: what is not listed does not get to the VPS, whatever its state.
func cloudFirewall(protocols, ports string) string {
	return fmt.Sprintf("core: nft -f - <<'E'\ntable inet provider\ndelete table inet provider\n"+
		"table inet provider {\n chain forward { type filter hook forward priority 0; oifname != vps accept; "+
		"meta l4proto != { %s } drop; ct state established,related accept; %s drop; }\n}\nE", protocols, ports)
}

func web(t *testing.T, k *kitchen) {
	t.Helper()
	for _, port := range []string{":80", ":443"} {
		seenTCP(t, k.Client, public+port, client4)
	}
}

var providers = []recipe{
	{pages: "hetzner", steps: []step{{
		before: gatewayAt("172.31.1.1/32", "/64 via fe80::ff:fe00:202 dev vps"), works: web}},
		more: func(t *testing.T, k *kitchen) {
			k.arrange(t, cloudFirewall("tcp, udp, icmp, icmpv6, gre, esp",
				"meta l4proto { icmp, icmpv6 } accept; tcp dport { 80, 443 } accept; udp dport 51846 accept;"))
			refusedTCP(t, k.Client, public+":80") // protocol 4 is not for this firewall
			k.follow(t, slices.DeleteFunc(read(t, "ionos"), func(b block) bool {
				return !strings.HasSuffix(b.head, "/ds4relay")
			}))
			k.up()
			web(t, k)
		}},
	{pages: "netcup", steps: []step{{before: gatewayAt("198.51.100.1/24", "/64 dev vps"), works: web}}},
	{pages: "ionos", lease: "198.51.100.144/32 10.255.255.1", steps: []step{{
		before: gatewayAt("10.255.255.1/32", "144/128 dev vps") + "\n" +
			cloudFirewall("tcp, udp, icmp", "tcp dport { 22, 80, 443 } accept; udp dport 51846 accept;"),
		works: web}}},
	{pages: "strato", lease: "198.51.100.144/32 10.255.255.1", steps: []step{{
		before: gatewayAt("10.255.255.1/32", "144/128 dev vps"), works: func(t *testing.T, k *kitchen) {
			web(t, k)
			seenUDP(t, k.Client, public+":5000", client4, 1200)
			pings(t, k.Client, public)
		}}}},
}

// oracleReload is what netfilter-persistent does on Oracle's images.
const oracleReload = "vps: iptables-restore <<'E'\n" + oracle + "E"

// clouds are the providers of a VPS with a private address.
var clouds = []recipe{
	{pages: "lightsail", card: "172.26.9.5/20 172.26.0.1", steps: []step{{
		before: cloudFirewall("tcp, udp, icmp, icmpv6", "tcp dport { 22, 80, 443 } accept; udp dport 51846 accept;"),
		works:  web}},
		more: func(t *testing.T, k *kitchen) { // all protocols from the home, in the firewall for IPv6
			k.arrange(t, cloudFirewall("tcp, udp, icmp, icmpv6, 4", "ip6 saddr 2001:db8:fdd2::/64 accept; "+
				"tcp dport { 80, 443 } accept;"))
			k.vps.write(ends("vps", "2001:db8:6ef9::1", "2001:db8:fdd2::/64") + forwardsOf(k.vps.text))
			k.router.write(ends("router", "2001:db8:fdd2::/64", "2001:db8:6ef9::1") + forwardsOf(k.router.text))
			k.up()
			web(t, k)
		}},
	{pages: "oracle", card: "10.0.0.5/24 10.0.0.1", steps: []step{{
		before: cloudFirewall("tcp, udp, icmp, icmpv6, 4", "meta l4proto 4 ip6 saddr 2001:db8:fdd2::/64 accept; "+
			"tcp dport { 22, 80, 443 } accept;") + "\n" + oracleReload,
		works: web}},
		more: func(t *testing.T, k *kitchen) {
			k.arrange(t, oracleReload)
			k.vps.do("watch")
			web(t, k)
		}},
}

// homeRouter is the home's provider router: what was not asked for does not get in, but for what it lets in.
func homeRouter(open string) string {
	return "isp: nft -f - <<'E'\ntable inet box\ndelete table inet box\ntable inet box {\n chain forward { type " +
		"filter hook forward priority 0; iifname core ct state new jump in; }\n chain in { meta l4proto icmpv6 " +
		"accept; " + open + " drop; }\n}\nE"
}

var homes = []recipe{
	{pages: "fritzbox", steps: []step{{
		before: homeRouter("") + "\nisp: ip -6 route del 2001:db8:fdd2::/56", works: web}},
		more: func(t *testing.T, k *kitchen) {
			for _, c := range []struct{ before, here, there string }{
				{homeRouter("ip6 daddr 2001:db8:fdd2::/56 accept;") +
					"\nisp: ip -6 route add 2001:db8:fdd2::/56 via 2001:db8:fdd1::2", "2001:db8:fdd2::/64",
					"2001:db8:fdd2::/64"},
				{homeRouter("ip6 daddr & ::ffff:ffff:ffff:ffff == ::198:51:100:144 accept;") +
					"\nisp: ip -6 route del 2001:db8:fdd2::/56", "auto", "2001:db8:fdd1:0:198:51:100:144"},
			} {
				k.arrange(t, c.before)
				k.vps.write(ends("vps", "2001:db8:6ef9::/64", c.there) + forwardsOf(k.vps.text))
				k.router.write(ends("router", c.here, "2001:db8:6ef9::/64") + forwardsOf(k.router.text))
				k.up()
				web(t, k)
			}
		}},
	{pages: "container", steps: []step{{
		before: homeRouter("ip6 daddr 2001:db8:fdd2::210 tcp dport { 80, 443 } accept; ip6 daddr 2001:db8:fdd2::210 "+
			"udp dport 2456-2458 accept;") + "\nisp: ip -6 route add 2001:db8:fdd2::/56 via 2001:db8:fdd1::2",
		works: func(t *testing.T, k *kitchen) {
			for _, port := range []string{":80", ":443"} {
				seenTCP(t, k.Client, public+port, lab.VPSIPv6.String())
			}
			seenUDP(t, k.Client, public+":2457", lab.VPSIPv6.String(), 1200)
		}}}},
}

// ends is the section of a relay over IPv4 in IPv6 at one end.
func ends(role, here, there string) string {
	return fmt.Sprintf("config relay 'home'\n\toption role '%s'\n\toption ipaddr '198.51.100.144'\n"+
		"\toption ip6addr '%s'\n\toption peeraddr '%s'\n\n", role, here, there)
}

var services = []recipe{
	{pages: "mail game vpn web", steps: []step{{works: func(t *testing.T, k *kitchen) {
		for _, port := range []string{"25", "465", "587", "993", "80", "443", "25565"} {
			seenTCP(t, k.Client, public+":"+port, client4)
		}
		for _, port := range []string{"443", "2456", "2458", "500", "4500"} {
			seenUDP(t, k.Client, public+":"+port, client4, 1200)
		}
		if seen := k.askESP(t); seen != client4 {
			t.Errorf("the server sees ESP from %q", seen)
		}
		k.dialsIn(t)
		// Another mail server sees the address with the PTR record, a list of games that of the players.
		seenTCP(t, k.Host, client4+":25", public)
		seenUDP(t, k.Host2, client4+":27011", public, 100)
		// Computers at home.
		seenTCP(t, k.Host2, public+":443", "192.168.1.1")
		seenUDP(t, k.Host, public+":2456", "192.168.1.1", 100)
		k.vps.do("down")
		refusedTCP(t, k.Host, client4+":25") // the kill switch
		k.vps.do("up")
	}}}},
	{pages: "nextcloud", steps: []step{{works: func(t *testing.T, k *kitchen) {
		web(t, k)
		seenTCP(t, k.Client, public+":8123", client4)
		seenTCP(t, k.Host2, public+":443", "192.168.1.1")
		seenTCP(t, k.Host2, client4+":25", natted4) // without egress
	}}}},
}

// askESP sends a packet of ESP to the public address, and returns the client's address as the server writes it into its
// answer.
func (k *kitchen) askESP(t *testing.T) string {
	t.Helper()
	socket, err := rawSocket(k.Client, unix.IPPROTO_ESP, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(socket)
	to := netip.MustParseAddr(public)
	if err := unix.Sendto(socket, []byte("knock"), 0, &unix.SockaddrInet4{Addr: to.As4()}); err != nil {
		t.Fatal(err)
	}
	answer, from, err := receiveRaw(socket)
	if err != nil || from != to {
		t.Errorf("ESP: %q from %v, %v", answer, from, err)
	}
	return string(answer)
}

// arrange runs commands on the hosts that they name.
func (k *kitchen) arrange(t *testing.T, commands string) {
	t.Helper()
	hosts := map[string]*lab.Host{"core": k.Core, "isp": k.ISP, "vps": k.VPS}
	for _, part := range regexp.MustCompile(`(?m)^(core|isp|vps): `).Split(commands, -1)[1:] {
		name := regexp.MustCompile(`(?m)^(core|isp|vps): `).FindString(commands)
		commands = commands[len(name)+len(part):]
		k.run(t, hosts[strings.TrimSuffix(name, ": ")], part)
	}
}

// read returns the blocks of pages, the commands of the last one only.
func read(t *testing.T, pages string) (found []block) {
	t.Helper()
	names := strings.Fields(pages)
	for i, name := range names {
		page, err := os.ReadFile(filepath.Join(recipesDir, name+".md"))
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range blocks(string(page)) {
			if b.head != "" || i == len(names)-1 {
				found = append(found, b)
			}
		}
	}
	return found
}

// cook follows pages one after the other, in one lab.
func cook(t *testing.T, options lab.Options, recipes []recipe) {
	r := newRelay(t, options, "")
	k := &kitchen{relay: r}
	k.serve(t)
	for _, c := range recipes {
		t.Run(c.pages, func(t *testing.T) {
			r.vps.t, r.router.t, k.lease = t, t, c.lease
			r.vps.write(vpsRelay)
			r.router.write(routerRelay)
			if c.card != "" {
				address, gateway, _ := strings.Cut(c.card, " ")
				if err := r.MoveCard(netip.MustParsePrefix(address), netip.MustParseAddr(gateway)); err != nil {
					t.Fatal(err)
				}
			}
			rest := read(t, c.pages)
			for _, s := range c.steps {
				k.arrange(t, s.before)
				rest = k.follow(t, rest)
				s.works(t, k)
			}
			for _, b := range rest {
				if b.head != "" {
					t.Errorf("the page goes on with %s", b.head)
				}
			}
			if c.more != nil {
				c.more(t, k)
			}
			if strings.Contains(r.vps.text, "config relay") {
				r.vps.do("down")
			}
			k.run(t, k.Core, "nft delete table inet provider 2>/dev/null || true")
		})
		if t.Failed() {
			return // the next pages would stand on this one
		}
	}
	r.router.do("down")
}

// serve is what listens at home, and what the home's hosts connect to.
func (k *kitchen) serve(t *testing.T) {
	t.Helper()
	for _, port := range []int{25, 80, 443, 465, 587, 993} {
		serve(t, k.Host, "tcp", port)
	}
	for _, port := range []int{8123, 25565} {
		serveTCP(t, k.Host2, port)
	}
	for _, port := range []int{443, 2457, 5000} {
		k.serveUDP(t, k.Host, port)
	}
	for _, port := range []int{500, 2456, 2457, 2458, 4500} {
		serveUDP(t, k.Host2, port)
	}
	serveTCP(t, k.Client, 25)
	serveUDP(t, k.Client, 27011)
	k.serveESP(t, k.Host2)
	k.servesWireGuard(t)
}

// servesWireGuard makes a server of WireGuard at home, for one client.
func (k *kitchen) servesWireGuard(t *testing.T) {
	t.Helper()
	k.run(t, k.Host, fmt.Sprintf("ip link add wg9 type wireguard; wg set wg9 listen-port 51820 private-key %s peer %s "+
		"allowed-ips 10.9.0.2/32; ip addr add 10.9.0.1/24 dev wg9; ip link set wg9 mtu 1380 up",
		k.vps.secretOf("vpn", "server"), keyOf("vpn", "client").Public()))
}

// dialsIn is a client of that server, with the endpoint and the MTU that the page has.
func (k *kitchen) dialsIn(t *testing.T) {
	t.Helper()
	k.run(t, k.Client, fmt.Sprintf("ip link add wg9 type wireguard; wg set wg9 private-key %s peer %s endpoint %s:51820 "+
		"allowed-ips 10.9.0.0/24; ip addr add 10.9.0.2/24 dev wg9; ip link set wg9 mtu 1380 up; "+
		"ping -q -c 1 -W 5 -M do -s 1352 10.9.0.1", k.vps.secretOf("vpn", "client"),
		keyOf("vpn", "server").Public(), public))
	if out, err := k.Host.Run("wg", "show", "wg9", "endpoints"); err != nil || !strings.Contains(out, "\t"+client4+":") {
		t.Errorf("the server at home has its client at %v %s, want %s", err, out, client4)
	}
}

// serveUDP is like the function, over IPv6 too.
func (k *kitchen) serveUDP(t *testing.T, h *lab.Host, port int) {
	t.Helper()
	conn, err := h.ListenPacket("udp", fmt.Sprintf(":%d", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go echoUDP(conn)
}

// serveESP answers packets of ESP with the address of who has sent them.
func (k *kitchen) serveESP(t *testing.T, h *lab.Host) {
	t.Helper()
	socket, err := rawSocket(h, unix.IPPROTO_ESP, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(stop); <-stopped; unix.Close(socket) })
	go func() {
		defer close(stopped)
		for {
			_, from, err := receiveRaw(socket)
			select {
			case <-stop:
				return
			default:
			}
			if err == nil && from.IsValid() {
				unix.Sendto(socket, []byte(from.String()), 0, &unix.SockaddrInet4{Addr: from.As4()})
			}
		}
	}()
}

// TestRecipes does what the pages of docs/recipes say, with the networks that they are for.
func TestRecipes(t *testing.T) {
	if os.Getenv(transportEnv) != "" {
		t.Skip("the pages say which transport it is")
	}
	// TestHomeBesideRouter follows pi, TestFloatingAssigns and others of internal/debian run the script of floating-ip,
	// and nobody follows other-systems, which says so.
	tried := map[string]bool{"README": true, "pi": true, "other-systems": true, "floating-ip": true}
	for name, recipes := range map[string][]recipe{"vps": providers, "cloud": clouds, "home": append(services, homes...)} {
		for _, c := range recipes {
			for _, page := range strings.Fields(c.pages) {
				tried[page] = true
			}
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cook(t, lab.Options{Prefix: "recipes-" + name + "-", Cloud: name == "cloud"}, recipes)
		})
	}
	pages, err := filepath.Glob(recipesDir + "/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		if !tried[strings.TrimSuffix(filepath.Base(page), ".md")] {
			t.Errorf("no test for %s", page)
		}
	}
}
