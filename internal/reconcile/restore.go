//go:build !openwrt

package reconcile

import (
	"errors"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/state"
)

// errNone is what Restore does nothing for.
var errNone = errors.New("no relay is to be up")

// Restore puts back what others have taken away from the relays that are to be up since the last `up` or `down`, and
// does nothing else: it does not apply a file that has changed since (ErrEdited).
func (m *End) Restore(show func(state.Step), waiting func(string)) (changed bool, err error) {
	changed, err = m.change(func() ([]*config.Relay, error) {
		relays, err := m.toMend()
		if err == nil && len(relays) == 0 {
			err = errNone
		}
		return relays, err
	}, show, waiting, func(w way) error {
		if len(w.steps) == 0 {
			return nil
		}
		return m.recordUp(w)
	})
	if errors.Is(err, errNone) {
		err = nil
	}
	return changed, err
}
