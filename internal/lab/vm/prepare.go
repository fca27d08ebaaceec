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

// Prepare returns the cached kernel, or downloads and unpacks one if there is none. It reports progress to log. To get
// a newer kernel, delete the cache directory.
func Prepare(ctx context.Context, log io.Writer) (Kernel, error) {
	cache, err := CacheDir()
	if err != nil {
		return Kernel{}, err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return Kernel{}, err
	}
	unlock, err := lock(ctx, filepath.Join(cache, "lock"))
	if err != nil {
		return Kernel{}, err
	}
	defer unlock()

	version, err := cachedVersion(cache)
	if err != nil {
		if version, err = download(ctx, cache, log); err != nil {
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

func download(ctx context.Context, cache string, log io.Writer) (version string, err error) {
	pkg, err := newestKernel()
	if err != nil {
		return "", err
	}
	version = strings.TrimPrefix(pkg, "linux-image-")
	tmp, err := os.MkdirTemp(cache, "download-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	fmt.Fprintf(log, "labctl: downloading %s\n", pkg)
	get := exec.CommandContext(ctx, "apt-get", "-q", "download", pkg)
	if os.Geteuid() == 0 { // apt's own user cannot write to the cache
		get.Args = append(get.Args, "-o", "APT::Sandbox::User=root")
	}
	get.Dir = tmp
	if out, err := get.CombinedOutput(); err != nil {
		return "", fmt.Errorf("apt-get download %s: %w: %s (run apt-get update and try again)", pkg, err, lastLine(out))
	}
	debs, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if err != nil || len(debs) != 1 {
		return "", fmt.Errorf("apt-get download %s left %d packages", pkg, len(debs))
	}
	root := filepath.Join(tmp, "root")
	for _, step := range [][]string{
		{"dpkg", "-x", debs[0], root},
		{"depmod", "-b", root, version},
	} {
		if out, err := exec.CommandContext(ctx, step[0], step[1:]...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("%s: %w: %s", strings.Join(step, " "), err, lastLine(out))
		}
	}
	final := filepath.Join(cache, version)
	if err := os.RemoveAll(final); err != nil {
		return "", err
	}
	if err := os.Chmod(root, 0o755); err != nil {
		return "", err
	}
	if err := os.Rename(root, final); err != nil {
		return "", err
	}
	return version, writeFile(filepath.Join(cache, "version"), []byte(version+"\n"))
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

func newestKernel() (string, error) {
	out, err := exec.Command("apt-cache", "depends", kernelPackage).Output()
	if err != nil {
		return "", fmt.Errorf("apt-cache depends %s: %w (run apt-get update and try again)", kernelPackage,
			withStderr(err))
	}
	for line := range strings.Lines(string(out)) {
		if pkg, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: linux-image-"); ok {
			return "linux-image-" + pkg, nil
		}
	}
	return "", fmt.Errorf("apt-cache depends %s names no kernel (run apt-get update and try again)", kernelPackage)
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
