package vm

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// DebianOptions add a second virtual machine: the VPS, a complete Debian or Ubuntu with systemd.
type DebianOptions struct {
	Suite string // bookworm, trixie, jammy or noble
	Agent string // path of internal/lab/agent
}

// debianSuite is a release that ds4relay's package supports.
type debianSuite struct {
	ubuntu bool
	// Programs of this release only, in addition to debianPackages. Their services do not start by themselves.
	more []string
}

var debianSuites = map[string]debianSuite{
	"bookworm": {more: []string{"ifupdown", "docker.io", "network-manager"}},
	"trixie": {more: []string{"ifupdown", "docker-cli", "docker.io", "network-manager", "openssh-server",
		"prometheus-node-exporter"}},
	"jammy": {ubuntu: true, more: []string{"netplan.io"}},
	"noble": {ubuntu: true, more: []string{"netplan.io"}},
}

// debianPackages are programs that servers have in addition to the base system.
var debianPackages = []string{"systemd-sysv", "udev", "dbus", "nftables", "iproute2", "iptables", "ufw", "kmod",
	"procps", "netbase", "iputils-ping", "bash-completion"}

// UbuntuEnvironment is the variable that names a mirror of Ubuntu, such as http://HOST/ubuntu: a Debian machine knows
// none.
const UbuntuEnvironment = "DS4RELAY_UBUNTU"

func (s debianSuite) packages() string {
	return strings.Join(append(slices.Clone(debianPackages), s.more...), ",")
}

// kernel returns the package that depends on the newest kernel.
func (s debianSuite) kernel() string {
	if s.ubuntu {
		return "linux-image-virtual"
	}
	return kernelPackage
}

// source returns the line of sources.list for a release. Debian has no key of Ubuntu's.
func (s debianSuite) source(name string) (string, error) {
	if !s.ubuntu {
		mirror, err := debianMirror()
		return "deb " + mirror + " " + name + " main", err
	}
	mirror := os.Getenv(UbuntuEnvironment)
	if mirror == "" {
		return "", fmt.Errorf("set %s to a mirror of Ubuntu", UbuntuEnvironment)
	}
	return "deb [trusted=yes] " + mirror + " " + name + " main universe", nil
}

// debianModules are needed before the disk is mounted.
var debianModules = []string{"virtio_pci", "virtio_blk", "ext4", "crc32c_generic"}

//go:embed debian-root.sh
var debianRoot []byte

//go:embed debian.sh
var debianInit []byte

// debianKey changes with the content of the disk.
func debianKey(suite debianSuite) string {
	const layout = " vmlinux"
	sum := sha256.Sum256(append([]byte(suite.packages()+layout), debianRoot...))
	return fmt.Sprintf("%x", sum[:6])
}

// PrepareDebian returns the directory with a suite's disk and kernel. If they do not exist it creates them, in about a
// minute.
func PrepareDebian(ctx context.Context, name string, log io.Writer) (dir string, err error) {
	suite, ok := debianSuites[name]
	if !ok {
		return "", fmt.Errorf("no release %q; there are %s", name,
			strings.Join(slices.Sorted(maps.Keys(debianSuites)), ", "))
	}
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(ctx, filepath.Join(cache, "lock-"+name))
	if err != nil {
		return "", err
	}
	defer unlock()
	dir = filepath.Join(cache, "debian-"+name+"-"+debianKey(suite))
	if _, err := os.Stat(filepath.Join(dir, "disk")); err == nil {
		return dir, nil
	}
	source, err := suite.source(name)
	if err != nil {
		return "", err
	}
	fmt.Fprintf(log, "labctl: making a root of %s\n", name)
	former, err := filepath.Glob(filepath.Join(cache, "debian-"+name+"-*"))
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
		{"mmdebstrap", "--quiet", "--mode=root", "--variant=apt", "--include=" + suite.packages(),
			"--format=directory",
			`--aptopt=Acquire::Languages "none"`, "--dpkgopt=path-exclude=/usr/share/locale/*",
			"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=force-unsafe-io",
			"--customize-hook=APT_CONFIG=$MMDEBSTRAP_APT_CONFIG " + hook + ` "$1" ` + suite.kernel(), name, root,
			source},
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
		return "", fmt.Errorf("the root of %s has %d kernels, want 1", name, len(images))
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
		return nil, fmt.Errorf("the initramfs of %s: %w", o.Suite, err)
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
	// Without the LSM of BPF the first process takes 23 s of CPU time for a boot of Debian 13, with it 55 s. No unit of
	// the package asks for it, and no profile of AppArmor is installed.
	args := append(x86Args(1), "-m", "768", "-drive", "file="+layer+",format=qcow2,if=virtio,cache=unsafe",
		"-kernel", filepath.Join(root, "vmlinux"), "-initrd", initrd, "-append", "console=ttyS0 panic=-1 "+
			"norandmaps lsm=landlock,lockdown,yama audit=0 psi=0 hardened_usercopy=off "+x86Append+coarseTimers+knownTSC())
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
