package state

import (
	"errors"

	"github.com/ds4relay/ds4relay/internal/message"
)

// Waiting says that a relay waits for something before it can be brought up.
func Waiting(relay string, what *message.Text) *message.Text {
	return message.New("relay %q waits for %s", relay, what)
}

// Waits tells whether an error is one of Waiting.
func Waits(err error) bool { return errors.Is(err, Waiting("", nil)) }
