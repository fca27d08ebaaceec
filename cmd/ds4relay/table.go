package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
)

// command is one command of the program. The usage, `help COMMAND`, the manual page, docs/commands.md and the shells'
// completions are generated from these.
type command struct {
	name     string
	args     string // as in the usage; the shells complete RELAY, FILE and COMMAND
	summary  string // the end of the sentence "it is there to …"
	internal bool   // called by other programs, and not in the general help
	// setup defines the flags. It returns the function that is called with the other arguments after the flags were
	// parsed.
	setup func(*app, *flag.FlagSet) func(args []string) error
}

// commands are in the order of the general help.
func commands() []command {
	return slices.Concat([]command{
		{name: "up", args: "[RELAY…]", setup: (*app).up,
			summary: "make the kernel match the configuration, for all enabled relays or the named ones"},
		{name: "down", args: "[RELAY…]", summary: "remove what up made", setup: (*app).down},
		{name: "reload", args: "[RELAY…]", summary: reloadSummary, setup: (*app).reload},
		{name: "plan", args: "[RELAY…]", setup: (*app).plan,
			summary: "print what up would do, as commands that a person could type"},
		{name: "status", args: "[RELAY…]", summary: "show the relays, and what differs from the configuration",
			setup: (*app).status},
		{name: "doctor", args: "[RELAY…]", summary: "find out why a relay does not work, and what to do",
			setup: (*app).doctor},
		{name: "trace", args: "[CLIENT]", summary: "follow one connection through this machine, packet by packet",
			setup: (*app).trace},
		{name: "watch", summary: "look once whether all is well: follow names and prefixes, mend, " +
			"listen for the other ends",
			setup: (*app).watch},
		{name: "check", args: "[FILE]", summary: "report every mistake in the configuration",
			setup: bare((*app).check)},
		{name: "export", args: "[RELAY]", summary: "print the configuration of the other end", setup: (*app).export},
		{name: "genkey", args: "[RELAY]", setup: (*app).genkey,
			summary: "make this end's private key for transport wireguard, and print its public half"},
		{name: "pubkey", args: "RELAY", summary: "print the public half of this end's private key",
			setup: bare((*app).pubkey)},
		{name: "join", args: "[< INVITATION]", setup: (*app).join,
			summary: "pair this home with the VPS that has printed an invitation"},
		{name: "ping", args: "HOST4 HOST6", setup: (*app).ping,
			summary: "compare the round trip over IPv4, through the relay, with the one over IPv6"},
	}, hostCommands(), []command{
		{name: "version", summary: "print the version", setup: bare((*app).version)},
		{name: "help", args: "[COMMAND]", summary: "explain a command", setup: bare((*app).help)},

		{name: "push", internal: true, summary: "tell the VPSs of this home's relays what they do not know yet",
			setup: (*app).push},
		{name: "service", args: "FILE", internal: true, setup: bare((*app).service),
			summary: "bring OpenWrt's netifd and firewall up to date after an event of an interface"},
		{name: "firewall", internal: true, summary: "print the rules that OpenWrt's firewall needs",
			setup: (*app).firewall},
		{name: "netifd", internal: true, summary: "make the tunnels interfaces of OpenWrt's netifd",
			setup: bare((*app).netifd)},
		{name: "killswitch", internal: true, setup: bare((*app).killswitch),
			summary: "keep hosts with a kill switch from leaving, before OpenWrt's network starts"},
		{name: "rpcd", args: "list|call METHOD", internal: true, summary: "answer on OpenWrt's ubus",
			setup: bare((*app).rpcd)},
	})
}

// bare is the setup of a command without flags.
func bare(run func(*app, []string) error) func(*app, *flag.FlagSet) func([]string) error {
	return func(a *app, _ *flag.FlagSet) func([]string) error {
		return func(args []string) error { return run(a, args) }
	}
}

// find returns nil if there is no such command.
func find(name string) *command {
	for _, c := range commands() {
		if c.name == name {
			return &c
		}
	}
	return nil
}

// unknown returns the error about a command that does not exist. It suggests the nearest one.
func unknown(name string) error {
	const most = 2 // wrong letters; commands are short
	nearest, least := "", most+1
	for _, c := range commands() {
		if n := distance(name, c.name); n < least && n < len(c.name) && !c.internal {
			nearest, least = c.name, n
		}
	}
	hint := "see: ds4relay help"
	if nearest != "" {
		hint = "did you mean: ds4relay " + nearest
	}
	return usageError(fmt.Sprintf("unknown command %q; %s", name, hint))
}

