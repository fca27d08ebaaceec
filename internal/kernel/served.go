package kernel

import (
	"errors"
	"io/fs"
	"os"
	"strings"
)

// KeptDir has what outlives a restart of the machine, and on OpenWrt an upgrade too.
const KeptDir = "/etc/ds4relay"

// served returns a Kernel whose records are those of Served: a file for each relay.
func (k *Kernel) served() *Kernel { return &Kernel{Run: k.Kept + "/served"} }

// Served returns the public address with which a client has reached a relay's host, or "" if there was none. Only root
// may know it.
func (k *Kernel) Served(relay string) (address string, err error) {
	data, err := k.served().load(relay)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(data)), err
}

// NoteServed writes the record.
func (k *Kernel) NoteServed(relay, address string) error {
	kept := k.served()
	if err := os.MkdirAll(kept.Run, 0o700); err != nil {
		return err
	}
	return kept.replace(relay, []byte(address+"\n"))
}
