package vm

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// layOut brings the files of a kernel's packages to where they were before Debian 13, which has the modules below /usr,
// and since Linux 7 the kernel beside them.
const layOut = `cd "$0"
if [ -d usr/lib/modules ]; then mkdir -p lib; mv usr/lib/modules lib; fi
if [ ! -e "boot/vmlinuz-$1" ]; then mkdir -p boot; mv "lib/modules/$1/vmlinuz" "boot/vmlinuz-$1"; fi`

// download unpacks the newest kernel of a suite, or of this computer's release, into a directory of the cache, and
// returns its version.
func download(ctx context.Context, cache, suite string, log io.Writer) (version string, err error) {
	tmp, err := os.MkdirTemp(cache, "download-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	apt := os.Environ()
	if suite != "" {
		fmt.Fprintf(log, "labctl: reading the list of packages of %s\n", suite)
		if apt, err = aptOf(ctx, suite, tmp); err != nil {
			return "", err
		}
	}
	version, packages, err := kernelPackages(apt)
	if err != nil {
		return "", err
	}
	fmt.Fprintf(log, "labctl: downloading %s\n", strings.Join(packages, ", "))
	get := exec.CommandContext(ctx, "apt-get", append([]string{"-q", "download"}, packages...)...)
	if os.Geteuid() == 0 { // apt's own user cannot write to the cache
		get.Args = append(get.Args, "-o", "APT::Sandbox::User=root")
	}
	get.Dir, get.Env = tmp, apt
	if out, err := get.CombinedOutput(); err != nil {
		return "", fmt.Errorf("apt-get download %s: %w: %s (run apt-get update and try again)",
			strings.Join(packages, " "), err, lastLine(out))
	}
	debs, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if err != nil || len(debs) != len(packages) {
		return "", fmt.Errorf("apt-get download %s left %d packages", strings.Join(packages, " "), len(debs))
	}
	root := filepath.Join(tmp, "root")
	var steps [][]string
	for _, deb := range debs {
		steps = append(steps, []string{"dpkg", "-x", deb, root})
	}
	steps = append(steps, []string{"sh", "-ec", layOut, root, version}, []string{"depmod", "-b", root, version})
	for _, step := range steps {
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

// aptOf returns the environment of an apt for another suite, whose files are in dir, and reads its list of packages.
func aptOf(ctx context.Context, suite, dir string) (env []string, err error) {
	mirror, err := debianMirror()
	if err != nil {
		return nil, err
	}
	for _, sub := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	config, sources := filepath.Join(dir, "apt.conf"), filepath.Join(dir, "sources.list")
	for path, text := range map[string]string{
		config: fmt.Sprintf("Dir::State::Lists %q;\nDir::Cache %q;\nDir::Etc::SourceList %q;\nDir::Etc::SourceParts "+
			"\"-\";\nAcquire::Languages \"none\";\nAPT::Sandbox::User \"root\";\n", filepath.Join(dir, "lists"),
			filepath.Join(dir, "cache"), sources),
		sources: "deb " + mirror + " " + suite + " main\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	env = append(os.Environ(), "APT_CONFIG="+config)
	update := exec.CommandContext(ctx, "apt-get", "-qq", "update", "--error-on=any")
	update.Env = env
	if out, err := update.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("apt-get update for %s: %w: %s", suite, err, lastLine(out))
	}
	return env, nil
}

// kernelPackages returns the newest kernel's version and its packages: one, and since Linux 7 those that it consists
// of.
func kernelPackages(apt []string) (version string, packages []string, err error) {
	depends := func(pkg string) (string, error) {
		cmd := exec.Command("apt-cache", "depends", pkg)
		cmd.Env = apt
		out, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("apt-cache depends %s: %w (run apt-get update and try again)", pkg, withStderr(err))
		}
		return string(out), nil
	}
	out, err := depends(kernelPackage)
	if err != nil {
		return "", nil, err
	}
	match := regexp.MustCompile(`Depends: linux-image-(\S+)`).FindStringSubmatch(out)
	if match == nil {
		return "", nil, fmt.Errorf("apt-cache depends %s names no kernel (run apt-get update and try again)",
			kernelPackage)
	}
	version = match[1]
	packages = []string{"linux-image-" + version}
	if out, err = depends(packages[0]); err != nil {
		return "", nil, err
	}
	parts := regexp.MustCompile(`Depends: (linux-(?:base|binary|modules)-` + regexp.QuoteMeta(version) + `)\s`)
	for _, match := range parts.FindAllStringSubmatch(out, -1) {
		packages = append(packages, match[1])
	}
	return version, packages, nil
}
