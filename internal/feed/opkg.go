package feed

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Opkg returns the index of the packages (*.ipk) of a folder: the file that an opkg feed calls Packages, a paragraph
// for each package, in the order of the files' names. Source: OpenWrt's scripts/ipkg-make-index.sh.
func Opkg(dir string) ([]byte, error) {
	var index bytes.Buffer
	err := each(dir, "*.ipk", func(name string, data []byte) error {
		control, err := ipkControl(data)
		if err == nil {
			fmt.Fprintf(&index, "%s\nFilename: %s\nSize: %d\nSHA256sum: %x\n\n", strings.TrimSpace(control), name,
				len(data), sha256.Sum256(data))
		}
		return err
	})
	return index.Bytes(), err
}

// each reads the packages of a folder, in the order of their names. None at all is an error: a feed without packages is
// a mistake of its maker.
func each(dir, pattern string, do func(name string, data []byte) error) error {
	files, err := filepath.Glob(filepath.Join(dir, pattern))
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s: no %s", dir, pattern)
	}
	if err != nil {
		return err
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := do(filepath.Base(file), data); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}

// ipkControl returns the control file of a package: control.tar.gz in a gzipped tar file has it.
func ipkControl(data []byte) (string, error) {
	archive, err := member(bytes.NewReader(data), "control.tar.gz")
	if err != nil {
		return "", err
	}
	control, err := member(bytes.NewReader(archive), "control")
	return string(control), err
}

// maxMember bounds what is read of a package's metadata.
const maxMember = 1 << 20

// member returns a file of a gzipped tar file.
func member(r io.Reader, name string) ([]byte, error) {
	unzipped, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	files := tar.NewReader(unzipped)
	for {
		header, err := files.Next()
		if err != nil {
			return nil, fmt.Errorf("no file %s: %w", name, err)
		}
		if path.Clean(header.Name) == name {
			return io.ReadAll(io.LimitReader(files, maxMember))
		}
	}
}
