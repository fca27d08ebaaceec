//go:build !openwrt

package kernel

import (
	"strings"

	"github.com/ds4relay/ds4relay/internal/state"
)

// KeepTables saves the tables as they should be now; without tables there is no file.
func (k *Kernel) KeepTables(tables []state.Table) error {
	if len(tables) == 0 {
		return k.remove(includeFile)
	}
	var b strings.Builder
	for _, t := range tables {
		// If its device is gone, nft would not load the administrator's tables either.
		if t.Name != state.FlowTableName {
			b.WriteString(t.Include())
		}
	}
	return k.replace(includeFile, []byte(b.String()))
}
