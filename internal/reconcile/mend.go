//go:build !openwrt

package reconcile

import (
	"errors"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/state"
)

// ErrEdited is returned where the relays are up by another text of the file than the present one.
var ErrEdited = message.New("the file has changed since the relays were brought up")

// errNone is what Mend does nothing for.
var errNone = errors.New("no relay is to be up")

// Mend restores what others have taken away from the relays that are to be up since the last `up` or `down`, and does
// nothing else: it does not apply a file that has changed since (ErrEdited).
func (m *End) Mend(show func(state.Step), waiting func(string)) (changed bool, err error) {
	changed, err = m.change(func() ([]*config.Relay, error) {
		sum, names := m.Kernel.NotedUp()
		if len(names) == 0 {
			return nil, errNone
		}
		if sum != m.Config.Sum {
			return nil, message.New("%v: %s", ErrEdited, m.Config.Path)
		}
		return m.wantUp(names)
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
