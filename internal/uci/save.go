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

// CopyPath is where Save keeps what a file was before its first change: beside it, called NAME.before. For a file in
// /etc/config it is in /etc/ds4relay, since every file in /etc/config is a configuration to OpenWrt.
func CopyPath(path string) string {
	dir, name := filepath.Split(path)
	if dir = filepath.Clean(dir); filepath.Base(dir) == "config" {
		dir = filepath.Join(filepath.Dir(dir), "ds4relay")
	}
	return filepath.Join(dir, name+".before")
}

// newMode is the mode of a file that was not there: no secret is in it.
const newMode = 0o644

// Save puts text in place of former in the file at path, at once or not at all. Mode and owner stay. former is what was
// read from it, nil if there was no such file: if the file is not that any more, it stays as it is. A copy of the first
// one is kept at CopyPath, for root only. A symbolic link stays one.
func Save(path string, former, text []byte) error {
	copied := CopyPath(path)
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
	made := false
	if former != nil {
		var err error
		if made, err = keepCopy(copied, former); err != nil {
			return message.New("no copy of %s can be kept: %v", path, err)
		}
	}
	err := replace(path, former, text)
	if err != nil && made {
		err = errors.Join(err, os.Remove(copied))
	}
	return err
}

// Undo puts former back after Save, or removes the file if former is nil. A copy that says the same goes, too.
func Undo(path string, former, text []byte) error {
	if former == nil {
		if err := unchanged(path, text); err != nil {
			return err
		}
		return os.Remove(path)
	}
	if err := Save(path, text, former); err != nil {
		return err
	}
	copied := CopyPath(path)
	if data, err := os.ReadFile(copied); err != nil || !bytes.Equal(data, former) {
		return err
	}
	return os.Remove(copied)
}

// replace writes text to a new file, and calls it path if that is what it was.
func replace(path string, former, text []byte) error {
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

// keepCopy writes the copy, unless there is one, and reports whether it did.
func keepCopy(path string, text []byte) (made bool, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return false, err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_, err = file.Write(text)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return false, errors.Join(err, os.Remove(path))
	}
	return true, nil
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
