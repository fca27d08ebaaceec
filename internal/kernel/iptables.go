//go:build !openwrt

package kernel

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/program"
	"github.com/ds4relay/ds4relay/internal/state"
)

// iptablesChains are the chains that may contain our rules, by program.
var iptablesChains = []struct{ program, table, chain string }{{"iptables", "filter", "FORWARD"},
	{"iptables", "filter", "INPUT"}, {"iptables", "raw", "PREROUTING"}, {"ip6tables", "filter", "INPUT"}}

// backend is one of the two kinds of tables that iptables(8) may be about; both can be there at once, and a packet has
// to pass both.
type backend struct {
	program string // iptables, or by its name with a suffix, if iptables is the other kind
	family  uint8
	names   string // the file that lists the tables of the older kind, ip_tables; "": nf_tables
}

// backends returns both kinds, for iptables or ip6tables.
func backends(program string) []backend {
	family, names := uint8(unix.NFPROTO_IPV4), "/proc/thread-self/net/ip_tables_names"
	if program == "ip6tables" {
		family, names = unix.NFPROTO_IPV6, "/proc/thread-self/net/ip6_tables_names"
	}
	nft, legacy := program, program+"-legacy"
	// Debian's alternatives lead to the program that is called by this name.
	if path, err := exec.LookPath(program); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil && strings.Contains(filepath.Base(path), "legacy") {
			nft, legacy = program+"-nft", program
		}
	}
	return []backend{{nft, family, ""}, {legacy, family, names}}
}

// has reports whether a table exists in the kernel, without running the program; of nf_tables it must have one of the
// chains, otherwise another program has made it.
func (b backend) has(table string, chains ...string) (bool, error) {
	if b.names != "" {
		names, err := os.ReadFile(b.names)
		return err == nil && slices.Contains(strings.Fields(string(names)), table), nil
	}
	have, err := nftDump(unix.NFT_MSG_GETCHAIN, b.family)
	if isErrno(err, unix.EOPNOTSUPP, unix.EINVAL, unix.EPROTONOSUPPORT) {
		return false, nil // a kernel without nf_tables
	}
	return slices.ContainsFunc(have, func(c map[uint16][]byte) bool {
		return text(c[unix.NFTA_CHAIN_TABLE]) == table && slices.Contains(chains, text(c[unix.NFTA_CHAIN_NAME]))
	}), err
}

// iptablesRules returns the rules of the chains that may contain ours, by program, if iptables is in use. A table that
// iptables cannot list was made with nft.
func iptablesRules() (map[string]string, error) {
	rules := map[string]string{}
	for _, c := range iptablesChains {
		for _, b := range backends(c.program) {
			if _, err := exec.LookPath(b.program); err != nil {
				continue
			}
			used, err := b.has(c.table, c.chain)
			if err != nil {
				return nil, message.New("list nft chains: %v", err)
			}
			if !used {
				continue
			}
			listing, err := iptables(b.program, "-t", c.table, "-w", "-S", c.chain)
			var limit *program.LimitError
			if errors.As(err, &limit) {
				return nil, err // unknown whether there are rules of ours
			}
			if err == nil {
				rules[b.program] += listing
			}
		}
	}
	return rules, nil
}

// iptablesInUse returns the programs whose chains may need our rules.
func iptablesInUse() (state.IPTables, error) {
	rules, err := iptablesRules()
	tables := state.IPTables{}
	for program, listing := range rules {
		for line := range strings.Lines(listing) {
			words := strings.Fields(line)
			raw := len(words) > 1 && words[1] == "PREROUTING"
			tables[program] = tables[program] || !raw
			if raw && strings.HasSuffix(strings.TrimSpace(line), "-j DROP") {
				tables[program+state.RawDrops] = true
			}
		}
	}
	return tables, err
}

// observeAllowances lists our rules in chains of iptables.
func observeAllowances(o *state.Observed) error {
	rules, err := iptablesRules()
	for _, program := range state.IPTablesPrograms {
		o.Allowances = append(o.Allowances, state.ParseAllowances(program, rules[program])...)
	}
	return err
}

func changeAllowance(a state.Allowance, verb string) error {
	_, err := iptables(a.Program, a.Arguments(verb)...)
	return err
}

// iptablesTime limits one call of iptables, which waits (-w) for the lock: ufw and Docker hold it for seconds.
const iptablesTime = 30 * time.Second

func iptables(name string, arguments ...string) (string, error) {
	command := program.Command{Name: name, Args: arguments, Limit: iptablesTime, EndWithUs: true}
	out, problems, err := command.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = message.New("%s: %s", name, problems)
	}
	return out, err
}
