package pairing

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/replace"
	"github.com/ds4relay/ds4relay/internal/sha256"
)

// DefaultDir has what a home keeps of its pairings. Only root may enter it.
const DefaultDir = "/etc/ds4relay/ssh"

// Dir is a folder with two files for each relay: RELAY is this home's ssh key, RELAY.json is a VPS.
type Dir string

// VPS is where the VPS of a relay answers by ssh.
type VPS struct {
	Version int      `json:"version"` // 1
	Hosts   []string `json:"hosts"`   // addresses or names, to be tried in this order
	Port    uint16   `json:"port"`    // of ssh
	// HostKey is its ed25519 host key, in the form that the second word of a .pub file has in base64. No other key is
	// accepted.
	HostKey []byte `json:"host_key"`
}

// Key is the name of the file with this home's ssh key.
func (d Dir) Key(relay string) string { return filepath.Join(string(d), relay) }

func (d Dir) vps(relay string) string { return d.Key(relay) + ".json" }

// Paired reports whether a relay has a key for its VPS.
func (d Dir) Paired(relay string) bool {
	info, err := os.Stat(d.Key(relay))
	return err == nil && info.Mode().IsRegular()
}

// maxVPS limits the size of a file with a VPS, in bytes.
const maxVPS = 16 << 10

// VPS reads where a relay's VPS is.
func (d Dir) VPS(relay string) (v VPS, err error) {
	data, err := os.ReadFile(d.vps(relay))
	if err == nil && len(data) > maxVPS {
		err = message.New("it has %d bytes, at most %d are expected", len(data), maxVPS)
	}
	if err == nil {
		err = json.Unmarshal(data, &v)
	}
	if err == nil {
		err = v.Check()
	}
	if err != nil {
		err = message.New("where the VPS of relay %q is cannot be read (%v); pair them again: ds4relay join", relay, err)
	}
	return v, err
}

// keyType is the only type of keys here.
const keyType = "ssh-ed25519"

// keyBytes is the length of such a public key with its type.
const keyBytes = 4 + len(keyType) + 4 + 32

// Check refuses a VPS whose values would not be what they seem on the command line of an ssh client.
func (v *VPS) Check() error {
	switch {
	case v.Version != 1:
		return message.New("it is of a later version")
	case len(v.Hosts) == 0 || v.Port == 0:
		return message.New("it has no address")
	case len(v.HostKey) != keyBytes || string(v.HostKey[:4+len(keyType)]) != "\x00\x00\x00\x0b"+keyType:
		return message.New("it has no ed25519 host key")
	}
	for _, host := range v.Hosts {
		if !isHost(host) {
			return message.New("%q is no address or name", cut(host, 100))
		}
	}
	return nil
}

// isHost reports whether a text is nothing but an address or a DNS name: dbclient gives a meaning to / , ^ and %.
func isHost(host string) bool {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:-_"
	return host != "" && len(host) <= 253 && host[0] != '-' && strings.Trim(host, allowed) == ""
}

// Fingerprint is the host key's, as `ssh-keygen -l` prints it.
func (v *VPS) Fingerprint() string {
	sum := sha256.Sum(v.HostKey)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// Keep writes where a relay's VPS is, and makes the key at the path new the relay's own.
func (d Dir) Keep(relay string, v VPS, key string) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	err = replace.File(d.vps(relay), data, 0o600)
	if err == nil && key != d.Key(relay) {
		err = os.Rename(key, d.Key(relay))
	}
	return err
}

// writeFile makes a file that only its owner may read, and waits until it is on the disk.
func writeFile(path string, data []byte) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
