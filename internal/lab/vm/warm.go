package vm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// warmPrograms are those that tests start most often.
var warmPrograms = []string{"nft", "ip", "sh", "bash", "cat", "sleep", "ping", "sysctl", "grep", "sed", "rm", "true",
	"iptables", "ip6tables", "iptables-save", "ip6tables-save", "iptables-legacy", "ip6tables-legacy"}

// warmFiles are patterns of the files that those programs open at each start.
var warmFiles = []string{"/etc/ld.so.cache", "/etc/iproute2/*", "/etc/group", "/etc/passwd", "/etc/nsswitch.conf",
	"/etc/protocols"}

// absolute matches the paths in what ldd writes.
var absolute = regexp.MustCompile(`/\S+`)

// warmPaths returns the files of programs, with the libraries that they load and all symbolic links on the way. The
// guest copies them into its memory: otherwise each start of a program opens each of its libraries on the host, which
// takes as long as all else (docs/dev/lab.md). What is not installed is left out.
func warmPaths(programs []string) []string {
	seen := map[string]bool{}
	var paths []string
	add := func(path string) {
		for _, path := range alongPath(path) {
			if !seen[path] {
				seen[path] = true
				paths = append(paths, path)
			}
		}
	}
	var found []string
	for _, program := range programs {
		if path, err := exec.LookPath(program); err == nil {
			add(path)
			found = append(found, path)
		}
	}
	libraries, _ := exec.Command("ldd", found...).Output() // it reports an error if a program is static
	for _, path := range absolute.FindAllString(string(libraries), -1) {
		add(strings.TrimSuffix(path, ":"))
	}
	for _, pattern := range warmFiles {
		matches, _ := filepath.Glob(pattern)
		for _, path := range matches {
			add(path)
		}
	}
	return paths
}

// alongPath returns the symbolic links in path and in what they point to, and the file at its end.
func alongPath(path string) []string {
	const maxLinks = 40 // path_resolution(7)
	var found []string
	for range maxLinks {
		link := ""
		for i := 1; i <= len(path) && link == ""; i++ {
			if i < len(path) && path[i] != '/' {
				continue
			}
			if info, err := os.Lstat(path[:i]); err == nil && info.Mode()&os.ModeSymlink != 0 {
				link = path[:i]
			}
		}
		if link == "" {
			break
		}
		target, err := os.Readlink(link)
		if err != nil {
			return found
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(link), target)
		}
		found = append(found, link)
		path = filepath.Clean(target + strings.TrimPrefix(path, link))
	}
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
		found = append(found, path)
	}
	return found
}

// warm copies files from the overlay's lower layer, the host's root, into its upper one. Setting a file's owner does
// that, even if it changes nothing.
func warm(paths []string) error {
	for _, path := range paths {
		if err := os.Lchown(path, -1, -1); err != nil && !errors.Is(err, fs.ErrNotExist) { // the host may remove one
			return fmt.Errorf("copy into memory: %w", err)
		}
	}
	return nil
}
