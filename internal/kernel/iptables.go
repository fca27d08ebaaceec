//go:build !openwrt

package kernel

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/program"
	"github.com/ds4relay/ds4relay/internal/state"
)

// iptablesChains are the chains that may contain our rules, by program.
var iptablesChains = []struct {
	program, family, legacy, chain string
}{
	{"iptables", "ip", "/proc/net/ip_tables_names", "FORWARD"},
	{"ip6tables", "ip6", "/proc/net/ip6_tables_names", "INPUT"},
}

// hasFilter reports whether a program's table `filter` exists in the kernel, in nf_tables or in the older ip_tables,
// without running the program.
func hasFilter(family, legacy, chain string) (bool, error) {
	if names, err := os.ReadFile(legacy); err == nil && bytes.Contains(names, []byte("filter")) {
		return true, nil
	}
	chains, err := nftDump(unix.NFT_MSG_GETCHAIN, families[family])
	if isErrno(err, unix.EOPNOTSUPP, unix.EINVAL, unix.EPROTONOSUPPORT) {
		return false, nil // a kernel without nf_tables
	}
	return slices.ContainsFunc(chains, func(c map[uint16][]byte) bool {
		return text(c[unix.NFTA_CHAIN_TABLE]) == "filter" && text(c[unix.NFTA_CHAIN_NAME]) == chain
	}), err
}

// iptablesRules returns the rules of the chains that may contain ours, by program, if iptables is in use. A table
// `filter` that iptables cannot list was made with nft.
func iptablesRules() (map[string]string, error) {
	rules := map[string]string{}
	for _, c := range iptablesChains {
		if _, err := exec.LookPath(c.program); err != nil {
			continue
		}
		used, err := hasFilter(c.family, c.legacy, c.chain)
		if err != nil {
			return nil, message.New("list nft chains: %v", err)
		}
		if !used {
			continue
		}
		listing, err := iptables(c.program, "-w", "-S", c.chain)
		var limit *program.LimitError
		if errors.As(err, &limit) {
			return nil, err // unknown whether there are rules of ours
		}
		if err == nil {
			rules[c.program] = listing
		}
	}
	return rules, nil
}

// iptablesInUse returns the programs whose chains may need our rules.
func iptablesInUse() (state.IPTables, error) {
	rules, err := iptablesRules()
	tables := state.IPTables{}
	for program := range rules {
		tables[program] = true
	}
	return tables, err
}

// observeAllowances lists our rules in chains of iptables.
func observeAllowances(o *state.Observed) error {
	rules, err := iptablesRules()
	for _, c := range iptablesChains {
		o.Allowances = append(o.Allowances, state.ParseAllowances(c.program, rules[c.program])...)
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
