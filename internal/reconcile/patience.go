//go:build !openwrt

package reconcile

import "time"

// Patience limits repairs, where another program takes away again and again what was restored.
type Patience struct {
	repairs []time.Time // the last ones
	lost    bool
}

const (
	// MaxRepairs is how many repairs within RepairTime are the last ones that follow a change at once.
	MaxRepairs = 5
	// RepairTime is what MaxRepairs counts in.
	RepairTime = time.Minute
	// QuietTime without a repair ends the pause.
	QuietTime = 5 * time.Minute
)

// Repaired counts a repair, and reports whether it was one too many.
func (p *Patience) Repaired(now time.Time) (lost bool) {
	if len(p.repairs) == MaxRepairs {
		p.repairs = p.repairs[1:]
	}
	p.repairs = append(p.repairs, now)
	if p.lost || len(p.repairs) < MaxRepairs || now.Sub(p.repairs[0]) >= RepairTime {
		return false
	}
	p.lost = true
	return true
}

// Lost reports whether changes are to be left alone until the next regular look.
func (p *Patience) Lost() bool { return p.lost }

// Regained reports whether it is quiet again after Lost: from now on changes are repaired at once.
func (p *Patience) Regained(now time.Time) bool {
	if !p.lost || now.Sub(p.repairs[len(p.repairs)-1]) < QuietTime {
		return false
	}
	*p = Patience{}
	return true
}
