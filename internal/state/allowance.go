package state

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// Allowance is our rule in a chain of iptables(8). ufw and Docker make these chains drop unknown packets, and our own
// table cannot overrule that.
type Allowance struct {
	Program string // of IPTablesPrograms
	Chain   string // FORWARD or INPUT, or rawChain
	Match   string // as iptables -S prints it
}

// AllowanceComment marks an iptables rule as ours.
const AllowanceComment = "ds4relay"

// IPTablesPrograms are the programs whose tables may drop packets. Those with a suffix are about the kind of tables
// that iptables and ip6tables are not about on a machine.
var IPTablesPrograms = []string{"ip6tables", "ip6tables-nft", "ip6tables-legacy", "iptables", "iptables-nft",
	"iptables-legacy"}

// IPTables says which of the programs have a table `filter` in the kernel, and by their names with RawDrops, whose
// table `raw` has rules that drop packets: Docker has some so that only its own ports lead to containers.
type IPTables map[string]bool

// RawDrops is behind a program's name in IPTables.
const RawDrops = " raw"

// rawChain is the chain of the table raw; no other table that allowances are in has it.
const rawChain = "PREROUTING"

// allowances are the rules that a relay's tunnel needs on a VPS: for packets from the other end, for forwarded packets
// and answers to the home, and for packets from the home. (Our own table lets only configured hosts of the home pass.)
func allowances(link Link, tables IPTables) []Allowance {
	var wanted []Allowance
	for _, program := range IPTablesPrograms {
		switch {
		case !tables[program]:
		case forIPv6(program):
			wanted = append(wanted, openings(link, program, transport.IPv6)...)
		default:
			wanted = append(append(wanted, openings(link, program, transport.IPv4)...),
				Allowance{program, "FORWARD", fmt.Sprintf("-o %s -m conntrack --ctstate RELATED,ESTABLISHED,DNAT",
					link.Name)},
				Allowance{program, "FORWARD", "-i " + link.Name})
		}
	}
	return wanted
}

// HomeNeeds are what a tunnel needs at home besides what it needs on a VPS: for a host that is this machine itself, and
// for hosts' own connections.
type HomeNeeds struct{ Self, Opens bool }

// homeNeeds returns those of a router's relay; self are the hosts that are this machine.
func homeNeeds(r *config.Relay, self map[netip.Addr]bool) HomeNeeds {
	return HomeNeeds{slices.ContainsFunc(hosts(r), func(host netip.Addr) bool { return self[host] }),
		len(egressHosts(r)) > 0}
}

// homeAllowances are the rules that a tunnel needs at home. Our own table lets only packets for the forwards come out
// of the tunnel, and only marked packets are routed into it.
func homeAllowances(link Link, tables IPTables, needs HomeNeeds) []Allowance {
	wanted := allowances(link, tables)
	for _, program := range IPTablesPrograms {
		in := "-i " + link.Name
		if tables[program] && needs.Self && !forIPv6(program) {
			wanted = append(wanted, Allowance{program, "INPUT", in})
		}
		if tables[program] && needs.Opens && !forIPv6(program) {
			wanted = append(wanted, Allowance{program, "FORWARD", "-o " + link.Name + " -m conntrack --ctstate NEW"})
		}
		if tables[program+RawDrops] {
			wanted = append(wanted, Allowance{program, rawChain, in})
		}
	}
	return wanted
}

// openings are the rules for packets of the tunnel itself, of one family.
func openings(link Link, program string, family transport.Family) (wanted []Allowance) {
	for _, opening := range link.Tunnel.Openings() {
		if opening.Family == family {
			_, match := opening.IPTables()
			wanted = append(wanted, Allowance{program, "INPUT", match})
		}
	}
	return wanted
}

func forIPv6(program string) bool { return strings.HasPrefix(program, "ip6") }

// ParseAllowances reads the output of `PROGRAM -S CHAIN` and returns the rules with our comment that could be ours.
func ParseAllowances(program, listing string) []Allowance {
	var found []Allowance
	for line := range strings.Lines(listing) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "-A" || !strings.Contains(line, "--comment "+AllowanceComment+" ") {
			continue
		}
		var match []string
		target := ""
		for i := 2; i < len(words); i++ {
			switch {
			case words[i] == "-j" && i+1 < len(words):
				target = words[i+1]
				i++
			case words[i] == "--comment":
				i++
			case words[i] == "-m" && i+1 < len(words) && words[i+1] == "comment":
				i++
			case words[i] == "-p" && i+1 < len(words): // by the name that /etc/protocols has, if it is there
				number := "4"
				if words[i+1] == "udp" {
					number = "17"
				}
				match = append(match, "-p", number)
				i++
			case words[i] == "-m" && i+1 < len(words) && words[i+1] == "udp":
				i++
			default:
				match = append(match, words[i])
			}
		}
		a := Allowance{program, words[1], strings.Join(match, " ")}
		if target == "ACCEPT" && a.ours() {
			found = append(found, a)
		}
	}
	return found
}

