package kernel

import (
	"errors"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/state"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// readKeys reads the secrets of a relay.
func readKeys(r *config.Relay) (keys state.Keys, err error) {
	keys.Private, err = ReadPrivate(r.WireGuard.PrivateFile, r.Name)
	if file := r.WireGuard.PresharedFile; err == nil && file != "" {
		keys.Preshared, err = ReadSecret(file)
		if errors.Is(err, os.ErrNotExist) {
			err = message.New("there is no file %s with the preshared key; both ends need the same one: ds4relay "+
				"genkey --preshared", file)
		}
	}
	keys.Private = keys.Private.Clamp() // as the kernel does
	if err == nil && keys.Private.Public() == r.WireGuard.PublicKey {
		err = message.New("option public_key is this end's own; it takes the other end's")
	}
	return keys, err
}

// ReadPrivate reads a relay's private key from its file. The errors say what to do.
func ReadPrivate(path, relay string) (transport.Secret, error) {
	s, err := ReadSecret(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		err = message.New("there is no file %s with the private key; make one: ds4relay genkey %s", path, relay)
	case errors.Is(err, os.ErrPermission):
		err = message.New("the private key cannot be read: %v; only root may, and a service of systemd sees nothing "+
			"in /root and /home", err)
	}
	return s, err
}

// maxSecret limits the size of a file with a key, in bytes.
const maxSecret = 4096

// ReadSecret reads a file with a key, which only root, or whoever runs this, may read or write. No error shows what is
// in the file.
func ReadSecret(path string) (s transport.Secret, err error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return s, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return s, err
	}
	var stat unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &stat); err != nil {
		return s, err
	}
	switch {
	case !info.Mode().IsRegular():
		return s, message.New("%s is no file", path)
	case stat.Uid != 0 && int(stat.Uid) != os.Geteuid():
		return s, message.New("%s belongs to another user; let root own it: chown root %s", path, path)
	case info.Mode().Perm()&0o077 != 0:
		return s, message.New("others may read or write %s; allow root only: chmod 600 %s", path, path)
	case info.Size() > maxSecret:
		return s, message.New("%s has no key in it, but %d bytes", path, info.Size())
	}
	data := make([]byte, info.Size())
	n, _ := file.Read(data)
	key, ok := transport.ParseKey(strings.TrimSpace(string(data[:n])))
	if !ok || !key.Valid() {
		return s, message.New("%s has no key in it; a key is one line of 44 characters, as `ds4relay genkey` writes it",
			path)
	}
	return transport.Secret(key), nil
}

// somewhere6 stands for an address on the internet (RFC 3849).
var somewhere6 = netip.MustParseAddr("2001:db8::1")

// hasIPv6 reports whether there is a route to the internet of IPv6.
func hasIPv6() bool {
	_, err := routeTo(somewhere6, netip.Addr{})
	return err == nil
}
