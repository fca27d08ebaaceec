package kernel

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// TestReadKeys: each mistake with a file for a key has a message that says what to do, and none shows what is in it.
func TestReadKeys(t *testing.T) {
	key := transport.Key{1, 2, 3}.String()
	own := transport.Secret{1, 2, 3}.Public()
	dir := t.TempDir()
	path := filepath.Join(dir, "home")
	write := func(text string, mode os.FileMode) func() error {
		return func() error {
			if err := os.WriteFile(path, []byte(text), mode); err != nil {
				return err
			}
			return os.Chmod(path, mode)
		}
	}
	for _, c := range []struct {
		name  string
		make  func() error
		relay config.WireGuardOptions
		want  string // of the message; "" for none
	}{
		{"a key", write(key+"\n", 0o600), config.WireGuardOptions{}, ""},
		{"a key that not even root may write", write(key, 0o400), config.WireGuardOptions{}, ""},
		{"a link to it", func() error {
			if err := write(key, 0o600)(); err != nil {
				return err
			}
			return os.Rename(path, path+".real")
		}, config.WireGuardOptions{PrivateFile: path + ".link"}, ""},
		{"none", func() error { return nil }, config.WireGuardOptions{},
			"there is no file " + path + " with the private key; make one: ds4relay genkey home"},
		{"no directory", func() error { return nil }, config.WireGuardOptions{PrivateFile: dir + "/none/home"},
			"there is no file " + dir + "/none/home with the private key; make one: ds4relay genkey home"},
		{"a directory", func() error { return os.Mkdir(path, 0o700) }, config.WireGuardOptions{}, path + " is no file"},
		{"others may read it", write(key, 0o644), config.WireGuardOptions{},
			"others may read or write " + path + "; allow root only: chmod 600 " + path},
		{"a group may write it", write(key, 0o620), config.WireGuardOptions{}, "chmod 600 " + path},
		{"another's", func() error {
			if err := write(key, 0o600)(); err != nil {
				return err
			}
			return os.Chown(path, 12345, 0)
		}, config.WireGuardOptions{}, path + " belongs to another user; let root own it: chown root " + path},
		{"empty", write("", 0o600), config.WireGuardOptions{}, path + " has no key in it"},
		{"a key of zeros", write(transport.Key{}.String(), 0o600), config.WireGuardOptions{}, "has no key in it"},
		{"cut off", write(key[:43], 0o600), config.WireGuardOptions{}, "has no key in it"},
		{"more than a key", write(key+"\nPrivateKey = x\n", 0o600), config.WireGuardOptions{}, "has no key in it"},
		{"large", write(strings.Repeat(key, 100), 0o600), config.WireGuardOptions{}, "has no key in it, but 4400 " +
			"bytes"},
		{"this end's key as the other end's", write(key, 0o600), config.WireGuardOptions{PublicKey: own},
			"option public_key is this end's own; it takes the other end's"},
		{"no preshared key", write(key, 0o600), config.WireGuardOptions{PresharedFile: path + ".psk"},
			"there is no file " + path + ".psk with the preshared key; both ends need the same one: ds4relay genkey " +
				"--preshared"},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer os.RemoveAll(path)
			if err := c.make(); err != nil {
				t.Skip(err)
			}
			if c.relay.PrivateFile == "" {
				c.relay.PrivateFile = path
			} else if strings.HasSuffix(c.relay.PrivateFile, ".link") {
				if err := os.Symlink(path+".real", c.relay.PrivateFile); err != nil {
					t.Fatal(err)
				}
			}
			keys, err := readKeys(&config.Relay{Name: "home", WireGuard: c.relay})
			switch {
			case c.want == "" && (err != nil || !keys.Private.Valid()):
				t.Errorf("%v, a key: %v", err, keys.Private.Valid())
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%v, want %s", err, c.want)
			case err != nil && strings.Contains(err.Error(), key[:20]):
				t.Errorf("it shows the key: %v", err)
			}
		})
	}
}
