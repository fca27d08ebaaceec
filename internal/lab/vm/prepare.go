package vm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Kernel is what a virtual machine boots.
type Kernel struct {
	Version string // for uname -r
	// Path of vmlinux, uncompressed: QEMU starts it directly (PVH); unpacking would take it four seconds.
	Image     string
	Initramfs string // path
	Modules   string // path of the directory that becomes /lib/modules
}

// kernelPackage depends on the newest kernel. The cloud flavour lacks 9p.
const kernelPackage = "linux-image-amd64"

// CacheDir returns where kernels are kept: $DS4RELAY_CACHE, or ~/.cache/ds4relay/lab.
func CacheDir() (string, error) {
	if dir := os.Getenv("DS4RELAY_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache directory (set DS4RELAY_CACHE): %w", err)
	}
	return filepath.Join(base, "ds4relay", "lab"), nil
}

// Prepare returns the cached kernel of a Debian suite, such as trixie or trixie-backports, or downloads and unpacks one
// if there is none. Without a suite it is the kernel of this computer's release. It reports progress to log. To get a
// newer kernel, delete the cache directory.
func Prepare(ctx context.Context, suite string, log io.Writer) (Kernel, error) {
	cache, unlock, err := lockCache(ctx)
	if err != nil {
		return Kernel{}, err
	}
	defer unlock()
	if suite != "" {
		cache = filepath.Join(cache, "kernel-"+suite)
		if err := os.MkdirAll(cache, 0o755); err != nil {
			return Kernel{}, err
		}
	}
	version, err := cachedVersion(cache)
	if err != nil {
		if version, err = download(ctx, cache, suite, log); err != nil {
			return Kernel{}, err
		}
	}
	root := filepath.Join(cache, version)
	kernel := Kernel{
		Version:   version,
		Image:     filepath.Join(root, "vmlinux"),
		Initramfs: filepath.Join(root, fmt.Sprintf("initramfs-%s.img", initramfsKey())),
		Modules:   filepath.Join(root, "lib", "modules"),
	}
	if _, err := os.Stat(kernel.Image); err != nil {
		if err := unpackKernel(filepath.Join(root, "boot", "vmlinuz-"+version), kernel.Image); err != nil {
			return Kernel{}, err
		}
	}
	if _, err := os.Stat(kernel.Initramfs); err == nil {
		return kernel, nil
	}
	fmt.Fprintf(log, "labctl: building the initramfs for %s\n", version)
	data, err := initramfs(root, version)
	if err != nil {
		return Kernel{}, fmt.Errorf("initramfs for %s: %w", version, err)
	}
	return kernel, writeFile(kernel.Initramfs, data)
}

// lockCache makes the cache directory, if it does not exist, and waits until no other process prepares a kernel in it.
func lockCache(ctx context.Context) (cache string, unlock func(), err error) {
	if cache, err = CacheDir(); err != nil {
		return "", nil, err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", nil, err
	}
	unlock, err = lock(ctx, filepath.Join(cache, "lock"))
	return cache, unlock, err
}

// initramfsKey changes with the content of the initramfs.
func initramfsKey() string {
	sum := sha256.Sum256(append([]byte(strings.Join(bootModules, " ")), initScript...))
	return fmt.Sprintf("%x", sum[:6])
}

func cachedVersion(cache string) (string, error) {
	data, err := os.ReadFile(filepath.Join(cache, "version"))
	if err != nil {
		return "", err
	}
	version := strings.TrimSpace(string(data))
	_, err = os.Stat(filepath.Join(cache, version, "boot", "vmlinuz-"+version))
	return version, err
}

// packings are the compressions of Debian's bzImages: how the stream starts and what unpacks it.
var packings = []struct {
	magic   string
	command []string
}{
	{"\xfd7zXZ\x00", []string{"xz", "-dc", "--single-stream"}},
	{"\x28\xb5\x2f\xfd", []string{"zstd", "-dc"}},
}

// unpackKernel extracts the kernel from a bzImage (scripts/extract-vmlinux in the kernel's source).
func unpackKernel(image, to string) error {
	data, err := os.ReadFile(image)
	if err != nil {
		return err
	}
	for _, packing := range packings {
		start := bytes.Index(data, []byte(packing.magic))
		if start < 0 {
			continue
		}
		unpack := exec.Command(packing.command[0], packing.command[1:]...)
		unpack.Stdin = bytes.NewReader(data[start:])
		kernel, err := unpack.Output() // it reports an error for the data after the stream
		if bytes.HasPrefix(kernel, []byte(elf.ELFMAG)) {
			return writeFile(to, kernel)
		}
		return fmt.Errorf("%s finds no kernel in %s (is it installed?): %w", packing.command[0], image, withStderr(err))
	}
	return fmt.Errorf("%s is compressed neither with xz nor with zstd", image)
}

// lock waits for other processes that are preparing, such as other packages of a go test.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		if err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			break
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			file.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, fmt.Errorf("lock %s is held by another process: %w", path, context.Cause(ctx))
		case <-time.After(100 * time.Millisecond):
		}
	}
	return func() { file.Close() }, nil
}

// writeFile writes a file completely or not at all.
func writeFile(path string, data []byte) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func withStderr(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return fmt.Errorf("%w: %s", err, lastLine(exit.Stderr))
	}
	return err
}

func lastLine(out []byte) string {
	out = bytes.TrimSpace(out)
	return string(out[bytes.LastIndexByte(out, '\n')+1:])
}
