//go:build !openwrt

package reconcile

import (
	"cmp"
	"fmt"
	"io"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
)

// PairedStatus is what a VPS knows of the home of a paired relay.
type PairedStatus struct {
	Enrolled int64         `json:"enrolled,omitempty"` // seconds since 1970; 0: no home has enrolled
	From     string        `json:"from,omitempty"`     // the address that it enrolled from
	Forwards int           `json:"forwards"`           // that it has pushed, and that are in force
	LeftOut  string        `json:"left_out,omitempty"` // why that, or all that is kept of the home, is not in force
	Reused   *config.Reuse `json:"reused,omitempty"`   // somebody has tried its invitation once more
}

// pairedStatus returns nil if the relay is not paired.
func pairedStatus(r *config.Relay) *PairedStatus {
	if r.Allow == nil {
		return nil
	}
	s := &PairedStatus{Enrolled: r.Home.Enrolled, From: r.Home.From, Reused: r.Home.Reused}
	if why := cmp.Or(r.Home.Damaged, r.Home.LeftOut); why != nil {
		s.LeftOut = why.Error()
	}
	for _, f := range r.Forwards {
		if f.Pushed != "" {
			s.Forwards++
		}
	}
	return s
}

// printPaired writes since when a home has been enrolled.
func (r *RelayStatus) printPaired(w io.Writer) {
	switch p := r.Paired; {
	case p == nil:
	case p.Enrolled == 0 && p.LeftOut != "":
		fmt.Fprintf(w, "  home            what is kept of it is damaged: %s (to let it join again: `ds4relay invite %s`)\n",
			p.LeftOut, r.Name)
	case p.Enrolled == 0:
		fmt.Fprintf(w, "  home            none has enrolled (`ds4relay invite %s` prints an invitation)\n", r.Name)
	default:
		fmt.Fprintf(w, "  home            enrolled since %s, from %s; ", time.Unix(p.Enrolled, 0).Format("2006-01-02 15:04"),
			p.From)
		if p.LeftOut != "" {
			fmt.Fprintf(w, "what it has pushed is left out: %s\n", p.LeftOut)
			return
		}
		fmt.Fprintf(w, "forwards that it has pushed: %d\n", p.Forwards)
	}
}

// Edited reports whether the relays are up by another text of the file. What homes have told since does not count: it
// may be that a push was stored, and what was to bring it up was killed.
func Edited(k Kernel, c *config.Config) bool {
	applied := k.Applied()
	return len(applied.Relays) > 0 && !config.SameFile(applied.File, c.Sum)
}
