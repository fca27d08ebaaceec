// Package replace writes files as a whole: a reader or a crash never sees half of one.
package replace

import (
	"errors"
	"os"
	"path/filepath"
)

// Suffix is that of a file while it is being written.
const Suffix = ".new"

// File puts a file with a mode in place of the one at path, and waits until it is on the disk. A failure leaves that
// one as it is, and nothing else behind.
func File(path string, data []byte, mode os.FileMode) (err error) {
	fresh := path + Suffix
	if err := os.RemoveAll(fresh); err != nil { // left by a killed process
		return err
	}
	file, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(fresh)
		}
	}()
	_, err = file.Write(data)
	if err == nil {
		err = errors.Join(file.Chmod(mode), file.Sync()) // the umask may have taken bits away
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := os.Rename(fresh, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
