package uci

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/message"
)

// CopySuffix is what Save calls the copy of a file that it has changed for the first time.
const CopySuffix = ".before-setup"

// newMode is the mode of a file that was not there: no secret is in it.
const newMode = 0o644

// Save puts text in place of former in the file at path, at once or not at all. Mode and owner stay. former is what was
// read from it, nil if there was no such file: if the file is not that any more, it stays as it is. A copy of the first
// one is kept beside it, for its owner only. A symbolic link stays one.
func Save(path string, former, text []byte) error {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	if _, err := Parse(path, text); err != nil {
		return err
	}
	if err := unchanged(path, former); err != nil {
		return err
	}
	if former != nil && bytes.Equal(former, text) {
		return nil
	}
	if former != nil {
		if err := keepCopy(path, former); err != nil {
			return message.New("no copy of %s can be kept: %v", path, err)
		}
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err == nil {
		err = likeFile(file, path)
	}
	if err == nil {
		err = file.Sync()
	}
	err = errors.Join(err, file.Close())
	if err == nil {
		err = unchanged(path, former)
	}
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return syncFolder(path)
}

// unchanged refuses a file that is not what was read from it.
func unchanged(path string, former []byte) error {
	now, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && former == nil:
		return nil
	case err != nil:
		return err
	case former == nil || !bytes.Equal(now, former):
		return message.New("%s was changed by somebody else meanwhile, and stays as it is; try again", path)
	}
	return nil
}

// keepCopy writes the copy, unless there is one.
func keepCopy(path string, text []byte) error {
	file, err := os.OpenFile(path+CopySuffix, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		err = errors.Join(err, os.Remove(file.Name()))
	}
	return err
}

// likeFile gives a new file the mode and the owner of the one at path, if that exists.
func likeFile(file *os.File, path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return file.Chmod(newMode)
	}
	if err != nil {
		return err
	}
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return err
	}
	if int(stat.Uid) != os.Geteuid() || int(stat.Gid) != os.Getegid() {
		if err := file.Chown(int(stat.Uid), int(stat.Gid)); err != nil {
			return err
		}
	}
	return file.Chmod(info.Mode().Perm()) // last: chown takes bits away
}

// syncFolder makes the rename last.
func syncFolder(path string) error {
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
