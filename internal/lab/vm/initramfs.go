package vm

import (
	"debug/elf"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed init.sh
var initScript []byte

// bootModules are needed before the host's root is mounted. All others are loaded from there.
var bootModules = []string{"virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_console"}

// initramfs builds the archive for the kernel whose modules are in root/lib/modules.
func initramfs(root, version string) ([]byte, error) {
	busybox, err := staticBusybox()
	if err != nil {
		return nil, err
	}
	modules, err := moduleFiles(root, version, bootModules)
	if err != nil {
		return nil, err
	}
	var archive cpioArchive
	archive.add("bin", cpioDir, nil)
	archive.add("bin/busybox", cpioFile, busybox)
	archive.add("init", cpioFile, initScript)
	archive.add("modules", cpioDir, nil)
	var order strings.Builder
	for _, path := range modules {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		archive.add("modules/"+filepath.Base(path), cpioFile, data)
		fmt.Fprintln(&order, filepath.Base(path))
	}
	archive.add("modules.order", cpioFile, []byte(order.String()))
	return archive.bytes(), nil
}

// moduleFiles lists the .ko files of modules, in an order in which they can be loaded.
func moduleFiles(root, version string, modules []string) ([]string, error) {
	var files []string
	seen := map[string]bool{}
	for _, module := range modules {
		out, err := exec.Command("modprobe", "-S", version, "-d", root, "--show-depends", module).Output()
		if err != nil {
			return nil, fmt.Errorf("modprobe --show-depends %s (is kmod installed?): %w", module, withStderr(err))
		}
		for line := range strings.Lines(string(out)) {
			fields := strings.Fields(line)
			if len(fields) < 2 || fields[0] != "insmod" || seen[fields[1]] { // the rest is "builtin NAME"
				continue
			}
			seen[fields[1]] = true
			files = append(files, fields[1])
		}
	}
	return files, nil
}

func staticBusybox() ([]byte, error) {
	const path, advice = "/bin/busybox", "install busybox-static"
	file, err := elf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, advice)
	}
	defer file.Close()
	for _, prog := range file.Progs {
		if prog.Type == elf.PT_INTERP {
			return nil, fmt.Errorf("%s is not statically linked: %s", path, advice)
		}
	}
	return os.ReadFile(path)
}
