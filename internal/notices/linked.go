// Package notices writes a package's copyright file from what is linked into its program: Go's library and modules,
// whose licences require their notices in binary distributions. It runs while packages are built.
package notices

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"errors"
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

// A Module is a module that is linked into a program.
type Module struct {
	Path    string // module path; "go" is Go's own library
	Version string // "" for the program's own module
	Files   []File // its licence files, sorted by path
}

// A File is a file with licence terms, or with notices that must accompany them.
type File struct{ Path, Text string }

// goPath is the path of Go's own library.
const goPath = "go"

// termsName matches names of licence files. Go's PATENTS file need not be passed on.
var termsName = regexp.MustCompile(`(?i)^(licen[cs]e|copying|copyright|notice)([.-].*)?$`)

// experiment matches what GOEXPERIMENT appends to Go's version.
var experiment = regexp.MustCompile(`[- ]X:.*$`)

// listed is a package in the output of `go list`.
type listed struct {
	Dir      string
	Standard bool
	Module   *struct {
		Path, Version, Dir string
		Main               bool
	}
}

// Linked returns the modules that are linked into a program of this module, the program's own first. Version and
// platform are read from the program, which must be built from the sources in the working directory.
func Linked(program string) ([]Module, error) {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return nil, err
	}
	goEnv, err := goCommand(nil, "env", "GOROOT", "GOVERSION")
	if err != nil {
		return nil, err
	}
	words := strings.Fields(string(goEnv))
	if version := experiment.ReplaceAllString(info.GoVersion, ""); len(words) != 2 || words[1] != version {
		return nil, fmt.Errorf("%s is built with %s; here is %s", program, version, words)
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	var env []string
	for _, name := range []string{"GOOS", "GOARCH", "CGO_ENABLED"} {
		env = append(env, name+"="+settings[name])
	}
	out, err := goCommand(env, "list", "-deps", "-tags", settings["-tags"], "-json=Dir,Standard,Module", info.Path)
	if err != nil {
		return nil, err
	}
	files := map[string]map[string]bool{}
	versions := map[string]string{goPath: words[1]}
	main := ""
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		path, root, below := goPath, words[0], filepath.Join(words[0], "src", "vendor")
		if m := p.Module; m != nil {
			path, root, below, versions[m.Path] = m.Path, m.Dir, m.Dir, m.Version
			if m.Main {
				main = m.Path
			}
		} else if !p.Standard {
			return nil, fmt.Errorf("%s is of no module", p.Dir)
		}
		if files[path] == nil {
			files[path] = map[string]bool{}
			if err := collect(files[path], root); err != nil {
				return nil, err
			}
		}
		// Parts may have other terms than their module. In Go's library this applies only to vendored packages: the
		// licence in crypto/internal/boring is for a library that is not linked.
		for dir := p.Dir; strings.HasPrefix(dir, below+string(filepath.Separator)); dir = filepath.Dir(dir) {
			if err := collect(files[path], dir); err != nil {
				return nil, err
			}
		}
	}
	for _, m := range info.Deps {
		if versions[m.Path] != m.Version {
			return nil, fmt.Errorf("%s has %s %s; the sources have %q", program, m.Path, m.Version, versions[m.Path])
		}
	}
	modules, err := read(files, versions)
	slices.SortStableFunc(modules, func(a, b Module) int {
		switch {
		case a.Path == main:
			return -1
		case b.Path == main:
			return 1
		}
		return strings.Compare(a.Path, b.Path)
	})
	return modules, err
}

// collect finds the licence files in a directory.
func collect(files map[string]bool, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Type().IsRegular() && termsName.MatchString(e.Name()) && filepath.Ext(e.Name()) != ".go" {
			files[filepath.Join(dir, e.Name())] = true
		}
	}
	return nil
}

// read reads the licence files of each module.
func read(files map[string]map[string]bool, versions map[string]string) ([]Module, error) {
	var modules []Module
	for path, names := range files {
		m := Module{Path: path, Version: versions[path]}
		for _, name := range slices.Sorted(maps.Keys(names)) {
			text, err := os.ReadFile(name)
			if err != nil {
				return nil, err
			}
			m.Files = append(m.Files, File{name, string(text)})
		}
		modules = append(modules, m)
	}
	return modules, nil
}

func goCommand(env []string, args ...string) ([]byte, error) {
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), env...)
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, problems.String())
	}
	return out, nil
}