// distance is the number of bytes to insert, delete, replace or swap with their neighbour to turn a into b (optimal
// string alignment).
func distance(a, b string) int {
	var before []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next := make([]int, len(b)+1)
		next[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next[j+1] = min(row[j+1]+1, next[j]+1, row[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}

// flags returns a command's flags, bound to the app, and the function that runs the command.
func (c *command) flags(a *app) (f *flag.FlagSet, run func([]string) error) {
	f = flag.NewFlagSet(c.name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	return f, c.setup(a, f)
}

// call runs a command with the words after its name.
func (a *app) call(c *command, args []string) error {
	f, run := c.flags(a)
	rest, err := parse(f, args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		a.explain(c)
		return nil
	case err != nil:
		return err
	case len(rest) > 0 && c.args == "":
		return usageError(fmt.Sprintf("%s takes no arguments; see: ds4relay %s --help", c.name, c.name))
	}
	return run(rest)
}

// option is a flag as users type it.
type option struct {
	name  string // with its hyphens
	value string // what its argument is called; "" where it has none
	usage string
}

// options returns the flags of a set that have a help text; the others are abbreviations.
func options(f *flag.FlagSet) []option {
	var list []option
	f.VisitAll(func(f *flag.Flag) {
		value, usage := flag.UnquoteUsage(f)
		hyphens := "--"
		if len(f.Name) == 1 {
			hyphens = "-"
		}
		if usage != "" {
			list = append(list, option{hyphens + f.Name, value, usage})
		}
	})
	return list
}

// synopsis shows the flags, the command (if any) and its arguments.
func synopsis(f *flag.FlagSet, c *command) string {
	words := []string{"ds4relay"}
	if c != nil {
		words = append(words, c.name)
	}
	for _, o := range options(f) {
		words = append(words, "["+strings.TrimSpace(o.name+" "+o.value)+"]")
	}
	switch {
	case c == nil:
		words = append(words, "COMMAND")
	case c.args != "":
		words = append(words, c.args)
	}
	return strings.Join(words, " ")
}

// usage is the general help.
func usage() string {
	var b strings.Builder
	f := (&app{}).flags()
	b.WriteString("ds4relay gives a home behind DS-Lite or CGNAT a public IPv4 address, through a VPS.\n\n" +
		"usage: " + synopsis(f, nil) + "\n\n")
	for _, c := range commands() {
		if !c.internal {
			fmt.Fprintf(&b, "  %-8s %s\n", c.name, c.summary)
		}
	}
	b.WriteByte('\n')
	writeOptions(&b, f)
	b.WriteString("\n`ds4relay help COMMAND` explains one.\n\n" +
		"exit status: 0 done, 1 failed and rolled back, 2 bad usage or configuration, 3 status: something differs,\n" +
		"4 some relays are up, others could not be, 5 status: another end is silent\n")
	return b.String()
}

func writeOptions(w io.Writer, f *flag.FlagSet) {
	for _, o := range options(f) {
		fmt.Fprintf(w, "  %-15s %s\n", strings.TrimSpace(o.name+" "+o.value), o.usage)
	}
}

// help explains a command, or lists all.
func (a *app) help(args []string) error {
	switch len(args) {
	case 0:
		fmt.Fprint(a.stdout, usage())
		return nil
	case 1:
		if c := find(args[0]); c != nil {
			a.explain(c)
			return nil
		}
		return unknown(args[0])
	}
	return usageError("help takes one command")
}

// explain prints the help of one command.
func (a *app) explain(c *command) {
	f, _ := c.flags(&app{})
	fmt.Fprintf(a.stdout, "usage: %s\n\n%s\n", synopsis(f, c), sentence(c.summary))
	if len(options(f)) > 0 {
		fmt.Fprintln(a.stdout)
		writeOptions(a.stdout, f)
	}
	fmt.Fprint(a.stdout, details(c.name))
}

// sentence begins with a capital letter and ends with a full stop.
func sentence(text string) string { return strings.ToUpper(text[:1]) + text[1:] + "." }
