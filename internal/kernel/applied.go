package kernel

import (
	"slices"
	"strconv"
)

const (
	appliedRecord = "applied"
	// RivalRecord names the record about another program that takes away again and again what the relays need.
	RivalRecord = "rival"
)

// Applied is what the last `up` or `down` has left.
type Applied struct {
	File   uint64   // config.Config.Sum
	Relays []string // that are to be up
}

// Applied returns the record, or zero.
func (k *Kernel) Applied() (a Applied) {
	list := read(k, appliedRecord, func(list []string) bool { return len(list) > 1 })
	if list != nil {
		a.File, _ = strconv.ParseUint(list[0], 16, 64) // 0 is no file's
		a.Relays = list[1:]
	}
	return a
}

// NoteApplied writes the record. Without relays it removes it.
func (k *Kernel) NoteApplied(a Applied) error {
	if len(a.Relays) == 0 {
		return k.remove(appliedRecord)
	}
	if former := k.Applied(); former.File == a.File && slices.Equal(former.Relays, a.Relays) {
		return nil
	}
	return k.write(appliedRecord, append([]string{strconv.FormatUint(a.File, 16)}, a.Relays...))
}