// ours reports whether allowances could have made the rule, for a link that may be gone: a user's own rule may have our
// comment too.
func (a Allowance) ours() bool {
	words := strings.Fields(a.Match)
	at := func(i int) string {
		if i < len(words) {
			return words[i]
		}
		return ""
	}
	link := Link{Name: at(1), Tunnel: transport.IPIP6{}}
	if port, err := strconv.ParseUint(at(3), 10, 16); a.Chain == "INPUT" && at(2) == "--dport" && err == nil {
		link.Tunnel = transport.WireGuard{ListenPort: uint16(port)}
	} else if forIPv6(a.Program) {
		remote, err := netip.ParsePrefix(at(1))
		local, localErr := netip.ParsePrefix(at(3))
		if err != nil || localErr != nil {
			return false
		}
		link.Tunnel = transport.IPIP6{Remote: remote.Addr(), Local: local.Addr()}
	}
	return slices.Contains(homeAllowances(link, IPTables{a.Program: true, a.Program + RawDrops: !forIPv6(a.Program)},
		HomeNeeds{true, true}), a)
}

// Arguments returns the program's arguments, with the verb -I or -D.
func (a Allowance) Arguments(verb string) []string {
	arguments := append([]string{"-w", verb, a.Chain}, strings.Fields(a.Match)...)
	if a.Chain == rawChain {
		arguments = append([]string{"-t", "raw"}, arguments...)
	}
	return append(arguments, "-m", "comment", "--comment", AllowanceComment, "-j", "ACCEPT")
}

type (
	// AddAllowance inserts a rule at the top of its chain.
	AddAllowance struct{ Allowance Allowance }
	// DelAllowance removes it.
	DelAllowance struct{ Allowance Allowance }
)

// Commands implements Step with iptables(8).
func (s AddAllowance) Commands() []string {
	return []string{s.Allowance.Program + " " + strings.Join(s.Allowance.Arguments("-I"), " ")}
}

// Undo implements Step.
func (s AddAllowance) Undo() []Step { return []Step{DelAllowance(s)} }

// Commands implements Step with iptables(8).
func (s DelAllowance) Commands() []string {
	return []string{s.Allowance.Program + " " + strings.Join(s.Allowance.Arguments("-D"), " ")}
}

// Undo implements Step.
func (s DelAllowance) Undo() []Step { return []Step{AddAllowance(s)} }

func (p *planner) removeAllowances() {
	wanted := map[Allowance]int{} // a rule that is there twice, too, is one too many
	for _, allowance := range p.want.Allowances {
		wanted[allowance]++
	}
	for _, allowance := range p.have.Allowances {
		if wanted[allowance]--; wanted[allowance] < 0 {
			p.add(DelAllowance{allowance})
		}
	}
}

func (p *planner) addAllowances() {
	for _, allowance := range missing(p.have.Allowances, p.want.Allowances) {
		p.add(AddAllowance{allowance})
	}
}

// DropChain is a chain that somebody else made with nft and that drops what none of its rules accepts.
type DropChain struct {
	Family, Table, Name string
	Hook                string // input or forward
	Text                string // its table, as nft lists it
}

// sees reports whether packets of a family come through the chain.
func (c DropChain) sees(family transport.Family) bool {
	return c.Family == "inet" || c.Family == "ip6" == (family == transport.IPv6)
}

// mentions reports whether the chain's table seems to let an opening of the tunnel in.
func (c DropChain) mentions(link Link, opening transport.Opening) bool {
	if opening.Port != 0 {
		for line := range strings.Lines(c.Text) {
			numbers := strings.FieldsFunc(line, func(r rune) bool { return r < '0' || r > '9' })
			if !strings.Contains(line, "tcp dport") && slices.Contains(numbers, strconv.Itoa(int(opening.Port))) {
				return true
			}
		}
		return false
	}
	return strings.Contains(c.Text, link.Remote().String()) || strings.Contains(c.Text, "l4proto ipencap accept") ||
		strings.Contains(c.Text, "l4proto 4 accept")
}

// Lacking returns the commands that would let a relay's tunnel through the chain. A table that mentions the tunnel is
// assumed to let it through. self are the hosts that are this machine.
func (c DropChain) Lacking(r *config.Relay, link Link, self map[netip.Addr]bool) []string {
	add := fmt.Sprintf("nft insert rule %s %s %s ", c.Family, c.Table, c.Name)
	knows := strings.Contains(c.Text, strconv.Quote(link.Name)) ||
		strings.Contains(c.Text, fmt.Sprintf("ifgroup %d ", Group))
	out := fmt.Sprintf("%siifname %q accept", add, link.Name)
	needs := HomeNeeds{}
	if r.Role == config.Router {
		needs = homeNeeds(r, self)
	}
	var commands []string
	switch {
	case c.Hook == "input":
		for _, opening := range link.Tunnel.Openings() {
			command := add + opening.Anywhere().Nft() + " accept"
			if c.sees(opening.Family) && !c.mentions(link, opening) && !slices.Contains(commands, command) {
				commands = append(commands, command)
			}
		}
		if needs.Self && !knows && c.Family != "ip6" {
			commands = append(commands, out)
		}
	case c.Hook != "forward" || c.Family == "ip6" || knows:
	case needs.Opens:
		commands = []string{out, fmt.Sprintf("%soifname %q accept", add, link.Name)}
	default:
		commands = []string{out, fmt.Sprintf("%soifname %q ct status dnat accept", add, link.Name),
			fmt.Sprintf("%soifname %q ct state established,related accept", add, link.Name)}
		if r.Role == config.Router {
			commands = slices.Delete(commands, 1, 2)
		}
	}
	return commands
}
