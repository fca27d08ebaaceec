//go:build !openwrt

package kernel

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/state"
)

// nfDrop is NF_DROP of linux/netfilter.h.
const nfDrop = 0

// hookNames are the hooks in which another table on a VPS may drop our packets (linux/netfilter.h).
var hookNames = map[uint32]string{unix.NF_INET_LOCAL_IN: "input", unix.NF_INET_FORWARD: "forward"}

// DropChains returns other programs' nft chains that drop what none of their rules accepts. The chains of iptables are
// left out, because we insert rules there.
func DropChains() ([]state.DropChain, error) {
	var found []state.DropChain
	for family, number := range map[string]uint8{"ip": unix.NFPROTO_IPV4, "ip6": unix.NFPROTO_IPV6,
		"inet": unix.NFPROTO_INET} {
		chains, err := nftDump(unix.NFT_MSG_GETCHAIN, number)
		if isErrno(err, unix.EOPNOTSUPP, unix.EINVAL, unix.EPROTONOSUPPORT) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		for _, chain := range chains {
			hook, err := attributes(chain[unix.NFTA_CHAIN_HOOK])
			policy := chain[unix.NFTA_CHAIN_POLICY]
			if err != nil || len(policy) != 4 || len(hook[unix.NFTA_HOOK_HOOKNUM]) != 4 ||
				binary.BigEndian.Uint32(policy) != nfDrop {
				continue
			}
			c := state.DropChain{Family: family, Table: text(chain[unix.NFTA_CHAIN_TABLE]),
				Name: text(chain[unix.NFTA_CHAIN_NAME]),
				Hook: hookNames[binary.BigEndian.Uint32(hook[unix.NFTA_HOOK_HOOKNUM])]}
			if c.Hook == "" || c.Table == state.TableName || c.Table == "filter" &&
				(c.Name == "FORWARD" || c.Name == "INPUT") {
				continue
			}
			if out, err := Nft("", "list", "table", c.Family, c.Table); err == nil {
				c.Text = out
			}
			found = append(found, c)
		}
	}
	return found, nil
}
