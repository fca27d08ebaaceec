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
	"github.com/ds4relay/ds4relay/internal/invite"
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
	app   *app
	stdin *bufio.Reader // nil before the first question
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

func (h *thisHost) Cloud() netip.Addr {
	ctx, cancel := context.WithTimeout(context.Background(), cloud.Limit)
	defer cancel()
	return cloud.Public(ctx, cloud.Service)
}

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
		return nil, message.New("%s is missing: the home recognises the VPS by this ed25519 key of the ssh server; to make "+
			"it: ssh-keygen -A && systemctl restart ssh (without an ssh server: apt install openssh-server)", path)
	}
	if err != nil {
		return nil, err
	}
	if words := strings.Fields(string(data)); len(words) > 1 { // type, key, comment
		key, err := base64.StdEncoding.DecodeString(words[1])
		if err == nil && invite.IsHostKey(key) {
			return key, nil
		}
	}
	return nil, message.New("%s is not an ed25519 public key; to make another one: rm %s && ssh-keygen -A && systemctl "+
		"restart ssh", path, strings.TrimSuffix(path, ".pub")+"*")
}

func (h *thisHost) Warnings(r *config.Relay) []*message.Text {
	return h.app.neighbours([]*config.Relay{r})
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

func (h *thisHost) Ready() error {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return message.New("systemd does not run on this machine, so setup cannot start the service, and nothing was " +
			"written; write the file by hand (man 5 ds4relay), and start the relays by ifupdown (docs/debian.md)")
	}
	return nil
}

func (h *thisHost) Start() (back func() error, err error) {
	was, _, err := program.Command{Name: "systemctl", Args: []string{"show", "-p", "ActiveState", "-p", "UnitFileState",
		unit}, Limit: systemctlFor}.Run()
	if err != nil {
		return nil, message.New("systemctl show %s: %v", unit, err)
	}
	active := strings.Contains(was, "ActiveState=active") || strings.Contains(was, "ActiveState=reloading")
	back = func() (err error) {
		if !active {
			err = systemctl("stop", unit)
		}
		if !strings.Contains(was, "UnitFileState=enabled") {
			err = errors.Join(err, systemctl("disable", unit))
		}
		if active {
			err = errors.Join(err, systemctl("reload", unit))
		}
		return err
	}
	if err := systemctl("enable", "--now", unit); err != nil || !active {
		return back, err
	}
	return back, systemctl("reload", unit)
}

func (h *thisHost) Invite(relay string, key [32]byte, expires time.Time) error {
	return paired.Path.Keys().Invite(relay, key, expires)
}

func (h *thisHost) Invited(relay string) (bool, time.Time, bool, error) {
	return paired.Path.Keys().State(relay)
}
