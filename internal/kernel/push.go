package kernel

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/message"
)

// PushState is how far a home's forwards have come on their way to the VPS.
type PushState string

// The states of a push.
const (
	PushOK      PushState = "ok"      // the VPS has taken them
	PushRefused PushState = "refused" // it has read them, and does not take them
	PushFailed  PushState = "failed"  // it could not be asked, or cannot take anything now
	PushPending PushState = "pending" // it is being asked
)

// Push is the last push of a relay's forwards to the VPS, in a file that everybody may read.
type Push struct {
	Version  int           `json:"version"` // message.AnswersVersion
	Relay    string        `json:"relay"`
	State    PushState     `json:"state"`
	Since    int64         `json:"since"`          // Unix time, in seconds
	Text     string        `json:"text,omitempty"` // why it failed, or was refused, in English
	Code     string        `json:"code,omitempty"` // what Text is made of
	Args     []any         `json:"args,omitempty"`
	Problems []PushProblem `json:"problems,omitempty"` // what the VPS does not take
	Sum      string        `json:"sum,omitempty"`      // tells what was pushed from another content
}

// PushProblem is one reason of the VPS, in the terms of this end's file.
type PushProblem struct {
	Section string `json:"section,omitempty"` // as `forward "web"`
	Option  string `json:"option,omitempty"`
	Value   string `json:"value,omitempty"`
	Message string `json:"message"` // in English
	Code    string `json:"code"`
	Args    []any  `json:"args,omitempty"`
}

// Error writes it on one line: SECTION: option NAME "VALUE": MESSAGE.
func (p *PushProblem) Error() string {
	text := p.Message
	if p.Option != "" {
		text = p.Option + ": " + text
		if p.Value != "" {
			text = p.Option + " " + strconv.Quote(p.Value) + text[len(p.Option):]
		}
		text = "option " + text
	}
	if p.Section != "" {
		text = p.Section + ": " + text
	}
	return text
}

// Reason is its message alone.
func (p *PushProblem) Reason() *message.Text { return &message.Text{Code: p.Code, Args: p.Args} }

// PushPrefix begins the names of files with a Push.
const PushPrefix = "push-"

// pushLock is the file that keeps two pushes apart.
const pushLock = PushPrefix + "lock"

func pushName(relay string) string { return PushPrefix + relay + ".json" }

// NotePush records how far a relay's push has come.
func (k *Kernel) NotePush(p *Push) error { return k.write(pushName(p.Relay), p) }

// Pushed is the last push of a relay; nil for none.
func (k *Kernel) Pushed(relay string) *Push {
	return read(k, pushName(relay), func(p *Push) bool {
		return p != nil && p.Version == message.AnswersVersion && p.Relay == relay
	})
}

// ForgetPush removes the record of a relay's push. There need be none.
func (k *Kernel) ForgetPush(relay string) error { return k.remove(pushName(relay)) }

// LockPush keeps other processes from pushing until unlock is called or the process ends. Without wait, another one's
// lock is an error.
func (k *Kernel) LockPush(wait bool) (unlock func(), err error) {
	if err := os.MkdirAll(k.Run, 0o755); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(k.path(pushLock), os.O_RDWR|os.O_CREATE|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	how := unix.LOCK_EX
	if !wait {
		how |= unix.LOCK_NB
	}
	for {
		err = unix.Flock(int(file.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return func() { file.Close() }, nil
}

// public reports whether a record is for everybody to read: status shows it without root.
func public(name string) bool {
	return name == watchRecord || strings.HasPrefix(name, PushPrefix)
}
