package pairing

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/program"
)

// A client is an implementation of ssh. They have different formats of keys.
type client struct {
	ssh, keygen string
	dropbear    bool
}

var (
	dropbear = client{"dbclient", "dropbearkey", true}
	openssh  = client{"ssh", "ssh-keygen", false}
)

// found reports whether a client's programs are installed.
func (c client) found() bool {
	_, err := exec.LookPath(c.ssh)
	if err == nil {
		_, err = exec.LookPath(c.keygen)
	}
	return err == nil
}

// newClient returns the client for a new key.
func newClient() (client, error) {
	for _, c := range []client{dropbear, openssh} {
		if c.found() {
			return c, nil
		}
	}
	return client{}, message.New("no ssh client is installed; install dropbear or openssh-client")
}

// opensshBegin is how a key of OpenSSH begins.
const opensshBegin = "-----BEGIN OPENSSH PRIVATE KEY-----\n"

// clientOf returns the client whose format a key has.
func clientOf(path string) (client, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return client{}, err
	}
	c := dropbear
	if strings.HasPrefix(string(data), opensshBegin) {
		c = openssh
	}
	if !c.found() {
		return c, message.New("the key %s is one for %s, which is not installed; install it, or move the key away and "+
			"pair the relay again: ds4relay join", path, c.ssh)
	}
	return c, nil
}

// newSuffix ends the name of a key that no VPS has taken yet, as far as is known.
const newSuffix = ".new"

// keyTime limits how long a key is made: a router may wait for random numbers.
const keyTime = 20 * time.Second

// MakeKey makes this home's ssh key for a relay in a new file, unless there is one already, and returns the file and
// the public half, as in a .pub file. A key that cannot be read counts as none.
func (d Dir) MakeKey(relay string) (path, public string, err error) {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return "", "", err
	}
	// The VPS may have taken a new one, though its answer did not arrive.
	for _, path := range []string{d.Key(relay), d.Key(relay) + newSuffix} {
		if c, err := clientOf(path); err == nil {
			if public, err = c.public(path); err == nil {
				return path, public, nil
			}
		}
	}
	c, err := newClient()
	if err != nil {
		return "", "", err
	}
	path = d.Key(relay) + newSuffix
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", "", err
	}
	args := []string{"-q", "-t", "ed25519", "-N", "", "-C", "ds4relay", "-f", path}
	if c.dropbear {
		args = []string{"-t", "ed25519", "-f", path}
	}
	if _, said, err := (program.Command{Name: c.keygen, Args: args, Limit: keyTime}).Run(); err != nil {
		return "", "", errors.Join(message.New("make a key: %s: %v %s", c.keygen, err, said), os.Remove(path))
	}
	_ = os.Remove(path + ".pub") // ssh-keygen's
	if err := os.Chmod(path, 0o600); err != nil {
		return "", "", err
	}
	public, err = c.public(path)
	return path, public, err
}

// public is the public half of a key: the type and the key in base64.
func (c client) public(path string) (string, error) {
	text, said, err := program.Command{Name: c.keygen, Args: []string{"-y", "-f", path}, Limit: keyTime,
		Apart: true}.Run()
	for line := range strings.SplitSeq(text, "\n") {
		if words := strings.Fields(line); len(words) > 1 && words[0] == keyType {
			return words[0] + " " + words[1], nil
		}
	}
	return "", message.New("the key %s cannot be read: %s: %v %s", path, c.keygen, err, said)
}

// oneTime is a key of an invitation in the format of a client: 32 bytes of the private half (the seed), 32 of the
// public one.
func (c client) oneTime(key [64]byte) []byte {
	text := func(b []byte, s string) []byte {
		return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
	}
	pair := text(text(nil, keyType), string(key[:]))
	if c.dropbear {
		return pair
	}
	// openssh-portable, PROTOCOL.key
	public := string(text(text(nil, keyType), string(key[32:])))
	private := append(make([]byte, 8), text(nil, keyType)...) // two equal numbers, which check decryption
	private = text(text(text(private, string(key[32:])), string(key[:])), "")
	for i := byte(1); len(private)%8 != 0; i++ {
		private = append(private, i)
	}
	file := text(text(text([]byte("openssh-key-v1\x00"), "none"), "none"), "")
	file = text(binary.BigEndian.AppendUint32(file, 1), public)
	file = text(file, string(private))
	return []byte(opensshBegin + base64.StdEncoding.EncodeToString(file) + "\n-----END OPENSSH PRIVATE KEY-----\n")
}
