package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// keyFile returns the file with a relay's private key. The configuration may not have the relay yet, or not all that it
// needs: the other end's public key is made by the same command there.
func (a *app) keyFile(command string, args []string) (string, error) {
	if len(args) != 1 {
		return "", usageError(command + " takes the name of one relay")
	}
	if !config.RelayName(args[0]) {
		return "", usageError(fmt.Sprintf("%s %q: allowed is a relay's name of 1 to 11 characters out of a-z 0-9 _",
			command, args[0]))
	}
	c, _, err := config.Load(a.path, a.defaults())
	if err == nil && c.Relay(args[0]) != nil && c.Relay(args[0]).WireGuard.PrivateFile != "" {
		return c.Relay(args[0]).WireGuard.PrivateFile, nil
	}
	return config.KeyDir + args[0], nil
}

func (a *app) genkey(f *flag.FlagSet) func([]string) error {
	preshared := f.Bool("preshared", false, "print a new preshared key, for files at both ends")
	return func(args []string) error {
		if *preshared {
			if len(args) > 0 {
				return usageError("genkey --preshared takes no relay")
			}
			secret, err := newSecret()
			if err == nil {
				_, err = fmt.Fprintln(a.stdout, transport.Key(secret))
			}
			return err
		}
		path, err := a.keyFile("genkey", args)
		if err != nil {
			return err
		}
		secret, err := newSecret()
		if err != nil {
			return err
		}
		secret = secret.Clamp()
		if err := writeSecret(path, secret); err != nil {
			return err
		}
		_, err = fmt.Fprintln(a.stdout, secret.Public())
		return err
	}
}

func (a *app) pubkey(args []string) error {
	path, err := a.keyFile("pubkey", args)
	if err != nil {
		return err
	}
	secret, err := kernel.ReadPrivate(path, args[0])
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.stdout, secret.Public())
	return err
}

// newSecret returns 32 random bytes from the kernel.
func newSecret() (s transport.Secret, err error) {
	_, err = unix.Getrandom(s[:], 0) // at most 256 bytes come all at once
	return s, err
}

// writeSecret makes a file that only its owner may read, in a folder that only its owner may enter. It does not
// overwrite one.
func writeSecret(path string, s transport.Secret) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return message.New("there is a key in %s already; to make another one, move the file away first: mv %s %s.old",
			path, path, path)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(file, transport.Key(s))
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}
