package vm

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// RouterOptions add a second virtual machine with a router's CPU: the home's router, with the files of its package.
type RouterOptions struct {
	Arch    string // mipsel or arm64
	Agent   string // path of internal/lab/agent, built for this architecture
	Package string // path of an .ipk
	Icount  bool   // its clock counts instructions, one per nanosecond
}

// Network cards between the two machines, by the last byte of the MAC address in the first machine: the line to the
// provider, the home's network, and the link to the agent.
const (
	CardWAN = 1
	CardLAN = 2
	CardCtl = 3
)

var (
	routerCards = []int{CardWAN, CardLAN, CardCtl}
	debianCards = []int{CardWAN, CardCtl}
)

// CardMAC returns the MAC address of a card of the first machine.
func CardMAC(card int) string { return fmt.Sprintf("52:54:00:46:01:%02x", card) }

// CtlPeer is the first machine's address on the link to the agent (remote.Address).
const CtlPeer = "169.254.46.1/24"

// routerArch is what differs between architectures.
type routerArch struct {
	kernelPackage string // depends on the newest kernel
	qemu          string
	qemuArgs      []string
	console       string
}

var routerArchs = map[string]routerArch{
	// MIPS 24Kc, the most common CPU of OpenWrt routers.
	"mipsel": {"linux-image-4kc-malta", "qemu-system-mipsel", []string{"-machine", "malta", "-m", "256"}, "ttyS0"},
	"arm64": {"linux-image-arm64", "qemu-system-aarch64", []string{"-machine", "virt", "-cpu", "cortex-a53", "-m",
		"512"}, "ttyAMA0"},
}

// routerModules are loaded in this order, after their dependencies.
var routerModules = []string{"virtio_pci", "virtio_net", "ip6_tunnel", "wireguard", "nf_tables", "nft_ct",
	"nft_chain_nat", "nft_nat", "nft_masq", "nft_reject_ipv4", "nf_conntrack_netlink", "nft_flow_offload",
	"nf_flow_table_inet"}

// routerPackages are the router's Debian programs with their libraries. Everything else is in the package.
var routerPackages = []string{"busybox-static", "nftables", "libnftables1", "libnftnl11", "libmnl0", "libjansson4",
	"libgmp10", "libedit2", "libxtables12", "libc6", "libbsd0", "libmd0", "libtinfo6"}

//go:embed router.sh
var routerInit []byte

// PrepareRouter returns the root and kernel version for an architecture. It downloads what is not in the cache.
func PrepareRouter(ctx context.Context, arch string, log io.Writer) (root, version string, err error) {
	a, ok := routerArchs[arch]
	if !ok {
		return "", "", fmt.Errorf("no router of architecture %q; there are mipsel and arm64", arch)
	}
	cache, unlock, err := lockCache(ctx)
	if err != nil {
		return "", "", err
	}
	defer unlock()
	root = filepath.Join(cache, "router-"+arch)
	if data, err := os.ReadFile(filepath.Join(root, "version")); err == nil {
		return root, strings.TrimSpace(string(data)), nil
	}
	fmt.Fprintf(log, "labctl: downloading a kernel and programs for %s\n", arch)
	tmp, err := os.MkdirTemp(cache, "download-")
	if err != nil {
		return "", "", err
	}
	defer os.RemoveAll(tmp)
	version, err = downloadForeign(ctx, tmp, arch, a)
	if err != nil {
		return "", "", err
	}
	if err := os.WriteFile(filepath.Join(tmp, "root", "version"), []byte(version+"\n"), 0o644); err != nil {
		return "", "", err
	}
	if err := os.RemoveAll(root); err != nil {
		return "", "", err
	}
	return root, version, os.Rename(filepath.Join(tmp, "root"), root)
}

// downloadForeign downloads packages of another architecture without changing the machine's own apt.
func downloadForeign(ctx context.Context, dir, arch string, a routerArch) (version string, err error) {
	for _, sub := range []string{"lists/partial", "cache/archives/partial", "debs", "root"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return "", err
		}
	}
	config := fmt.Sprintf("APT::Architectures { \"amd64\"; %q; };\nDir::State::Lists %q;\nDir::Cache "+
		"%q;\nAPT::Sandbox::User \"root\";\n", arch, filepath.Join(dir, "lists"), filepath.Join(dir, "cache"))
	if err := os.WriteFile(filepath.Join(dir, "apt.conf"), []byte(config), 0o644); err != nil {
		return "", err
	}
	run := func(in string, args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Dir = filepath.Join(dir, in)
		cmd.Env = append(os.Environ(), "APT_CONFIG="+filepath.Join(dir, "apt.conf"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("%s: %w: %s", strings.Join(args[:min(3, len(args))], " "), err, lastLine(out))
		}
		return string(out), nil
	}
	if _, err := run(".", "apt-get", "-qq", "update"); err != nil {
		return "", err
	}
	out, err := run(".", "apt-cache", "depends", a.kernelPackage+":"+arch)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(out) {
		if kernel, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: linux-image-"); ok && version == "" {
			version = strings.TrimSuffix(kernel, ":"+arch)
		}
	}
	if version == "" {
		return "", fmt.Errorf("apt-cache depends %s names no kernel", a.kernelPackage)
	}
	download := []string{"apt-get", "-q", "download", "linux-image-" + version + ":" + arch}
	for _, name := range routerPackages {
		download = append(download, name+":"+arch)
	}
	if _, err := run("debs", download...); err != nil {
		return "", err
	}
	debs, err := filepath.Glob(filepath.Join(dir, "debs", "*.deb"))
	if err != nil || len(debs) != len(routerPackages)+1 {
		return "", fmt.Errorf("apt-get download left %d packages, want %d", len(debs), len(routerPackages)+1)
	}
	for _, deb := range debs {
		if _, err := run(".", "dpkg", "-x", deb, "root"); err != nil {
			return "", err
		}
	}
	_, err = run(".", "depmod", "-b", filepath.Join(dir, "root"), version)
	return version, err
}

