package paired

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/authorized"
	"github.com/ds4relay/ds4relay/internal/message"
)

// errBusy is the error if another one is at work for too long.
var errBusy = message.New("the VPS is busy with another request; try again")

// lock keeps others out until unlock is called. wait limits how long it waits for another one.
func lock(path string, wait time.Duration) (file *os.File, unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, nil, err
	}
	file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, nil, err
	}
	if err := authorized.Lock(file, wait); err != nil {
		file.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errBusy
		}
		return nil, nil, err
	}
	return file, func() { file.Close() }, nil
}

// Limits of waiting: for others, and for the time that has to be between two pushes.
const (
	turnTime = 2 * time.Second
	workTime = 15 * time.Second
)

// turn waits for a relay's next turn: one push a second is taken up. Of those that wait for too long the rest is
// refused.
func (s *Service) turn(relay string) (done func(), err error) {
	file, unlock, err := lock(s.Dir.turns(relay), turnTime)
	if err != nil {
		return nil, err
	}
	if info, err := file.Stat(); err == nil && info.Size() > 0 {
		if left := s.apart() - time.Since(info.ModTime()); left > 0 && left <= s.apart() {
			time.Sleep(left)
		}
	}
	return func() {
		_, _ = file.WriteAt([]byte("\n"), 0) // its time of change counts
		unlock()
	}, nil
}

func (s *Service) apart() time.Duration {
	if s.Apart != 0 {
		return s.Apart
	}
	return time.Second
}
