package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	configPath  = "/etc/config/ds4relay"
	startedPath = "/var/started"
	bootPath    = "/etc/rc.d/S21ds4relay"
)

// root is a directory that looks to the program like a router's root.
type root struct{ dir string }

func newRoot(dir, program string) (*root, error) {
	r := &root{dir}
	for _, d := range []string{"etc/config", "etc/init.d", "etc/rc.d", "usr/bin", "usr/sbin", "proc", "sys", "tmp",
		"var/run", "var/answers", "dev"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("this needs root: %w", err)
	}
	if err := syscall.Mount("proc", filepath.Join(dir, "proc"), "proc", 0, ""); err != nil {
		return nil, err
	}
	if err := syscall.Mount("/dev", filepath.Join(dir, "dev"), "", syscall.MS_BIND, ""); err != nil {
		return nil, err
	}
	if err := r.write("/etc/openwrt_release", "DISTRIB_ID='OpenWrt'\n"); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	for name, source := range map[string]string{"/usr/sbin/ds4relay": program, "/usr/bin/ubus": self,
		"/etc/init.d/ds4relay": self} {
		if err := r.copy(name, source); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *root) path(name string) string { return filepath.Join(r.dir, name) }

func (r *root) write(name, text string) error { return os.WriteFile(r.path(name), []byte(text), 0o644) }

func (r *root) copy(name, source string) error {
	in, err := os.Open(source)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(r.path(name), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Close()
}

// call runs the program as rpcd runs a plugin, in a network namespace of its own.
func (r *root) call(method string, arguments json.RawMessage) (json.RawMessage, error) {
	if len(arguments) == 0 {
		arguments = json.RawMessage("{}")
	}
	cmd := exec.Command("/usr/sbin/ds4relay", "rpcd", "call", method)
	cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/bin:/usr/sbin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: r.dir, Cloneflags: syscall.CLONE_NEWNET}
	var out, problems bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(arguments), &out, &problems
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("ds4relay rpcd call %s: %w %s", method, err, problems.String())
	}
	return out.Bytes(), nil
}

// set makes a file exist, or not.
func (r *root) set(name string, exists bool) error {
	if exists {
		return r.write(name, "")
	}
	err := os.Remove(r.path(name))
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

// fakeUbus is the program ubus in the root: it answers with the file /var/answers/OBJECT.METHOD.
func fakeUbus(args []string) int {
	if len(args) < 3 || args[0] != "call" {
		return 2
	}
	if args[1] == "service" {
		if _, err := os.Stat(startedPath); err == nil {
			fmt.Println(`{"ds4relay":{}}`)
		} else {
			fmt.Println(`{}`)
		}
		return 0
	}
	data, err := os.ReadFile("/var/answers/" + args[1] + "." + args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "Command failed: Not found")
		return 4
	}
	os.Stdout.Write(data)
	return 0
}

// fakeInit is the init script in the root.
func fakeInit(args []string) int {
	r := root{"/"}
	var err error
	switch strings.Join(args, " ") {
	case "start", "restart", "reload":
		err = r.set(startedPath, true)
	case "stop":
		err = r.set(startedPath, false)
	case "enable":
		err = r.set(bootPath, true)
	case "disable":
		err = r.set(bootPath, false)
	default:
		return 1
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