// routerInitramfs builds the router's root: busybox, nft with its libraries, modules, the agent, and the package.
func routerInitramfs(root, version string, o RouterOptions) ([]byte, error) {
	a := newTree()
	for _, name := range []string{"bin", "sbin", "usr/bin", "usr/sbin", "etc", "proc", "sys", "dev", "tmp", "run",
		"modules"} {
		a.dir(name)
	}
	a.file("init", routerInit)
	agent, err := os.ReadFile(o.Agent)
	if err != nil {
		return nil, err
	}
	a.file("sbin/agent", agent)
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name := strings.TrimPrefix(path, root+"/")
		wanted := name == "bin/busybox" || name == "usr/sbin/nft" || strings.Contains(name, ".so") &&
			(strings.HasPrefix(name, "lib/") || strings.HasPrefix(name, "usr/lib/")) && !strings.Contains(name, "gconv")
		if !wanted {
			return nil
		}
		if entry.Type()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(path)
			if err == nil {
				a.link(name, target)
			}
			return err
		}
		data, err := os.ReadFile(path)
		if err == nil {
			a.file(name, data)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	modules, err := moduleFiles(root, version, routerModules)
	if err != nil {
		return nil, err
	}
	order, err := a.modules(modules)
	if err != nil {
		return nil, err
	}
	a.file("modules.order", []byte(order))
	if err := a.unpack(o.Package); err != nil {
		return nil, fmt.Errorf("%s: %w", o.Package, err)
	}
	return a.archive.bytes(), nil
}

// tree is a cpio archive that adds the parent directories of its files.
type tree struct {
	archive cpioArchive
	dirs    map[string]bool
}

func newTree() *tree { return &tree{dirs: map[string]bool{".": true}} }

func (t *tree) dir(name string) {
	if !t.dirs[name] {
		t.dir(filepath.Dir(name))
		t.dirs[name] = true
		t.archive.add(name, cpioDir, nil)
	}
}

func (t *tree) file(name string, data []byte) {
	t.dir(filepath.Dir(name))
	t.archive.add(name, cpioFile, data)
}

func (t *tree) link(name, target string) {
	t.dir(filepath.Dir(name))
	t.archive.add(name, cpioLink, []byte(target))
}

// modules adds the files of modules and returns their names in order.
func (t *tree) modules(paths []string) (string, error) {
	var order strings.Builder
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		t.file("modules/"+filepath.Base(path), data)
		fmt.Fprintln(&order, filepath.Base(path))
	}
	return order.String(), nil
}

// unpack adds the files of an .ipk: a gzip-compressed tar that contains data.tar.gz.
func (t *tree) unpack(path string) error {
	outer, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	found := false
	err = eachFile(outer, func(h *tar.Header, data []byte) error {
		if filepath.Base(h.Name) != "data.tar.gz" {
			return nil
		}
		found = true
		return eachFile(data, func(h *tar.Header, data []byte) error {
			if h.Typeflag == tar.TypeReg {
				t.file(filepath.Clean(h.Name), data)
			}
			return nil
		})
	})
	if err == nil && !found {
		err = errors.New("no data.tar.gz in it")
	}
	return err
}

func eachFile(archive []byte, f func(*tar.Header, []byte) error) error {
	z, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return err
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		data, err := io.ReadAll(r)
		if err == nil {
			err = f(h, data)
		}
		if err != nil {
			return err
		}
	}
}

// newRouter describes the router's machine, whose files are in dir.
func newRouter(ctx context.Context, opts *Options, dir string) (*second, error) {
	o := opts.Router
	root, version, err := PrepareRouter(ctx, o.Arch, opts.Stderr)
	if err != nil {
		return nil, err
	}
	data, err := routerInitramfs(root, version, *o)
	if err != nil {
		return nil, fmt.Errorf("the router's initramfs: %w", err)
	}
	initrd := filepath.Join(dir, "router.img")
	if err := os.WriteFile(initrd, data, 0o644); err != nil {
		return nil, err
	}
	a := routerArchs[o.Arch]
	args := slices.Clone(a.qemuArgs)
	if o.Icount { // a Malta's kernel measures its CPU's clock with the real-time clock
		args = append(args, "-icount", "shift=0,sleep=on", "-rtc", "clock=vm")
	}
	args = append(args, "-kernel", filepath.Join(root, "boot", "vmlinuz-"+version), "-initrd",
		initrd, "-append", "console="+a.console+" panic=-1 quiet rdinit=/init")
	return &second{name: "router", qemu: a.qemu, args: args, dir: dir, cards: routerCards, opts: opts}, nil
}
