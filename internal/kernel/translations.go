//go:build !openwrt

package kernel

import (
	"os/exec"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/state"
)

// Translations returns other programs' rules that translate IPv4 addresses: those of iptables, in nf_tables and in the
// older ip_tables, and those of nft.
func Translations() ([]state.Translation, error) {
	var found []state.Translation
	programs, err := natPrograms()
	if err != nil {
		return nil, err
	}
	for _, program := range programs {
		if listing, err := iptables(program, "-w", "-t", "nat", "-S"); err == nil {
			found = append(found, state.IPTablesTranslations(program, listing)...)
		}
	}
	for _, family := range []string{"ip", "inet"} {
		chains, err := nftDump(unix.NFT_MSG_GETCHAIN, natFamilies[family])
		if isErrno(err, unix.EOPNOTSUPP, unix.EINVAL, unix.EPROTONOSUPPORT) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		var read []string
		for _, chain := range chains {
			table := text(chain[unix.NFTA_CHAIN_TABLE])
			if text(chain[unix.NFTA_CHAIN_TYPE]) != "nat" || strings.HasPrefix(table, state.TableName) ||
				family == "ip" && table == "nat" && len(programs) > 0 || slices.Contains(read, table) {
				continue
			}
			read = append(read, table)
			if listing, err := Nft("", "list", "table", family, table); err == nil {
				found = append(found, state.NftTranslations(family, table, listing)...)
			}
		}
	}
	return found, nil
}

var natFamilies = map[string]uint8{"ip": unix.NFPROTO_IPV4, "inet": unix.NFPROTO_INET}

// natPrograms returns the programs of iptables that have a table nat in the kernel.
func natPrograms() ([]string, error) {
	var programs []string
	for _, b := range backends("iptables") {
		used, err := b.has("nat", "PREROUTING", "POSTROUTING")
		if err != nil {
			return nil, err
		}
		if _, err := exec.LookPath(b.program); err == nil && used {
			programs = append(programs, b.program)
		}
	}
	return programs, nil
}
