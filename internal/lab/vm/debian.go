package vm

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// DebianOptions add a second virtual machine: the VPS, a complete Debian with systemd.
type DebianOptions struct {
	Suite string // bookworm or trixie
	Agent string // path of internal/lab/agent
}

// debianSuites are the releases that ds4relay's package supports.
var debianSuites = []string{"bookworm", "trixie"}

// debianPackages are programs that servers have in addition to Debian's base system.
var debianPackages = []string{"systemd-sysv", "udev", "dbus", "ifupdown", "nftables", "iproute2", "iptables", "ufw",
	"kmod", "procps", "netbase", "iputils-ping", "bash-completion"}

// debianNeighbours are installed on one of the releases only. Their services do not start by themselves.
var debianNeighbours = map[string][]string{"bookworm": {"docker.io", "network-manager"},
	"trixie": {"prometheus-node-exporter"}}

func packagesOf(suite string) string {
	return strings.Join(append(slices.Clone(debianPackages), debianNeighbours[suite]...), ",")
}

// debianModules are needed before the disk is mounted.
var debianModules = []string{"virtio_pci", "virtio_blk", "ext4", "crc32c_generic"}

//go:embed debian-root.sh
var debianRoot []byte

//go:embed debian.sh
var debianInit []byte

// debianKey changes with the content of the disk.
func debianKey(suite string) string {
	const layout = " vmlinux"
	sum := sha256.Sum256(append([]byte(packagesOf(suite)+layout), debianRoot...))
	return fmt.Sprintf("%x", sum[:6])
}

// PrepareDebian returns the directory with a suite's disk and kernel. If they do not exist it creates them, in about a
// minute.
func PrepareDebian(ctx context.Context, suite string, log io.Writer) (dir string, err error) {
	if !strings.Contains(" "+strings.Join(debianSuites, " ")+" ", " "+suite+" ") {
		return "", fmt.Errorf("no Debian %q; there are %s", suite, strings.Join(debianSuites, " and "))
	}
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(ctx, filepath.Join(cache, "lock-"+suite))
	if err != nil {
		return "", err
	}
	defer unlock()
	dir = filepath.Join(cache, "debian-"+suite+"-"+debianKey(suite))
	if _, err := os.Stat(filepath.Join(dir, "disk")); err == nil {
		return dir, nil
	}
	mirror, err := debianMirror()
	if err != nil {
		return "", err
	}
	fmt.Fprintf(log, "labctl: making a root of Debian %s\n", suite)
	former, err := filepath.Glob(filepath.Join(cache, "debian-"+suite+"-*"))
	if err != nil {
		return "", err
	}
	for _, dir := range former {
		if err := os.RemoveAll(dir); err != nil {
			return "", err
		}
	}
	tmp, err := os.MkdirTemp(cache, "debian-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	hook, root := filepath.Join(tmp, "root.sh"), filepath.Join(tmp, "root")
	if err := os.WriteFile(hook, debianRoot, 0o755); err != nil {
		return "", err
	}
	final := filepath.Join(tmp, "final")
	for _, step := range [][]string{
		{"mmdebstrap", "--quiet", "--mode=root", "--variant=apt", "--include=" + packagesOf(suite),
			"--format=directory",
			`--aptopt=Acquire::Languages "none"`, "--dpkgopt=path-exclude=/usr/share/locale/*",
			"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=force-unsafe-io",
			"--customize-hook=APT_CONFIG=$MMDEBSTRAP_APT_CONFIG " + hook + ` "$1"`, suite, root,
			"deb " + mirror + " " + suite + " main"},
		{"chmod", "755", root},
		{"mkdir", final},
		{"cp", "-r", filepath.Join(root, "boot"), filepath.Join(root, "lab-kernel-version"), final},
		{"mkdir", "-p", filepath.Join(final, "lib")},
		{"cp", "-r", filepath.Join(root, "usr/lib/modules"), filepath.Join(final, "lib/modules")},
		{"truncate", "-s", "2G", filepath.Join(final, "disk")},
		{"mke2fs", "-q", "-t", "ext4", "-O", "^metadata_csum", "-d", root, filepath.Join(final, "disk")},
	} {
		if out, err := exec.CommandContext(ctx, step[0], step[1:]...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("%s: %w: %s", step[0], err, out)
		}
	}
	images, err := filepath.Glob(filepath.Join(final, "boot", "vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return "", fmt.Errorf("the root of Debian %s has %d kernels, want 1", suite, len(images))
	}
	if err := unpackKernel(images[0], filepath.Join(final, "vmlinux")); err != nil {
		return "", err
	}
	return dir, os.Rename(final, dir)
}

var mirrorLine = regexp.MustCompile(`(?m)^(?:URIs:|deb(?: \[[^]]*\])?) +(\S+/debian/?)(?:\s|$)`)

// debianMirror returns where this machine gets its own packages from.
func debianMirror() (string, error) {
	paths := []string{"/etc/apt/sources.list"}
	for _, pattern := range []string{"*.sources", "*.list"} {
		more, err := filepath.Glob("/etc/apt/sources.list.d/" + pattern)
		if err != nil {
			return "", err
		}
		paths = append(paths, more...)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if m := mirrorLine.FindSubmatch(data); m != nil {
			return string(m[1]), nil
		}
	}
	return "", fmt.Errorf("none of %s names a mirror of Debian", strings.Join(paths, ", "))
}

// newDebian describes the VPS's machine, whose files are in dir. The machine writes to an overlay, which is deleted at
// the end.
func newDebian(ctx context.Context, opts *Options, dir string) (*second, error) {
	o := opts.Debian
	root, err := PrepareDebian(ctx, o.Suite, opts.Stderr)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(root, "lab-kernel-version"))
	if err != nil {
		return nil, err
	}
	version := strings.TrimSpace(string(data))
	image, err := debianInitramfs(root, version, o.Agent)
	if err != nil {
		return nil, fmt.Errorf("the initramfs of Debian %s: %w", o.Suite, err)
	}
	initrd, layer := filepath.Join(dir, "debian.img"), filepath.Join(dir, "disk.qcow2")
	if err := os.WriteFile(initrd, image, 0o644); err != nil {
		return nil, err
	}
	create := exec.CommandContext(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b",
		filepath.Join(root, "disk"), layer)
	if out, err := create.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("qemu-img: %w: %s (is qemu-utils installed?)", err, out)
	}
	args := append(x86Args(1), "-m", "768", "-drive", "file="+layer+",format=qcow2,if=virtio,cache=unsafe",
		"-kernel", filepath.Join(root, "vmlinux"), "-initrd", initrd, "-append", "console=ttyS0 panic=-1 "+x86Append+
			knownTSC())
	return &second{name: "debian", qemu: "qemu-system-x86_64", args: args, dir: dir, cards: debianCards,
		opts: opts}, nil
}

func debianInitramfs(root, version, agentPath string) ([]byte, error) {
	busybox, err := staticBusybox()
	if err != nil {
		return nil, err
	}
	agent, err := os.ReadFile(agentPath)
	if err != nil {
		return nil, err
	}
	modules, err := moduleFiles(root, version, debianModules)
	if err != nil {
		return nil, err
	}
	t := newTree()
	for _, name := range []string{"proc", "sys", "dev", "root", "modules"} {
		t.dir(name)
	}
	t.file("bin/busybox", busybox)
	t.file("sbin/agent", agent)
	t.file("init", debianInit)
	order, err := t.modules(modules)
	if err != nil {
		return nil, err
	}
	t.file("modules.order", []byte(order))
	return t.archive.bytes(), nil
}
