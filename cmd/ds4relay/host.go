//go:build !openwrt

package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/cloud"
	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/paired"
	"github.com/ds4relay/ds4relay/internal/program"
	"github.com/ds4relay/ds4relay/internal/setup"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// hostKeyFile has the public half of the ssh server's key.
const hostKeyFile = "/etc/ssh/ssh_host_ed25519_key.pub"

// thisHost is the machine that the program runs on.
type thisHost struct {
	app             *app
	stdin           *bufio.Reader // nil before the first question
	active, enabled bool          // what the service was
}

// host returns the machine for setup and invite.
func (a *app) host() host { return &thisHost{app: a} }

func (h *thisHost) Root() error {
	if os.Geteuid() != 0 {
		return errRoot
	}
	return needRoot()
}

func (h *thisHost) Machine(session string) (setup.Machine, error) { return kernel.Machine(session) }

func (h *thisHost) Cloud() netip.Addr { return cloud.Public(context.Background(), cloud.Service) }

func (h *thisHost) Ask(question string) (string, bool) {
	if _, err := unix.IoctlGetTermios(int(os.Stdin.Fd()), unix.TCGETS); err != nil {
		return "", false
	}
	if h.stdin == nil {
		h.stdin = bufio.NewReader(os.Stdin)
	}
	fmt.Fprint(h.app.stdout, question)
	line, err := h.stdin.ReadString('\n')
	if err != nil { // Ctrl-D
		fmt.Fprintln(h.app.stdout)
		return "no", true
	}
	return strings.TrimSpace(line), true
}

func (h *thisHost) HostKey() ([]byte, error) { return readHostKey(hostKeyFile) }

// readHostKey reads the public half of ssh's host key.
func readHostKey(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, message.New("there is no file %s: the ssh server has no ed25519 host key, by which the home would know "+
			"it; make one: ssh-keygen -A && systemctl restart ssh (where there is no ssh server: apt install "+
			"openssh-server)", path)
	}
	if err != nil {
		return nil, err
	}
	words := strings.Fields(string(data))
	if len(words) < 2 || words[0] != "ssh-ed25519" {
		return nil, message.New("%s has no ed25519 key in it; make another one: rm %s && ssh-keygen -A && systemctl "+
			"restart ssh", path, path)
	}
	key, err := base64.StdEncoding.DecodeString(words[1])
	if err != nil {
		return nil, message.New("%s has no ed25519 key in it: %v", path, err)
	}
	return key, nil
}

// sshd is where Debian has the ssh server; PATH of a user may not have the folder.
const sshd = "/usr/sbin/sshd"

// Warnings leaves out what cannot be found out.
func (h *thisHost) Warnings(r *config.Relay) []*message.Text {
	configuration, _, err := program.Command{Name: sshd, Args: []string{"-T", "-C",
		"user=" + setup.User + ",host=home,addr=203.0.113.1"}, Limit: 10 * time.Second}.Run()
	if err != nil {
		configuration = ""
	}
	return append(setup.ShutOut(configuration), h.app.neighbours([]*config.Relay{r})...)
}

func (h *thisHost) Key(r *config.Relay) (transport.Key, bool, error) {
	secret, err := kernel.ReadPrivate(r.WireGuard.PrivateFile, r.Name)
	if err == nil {
		return secret.Public(), false, nil
	}
	if _, statErr := os.Lstat(r.WireGuard.PrivateFile); !errors.Is(statErr, fs.ErrNotExist) {
		return transport.Key{}, false, err
	}
	if secret, err = newSecret(); err == nil {
		secret = secret.Clamp()
		err = writeSecret(r.WireGuard.PrivateFile, secret)
	}
	return secret.Public(), err == nil, err
}

func (h *thisHost) RemoveKey(r *config.Relay) error { return os.Remove(r.WireGuard.PrivateFile) }

const (
	unit         = "ds4relay.service"
	systemctlFor = 2 * time.Minute // more than up waits for another one
)

// systemctl runs it; the error is what it says.
func systemctl(words ...string) error {
	_, problems, err := program.Command{Name: "systemctl", Args: words, Limit: systemctlFor}.Run()
	if err != nil && problems != "" {
		return message.New("systemctl %s: %s", strings.Join(words, " "), problems)
	}
	return err
}

func (h *thisHost) Start() error {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return message.New("systemd does not run here; write the file with `ds4relay setup` on a machine with it, or see " +
			"docs/debian.md for ifupdown")
	}
	h.active, h.enabled = systemctl("-q", "is-active", unit) == nil, systemctl("-q", "is-enabled", unit) == nil
	if err := systemctl("enable", "--now", unit); err != nil || !h.active {
		return err
	}
	return systemctl("reload", unit)
}

func (h *thisHost) Back() error {
	var err error
	if !h.active {
		err = systemctl("stop", unit)
	}
	if !h.enabled {
		err = errors.Join(err, systemctl("disable", unit))
	}
	if h.active {
		err = errors.Join(err, systemctl("reload", unit))
	}
	return err
}

func (h *thisHost) Invite(relay string, key [32]byte, expires time.Time) error {
	return paired.Path.Keys().Invite(relay, key, expires)
}

func (h *thisHost) Invited(relay string) (bool, time.Time, bool, error) {
	return paired.Path.Keys().State(relay)
}
