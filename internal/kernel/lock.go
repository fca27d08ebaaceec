package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/message"
)

const (
	lockFile = "lock"
	// lockTime limits how long one ds4relay waits for another.
	lockTime = 30 * time.Second
)

// Lock keeps other ds4relay processes from changing the kernel until unlock is called or the process ends. waiting is
// called once if it has to wait for another one.
func (k *Kernel) Lock(waiting func(holder string)) (unlock func(), err error) {
	deadline := time.Now().Add(lockTime)
	for first := true; ; first = false {
		file, err := k.openLock()
		if err != nil {
			return nil, message.New("lock out other ds4relay processes: %v", err)
		}
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && k.isLock(file) {
			// The holder's process ID is only for messages: without disk space we continue.
			if file.Truncate(0) == nil {
				_, _ = file.WriteAt(fmt.Append(nil, os.Getpid()), 0)
			}
			return func() { file.Close() }, nil
		}
		holder := make([]byte, 16)
		n, _ := file.ReadAt(holder, 0)
		file.Close()
		switch {
		case err != nil && !isErrno(err, unix.EWOULDBLOCK, unix.EINTR):
			return nil, message.New("lock out other ds4relay processes: lock %s: %v", k.path(lockFile), err)
		case time.Now().After(deadline):
			return nil, message.New("another ds4relay (process %s) is at work and did not finish within %v",
				strings.TrimSpace(string(holder[:n])), lockTime)
		case err == nil: // the previous holder removed the file
			continue
		case first && waiting != nil:
			waiting(string(holder[:n]))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// openLock opens the file, and creates it and its directory if they are missing. Another process's Clear may remove the
// directory in between.
func (k *Kernel) openLock() (*os.File, error) {
	for try := 1; ; try++ {
		err := os.Mkdir(k.Run, 0o755)
		switch {
		case err == nil:
			k.made = true
		case errors.Is(err, fs.ErrNotExist):
			err = os.MkdirAll(k.Run, 0o755)
		case errors.Is(err, fs.ErrExist):
			err = nil
		}
		if err != nil {
			return nil, err
		}
		file, err := os.OpenFile(k.path(lockFile), os.O_RDWR|os.O_CREATE|unix.O_NONBLOCK, 0o600)
		if err == nil || try == 3 || !errors.Is(err, fs.ErrNotExist) {
			return file, err
		}
	}
}

// isLock reports whether the file is still the one that others would open.
func (k *Kernel) isLock(file *os.File) bool {
	have, err := file.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(k.path(lockFile))
	return err == nil && os.SameFile(have, there)
}
