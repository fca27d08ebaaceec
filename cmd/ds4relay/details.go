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
			"is typed is refused, unless `--force` is given. `--running` does nothing if no relay is up.",
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
			"Exit status 3: something differs. Without root the kernel shows tunnels, addresses, routes, rules and " +
			"traffic, but neither nft's tables nor open connections; `status` says so, and the exit status " +
			"is 1 if nothing else differs.",
		[]example{
			{"ds4relay status home", "one relay"},
			{"ds4relay status --watch", "again every two seconds, until Ctrl-C"},
			{"ds4relay status --json", "for programs"},
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
			"step of a packet on this machine's devices: in, into the tunnel, in IPv6, out of the tunnel, and so " +
			"on; then where it stopped.",
		[]example{
			{"ds4relay trace", "the next connection of anybody"},
			{"ds4relay trace 203.0.113.10 -t 60", "the next one of a client, within a minute"},
		}},
	"watch": {
		"This is for a timer: the service on OpenWrt calls it every minute while a name is used (option peeraddr). " +
			"Open connections stay open. Relays that an earlier `up` could not bring up are tried again. A file that " +
			"was changed, and not applied yet, is not applied by it.\n\n" +
			"With `--stay` it stays, and does that every minute. Besides it puts back at once what other programs " +
			"take away from the relays that are up. On Debian ds4relay-watch.service runs it. It ends when no relay " +
			"is up any more.",
		nil},
	"check": {
		"Each mistake is printed with its line and with what is allowed. Without a file, `check` reads the " +
			"configuration of this machine, and also names other programs that get in the way. Exit status 2: there " +
			"are mistakes.", []example{
			{"ds4relay check", "the configuration of this machine"},
			{"ds4relay check /tmp/new", "a file"},
		}},
	"export": {
		"The router at home gets the VPS's output, and the VPS gets the router's. The name may be left out if the " +
			"configuration has only one relay.",
		[]example{
			{"ds4relay export home >home.conf", "the file for the other end"},
		}},
	"ping": {"Both addresses belong to one server: the difference is what the path through the relay costs.",
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
	"version": {"The same as `ds4relay --version`.", nil},
	"help":    {"The same as `ds4relay COMMAND --help`.", nil},
}
