package kernel

import (
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/state"
)

// PathPrefix and a relay's name are the name of the record of a path that is narrower than its route says.
const PathPrefix = "path:"

// PathNote returns what is recorded about a relay's path.
func (k *Kernel) PathNote(relay string) state.PathNote {
	text := read(k, PathPrefix+relay, func(text string) bool {
		_, ok := state.ParsePathNote(text)
		return ok
	})
	note, _ := state.ParsePathNote(text)
	return note
}

// NotePath records a note, or removes the record if the note is zero.
func (k *Kernel) NotePath(relay string, note state.PathNote) error {
	if note.Passes == 0 {
		return k.remove(PathPrefix + relay)
	}
	return k.write(PathPrefix+relay, note.String())
}

// narrow adds to the facts how large a packet of a relay's tunnel may be, if a probe has found that on this path.
// Ordinary users cannot read the record; for them it is what the tunnel has.
func (k *Kernel) narrow(f *state.Facts, r *config.Relay, local, peer netip.Addr) {
	if _, err := k.load(PathPrefix + r.Name); forRoot(err) {
		if link, _ := k.linkOf(r); link != nil {
			f.Narrow[r.Name] = link.MTU
		}
		return
	}
	if note := k.PathNote(r.Name); note.Path == state.PathKey(r, f, local, peer) {
		f.Narrow[r.Name] = note.Passes
	}
}

// SetMTU changes the MTU of a device, in bytes.
func SetMTU(device string, mtu int) error {
	return onLink(device, func(l netlink.Link) error { return netlink.LinkSetMTU(l, mtu) })
}
