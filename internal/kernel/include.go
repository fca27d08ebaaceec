//go:build !openwrt

package kernel

import (
	"os"
	"strings"

	"github.com/ds4relay/ds4relay/internal/state"
)

// includeFile can be included by the administrator's own nftables.conf: where that flushes every table, ours are then back in
// the same transaction, and no packet comes between.
const includeFile = "tables.nft"

// KeepTables notes the tables as they should be now; without tables there is no file.
func (k *Kernel) KeepTables(tables []state.Table) error {
	if len(tables) == 0 {
		return k.remove(includeFile)
	}
	var b strings.Builder
	for _, t := range tables {
		if t.Name != state.FlowTableName { // a flowtable whose device is gone would keep the administrator's tables from being loaded
			b.WriteString(t.Include())
		}
	}
	if err := os.WriteFile(k.path(includeFile+".new"), []byte(b.String()), 0o600); err != nil {
		return err
	}
	return os.Rename(k.path(includeFile+".new"), k.path(includeFile))
}
