//go:build !openwrt

package main

import "strings"

// detail is the help of a command beyond the table; the manual page and docs/commands.md contain it too.
type detail struct {
	text     string // paragraphs, separated by empty lines; `commands` are in backquotes
	examples []example
}

// example is a command line, and what it does.
type example struct{ line, meaning string }

// details returns the second part of a command's help.
func details(name string) string {
	d, ok := manual[name]
	if !ok {
		return ""
	}
	var b strings.Builder
	b.WriteString("\n" + wrap(d.text, helpWidth))
	if len(d.examples) > 0 {
		b.WriteString("\nexamples:\n")
	}
	width := 0
	for _, e := range d.examples {
		width = max(width, len([]rune(e.line)))
	}
	for _, e := range d.examples {
		b.WriteString("  " + e.line + strings.Repeat(" ", width-len([]rune(e.line))) + "  " + e.meaning + "\n")
	}
	return b.String()
}

// helpWidth is the width of the help in characters.
const helpWidth = 80

// wrap breaks the lines of paragraphs.
func wrap(text string, width int) string {
	var b strings.Builder
	for i, paragraph := range strings.Split(text, "\n\n") {
		if i > 0 {
			b.WriteString("\n")
		}
		column := 0
		for _, word := range strings.Fields(paragraph) {
			n := len([]rune(word))
			switch {
			case column > 0 && column+1+n > width:
				b.WriteByte('\n')
				column = 0
			case column > 0:
				b.WriteByte(' ')
				column++
			}
			b.WriteString(word)
			column += n
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// manual has every command that is not internal.
var manual = map[string]detail{
	"up": {
		"With names, these relays are brought up beside those that are up already. Each step is printed as the " +
			"command that a person would type, and a ruleset as its size; `-v` prints all of it.\n\n" +
			"A second `up` changes nothing, and open connections stay open. If a step fails, it and all steps " +
			"before it are undone. Relays do not depend on each other: if one cannot be brought up, the others " +
			"still are (exit status 4).\n\nA relay that would hand over the port of the ssh session in which this " +
			"is typed, or of another tunnel that a relay runs in, is refused, unless `--force` is given. " +
			"`--running` does nothing if no relay is up.",
		[]example{
			{"ds4relay up", "bring up every enabled relay"},
			{"ds4relay up home", "bring up one, even if it is not enabled"},
			{"ds4relay -c /tmp/new up -v", "try another file, and show the rulesets"},
		}},
	"down": {
		"Nothing else is changed. Without names everything that ds4relay installed is removed, whatever the " +
			"configuration says now. A relay that is down stays down until the next `up`, reload or boot.",
		[]example{
			{"ds4relay down home", "take one relay down; the others stay"},
		}},
	"reload": {
		"Use it after a change of the configuration: only what differs is changed. If the proxies' service runs, " +
			"it reads the configuration again; a proxy's open sessions stay open.",
		[]example{
			{"ds4relay reload", "after a change of /etc/config/ds4relay"},
		}},
	"plan": {"Nothing is changed. The lines are a shell script: typed into a machine without ds4relay they do " +
		"the same.", []example{
		{"ds4relay plan", "what up would do now"},
		{"ds4relay plan --down", "what down would do"},
	}},
	"status": {
		"Relays with their endpoints, traffic, forwards and open connections; then what differs from the " +
			"configuration, and other programs that get in the way. With names, only these relays, and what " +
			"`up` with the same names would change.\n\n" +
			"`last heard` says when something last came from the other end. The run of each minute (`ds4relay " +
			"watch`) sends a test packet if nothing else comes, and from a home over IPv6 always. On a router, " +
			"`host` says whether a host at home answers ARP: up, missing or unknown.\n\n" +
			"Exit status 3: something differs. 5: nothing differs, but another end is silent. Without root the " +
			"kernel shows tunnels, addresses, routes, rules and " +
			"traffic, but neither nft's tables nor open connections; `status` says so, and the exit status " +
			"is 1 if nothing else differs.",
		[]example{
			{"ds4relay status home", "one relay"},
			{"ds4relay status --watch", "again every two seconds, until Ctrl-C"},
			{"ds4relay status --json", "for programs"},
		}},
	"announce": {
		"For relays with option standby: keepalived runs it when the public address has come to this VPS. A packet " +
			"goes into each tunnel for each host at home, three times within half a second: what the hosts answer " +
			"goes through this VPS from then on, also where the client is only waiting. Otherwise a connection " +
			"follows the next packet of its client. The run of each minute sends one, too, on the VPS that has the " +
			"address.",
		[]example{
			{"ds4relay announce", "all relays with standby '1'"},
		}},
	"forget": {
		"The keys of the home and of an open invitation are removed, its ssh sessions are ended, and what it has said " +
			"and pushed is gone. The relay waits for a home then. Other homes go on.",
		[]example{
			{"ds4relay forget home", "nobody may push forwards for this relay any more"},
		}},
	"metrics": {
		"The format is OpenMetrics, or with `--format prometheus` the text format 0.0.4 that the textfile collector " +
			"of prometheus-node-exporter reads. The timer ds4relay-metrics writes it there, if the collector's " +
			"directory exists. Disabled relays are left out. If the configuration has mistakes, the output says so " +
			"and has nothing else (exit status 0).",
		[]example{
			{"ds4relay metrics", "print OpenMetrics"},
			{"ds4relay metrics --format prometheus --output /var/lib/prometheus/node-exporter/ds4relay.prom",
				"hand it to node exporter"},
		}},
	"doctor": {
		"It runs its checks in order, from the bottom up, and prints what it found and what to do. It sends test " +
			"packets through the tunnel, and some that seem to come from a client. Exit status 1: a check has " +
			"failed.", []example{
			{"ds4relay doctor", "all enabled relays"},
			{"ds4relay -q doctor home", "only what is wrong with one"},
		}},
	"trace": {
		"It waits for the next connection, of one client if its IPv4 address is given, and prints a line for each " +
			"step of a packet on this machine's devices: in, into the tunnel, in IPv6 or UDP, out of it, and so " +
			"on; then where it stopped.",
		[]example{
			{"ds4relay trace", "the next connection of anybody"},
			{"ds4relay trace 203.0.113.10 -t 60", "the next one of a client, within a minute"},
		}},
	"watch": {
		"On OpenWrt the service calls it every minute, elsewhere a timer can.\n\n" +
			"It listens for the other ends, which `status` then shows: it sends a test packet through the tunnel if " +
			"nothing has come since the run before, and from a home over IPv6 always. If the DNS name of another end " +
			"(option peeraddr) has a new address, or this end another prefix (ip6addr auto), the tunnel moves there; " +
			"open connections stay open. Relays that an earlier `up` could not bring up are tried again.\n\n" +
			"What another program has removed or changed is put back. If the same happens in five runs in a row, it " +
			"is put back every ten minutes only. Relays that you took down stay down, and a file that was edited " +
			"since the last `up` or `reload` is not applied.\n\n" +
			"With `-q` an error that the run before has printed too is not printed again.\n\n" +
			"With `--stay` it stays and does that every minute; what other programs take away it puts back at once. " +
			"On Debian ds4relay-watch.service runs it. It ends when no relay is up any more.",
		nil},
	"check": {
		"Each mistake is printed with its line and with what is allowed. With a file, `check` judges the file alone. " +
			"Without one it reads the configuration of this machine, and also says what `up` would refuse here, why " +
			"nothing could arrive, and which other programs get in the way.\n\nExit status 2: the file has mistakes. " +
			"1: what the file says does not work on this machine.", []example{
			{"ds4relay check", "the configuration of this machine, and the machine"},
			{"ds4relay check /tmp/new", "a file alone"},
			{"ds4relay -c /tmp/new check", "a file, and this machine"},
		}},
	"export": {
		"The router at home gets the VPS's output, and the VPS gets the router's. The name may be left out if the " +
			"configuration has only one relay.",
		[]example{
			{"ds4relay export home >home.conf", "the file for the other end"},
		}},
	"genkey": {
		"The key goes into /etc/ds4relay/keys/RELAY, or into the file that option private_key_file names. Only root " +
			"may read it, and it never leaves this machine. An existing key is not overwritten.\n\n" +
			"`genkey --preshared` prints a key for option preshared_key_file; copy it to both ends by a safe way.",
		[]example{
			{"ds4relay genkey home", "make a key, and print what the other end has to know"},
			{"(umask 077; ds4relay genkey --preshared >/etc/ds4relay/keys/home.psk)", "make a preshared key"},
		}},
	"setup": {
		"It finds the public IPv4 address (also one that a cloud translates), the IPv6 address, the ssh port, and the " +
			"programs that listen for clients: their ports stay on the VPS (`list keep`). Then it shows what it would " +
			"write, asks once, writes /etc/config/ds4relay, starts the service, and prints an invitation for the " +
			"home: one line of text, and on a terminal with room for it a QR code.\n\nIt asks for the public IPv4 " +
			"address if the VPS has several, or if no device has one and the cloud's metadata service " +
			"(169.254.169.254) does not know it. Without a terminal and without `--yes` it only shows what it would " +
			"write.\n\nWhat somebody has written stays: other relays and comments are kept, a relay that was written " +
			"by hand is left alone, and a copy of the first file is kept as /etc/ds4relay/ds4relay.before. A second " +
			"run has nothing to do, or shows what has changed; after another address, port or transport it says that " +
			"the home must join again, and prints an invitation. If a step fails, everything is as it was.\n\n" +
			"The transport is wireguard, since it passes any home's firewall and NAT and needs no IPv6 there; " +
			"`--transport ipip6` is faster where both ends have IPv6 and nothing on the way filters IP protocol 4.\n\n" +
			"With `--standby` two VPSs have one public address by turns, as keepalived moves it. Run it on both with " +
			"the same `--ipaddr`; the address need not be on the VPS now. The invitation contains only the VPS's own " +
			"addresses, and the home joins both VPSs. For a further home, `--relay NAME --ipaddr ADDRESS` is enough.",
		[]example{
			{"ds4relay setup", "set up this VPS, and print an invitation"},
			{"ds4relay setup --yes --ipaddr 198.51.100.144", "without questions"},
			{"ds4relay setup --relay cabin", "add a second home"},
			{"ds4relay setup --standby --ipaddr 198.51.100.144", "on each of two VPSs with this address"},
		}},
	"invite": {
		"The invitation is good once, within 24 hours, for `join` at home, or for the page in LuCI. It contains a " +
			"key: keep it secret until it has been used. `invite` also prints the fingerprint of the VPS's ssh host " +
			"key, which the home shows before it joins. A home that has enrolled stays until another one uses the " +
			"invitation.\n\nThe relay must be enabled and have a `list allow`, as `ds4relay setup` makes it. With only " +
			"one such relay it need not be named.",
		[]example{
			{"ds4relay invite home", "let the home enrol, or another one in its place"},
		}},
	"pubkey": {
		"The other end needs it in option public_key.",
		[]example{
			{"ds4relay pubkey home", "the public half of /etc/ds4relay/keys/home"},
		}},
	"join": {
		"`ds4relay setup` and `ds4relay invite` on the VPS print an invitation. `join` asks for it, or reads standard " +
			"input; it is never an argument, because every user may see those. It shows the VPS's addresses and the " +
			"fingerprint of its ssh host key, and asks once whether that is the right VPS.\n\n" +
			"Then it makes this home's keys, gives their public halves to the VPS by the ssh client that is there " +
			"(dropbear's or OpenSSH's), writes the relay into the configuration, starts the service, and runs the " +
			"checks of `doctor`. From then on the VPS is told of each change here. If the VPS does not take this " +
			"home, the keys stay for the next try, and nothing else has changed.\n\nAn invitation of another VPS for a " +
			"relay that is here already takes that VPS's place; the forwards stay. `join` says so before it asks, and " +
			"with `--yes` does it only with `--replace`. If both have one public address by turns (`setup --standby`), " +
			"each gets a relay of its own (home, home2) instead, and all forwards are for both.\n\nExit status 1: the " +
			"VPS has not taken this home, or a check has failed. 2: the invitation cannot be used, it would replace " +
			"another VPS, or the configuration has mistakes.",
		[]example{
			{"ds4relay join", "ask for the invitation, and for the first server"},
			{"ds4relay join --yes --host 192.168.1.210 --port tcp:443 <invitation", "ask nothing"},
		}},
	"ping": {"Both addresses belong to one server: the difference is what the path through the relay costs.\n\n" +
		"Exit status 1: an address has not answered, or, on the router or the VPS, the VPS itself has answered " +
		"instead of the home. Other machines cannot tell that.",
		[]example{
			{"ds4relay ping 198.51.100.1 2001:db8::1 -c 100", "send 100 packets over each"},
		}},
	"proxy": {
		"It listens on the addresses of the configuration's proxy sections, and needs no tunnel. On SIGHUP it reads " +
			"the configuration again. On SIGTERM it stops listening; open sessions get five seconds to finish, " +
			"or until a second SIGTERM.\n\n" +
			"`--status` is for everybody, and exits with status 3 if a proxy does not run or the configuration has " +
			"changed. `--reload` fails if the configuration has a mistake; open sessions stay open, even those of a " +
			"removed proxy. With `--upgrade` and `--take-over` no client is refused, and the former process stays " +
			"until its last session has ended.",
		[]example{
			{"systemctl enable --now ds4relay-proxy", "run the proxies at each boot"},
			{"ds4relay proxy --status", "show them"},
		}},
	"version": {"It prints the version, the commit that the program was built from (`-dirty` if files were changed), " +
		"the version of Go, and the kind of machine. The same as `ds4relay --version`.",
		[]example{{"ds4relay version", "ds4relay 0.1.0 (commit 1a2b3c4d5e6f, 2026-11-30), go1.26.8 linux/amd64"}}},
	"help": {"The same as `ds4relay COMMAND --help`.", nil},
}
