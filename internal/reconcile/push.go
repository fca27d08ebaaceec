package reconcile

import (
	"fmt"
	"io"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/plain"
)

// pushed is the last push of a router's relay for a status, which does not show the sum; nil for none.
func (m *End) pushed(r *config.Relay) *kernel.Push {
	last := m.Kernel.Pushed(r.Name)
	if last == nil || r.Role != config.Router {
		return nil
	}
	shown := *last
	shown.Sum = ""
	return &shown
}

// printPush writes whether the VPS has taken this home's forwards.
func (r *RelayStatus) printPush(w io.Writer) {
	if r.Push == nil {
		return
	}
	when := ""
	if ago := time.Now().Unix() - r.Push.Since; ago >= 0 && ago < 1e8 { // the clock of a router may be wrong at boot
		when = ", " + since(ago)
	}
	fmt.Fprint(w, "  push            ")
	switch r.Push.State {
	case kernel.PushOK:
		fmt.Fprintf(w, "taken by the VPS%s\n", when)
		return
	case kernel.PushPending:
		fmt.Fprintf(w, "the VPS is being told%s\n", when)
		return
	case kernel.PushRefused:
		plain.Mark(w, plain.Bad, "refused by the VPS")
	default:
		plain.Mark(w, plain.Warning, "failed")
	}
	fmt.Fprintf(w, "%s: %s\n", when, r.Push.Text)
	for i := range r.Push.Problems {
		fmt.Fprintf(w, "                  %s\n", r.Push.Problems[i].Error())
	}
}
