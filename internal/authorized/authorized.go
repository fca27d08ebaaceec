// Package authorized edits the authorized_keys of a VPS's user ds4relay: each key there may do one thing for one relay.
package authorized

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/replace"
)

// Program is what the keys may run.
const Program = "/usr/sbin/ds4relay"

// A File is an authorized_keys file, sshd(8). It is root's, which sshd takes (AuthorizedKeysFile, StrictModes in
// sshd_config(5)). Lines of others stay as they are.
type File struct {
	Path string
}

// Errors that a home can do something about.
var (
	ErrNoInvitation = message.New("there is no open invitation for this relay")
	ErrKnownKey     = message.New("the VPS knows this ssh key for something else already; make another one")
)

// What a key may be.
const (
	invitation = "ds4relay-invitation" // may enrol once
	used       = "ds4relay-used"       // has enrolled; who tries it again is told so
	home       = "ds4relay-home"       // is a home's own
)

// line is a line of ours.
type line struct {
	kind, relay string
	key         string    // in base64
	expires     time.Time // of an invitation
}

const (
	keyType = "ssh-ed25519"
	// expiryFormat is in the time zone of the system: before OpenSSH 9.1 (Ubuntu 22.04) there is no other.
	expiryFormat = "200601021504"
)

// localTime has the time zone of the system; $TZ of who runs ds4relay is not that of sshd. Tests have their own.
var localTime = "/etc/localtime"

// systemZone is UTC on a system that has none, as for the C library.
func systemZone() *time.Location {
	data, err := os.ReadFile(localTime)
	if err != nil {
		return time.UTC
	}
	zone, err := time.LoadLocationFromTZData("", data)
	if err != nil {
		return time.UTC
	}
	return zone
}

// String writes it as sshd(8) reads it, without a line break.
func (l line) String() string {
	options, command := "restrict,", "receive"
	switch l.kind {
	case invitation:
		options += `expiry-time="` + l.expires.In(systemZone()).Format(expiryFormat) + `",`
		command = "enroll"
	case used:
		command = "enroll --used"
	}
	return fmt.Sprintf(`%scommand="%s %s --key %s %s" %s %s %s %s`, options, Program, command, l.id(), l.relay, keyType,
		l.key, l.kind, l.relay)
}

// id tells a key from others. sshd lets a session go on whose key is taken back: what it asks for then has the id of a
// key that is not there any more.
func (l line) id() string {
	sum := sha256.Sum256([]byte(l.key))
	return hex.EncodeToString(sum[:8])
}

// parse reads a line, and reports whether it is one of ours.
func parse(text string) (l line, ok bool) {
	words := strings.Fields(text)
	if len(words) < 5 {
		return l, false
	}
	words = words[len(words)-4:]
	l = line{kind: words[2], relay: words[3], key: words[1]}
	if words[0] != keyType || !slices.Contains([]string{invitation, used, home}, l.kind) || !config.RelayName(l.relay) {
		return l, false
	}
	if _, rest, found := strings.Cut(text, `expiry-time="`); found {
		at, _, _ := strings.Cut(rest, `"`)
		l.expires, _ = time.ParseInLocation(expiryFormat, at, systemZone())
	}
	return l, text == l.String()
}

// Invite opens an invitation for a relay: the public half of a one-time key, and until when it is good. A former open
// invitation of the relay is worth nothing from then on.
func (f File) Invite(relay string, key [32]byte, expires time.Time) error {
	if !config.RelayName(relay) {
		return message.New("relay %q: allowed is a name of 1 to 11 characters out of a-z 0-9 _", relay)
	}
	fresh := line{invitation, relay, encode(key), expires}
	return f.edit(func(lines []string) ([]string, error) {
		return append(without(lines, relay, invitation), fresh.String()), nil
	})
}

// Enrol ends the open invitation of a relay, whose key has that id, and lets a home push with its own key: ssh-ed25519
// and the key in base64. A former home's key is no good any more.
func (f File) Enrol(id, relay, key string) error {
	own, err := ParseKey(key)
	if err != nil {
		return err
	}
	return f.edit(func(lines []string) ([]string, error) {
		open := open(lines, relay)
		if open == nil || open.id() != id {
			return nil, ErrNoInvitation
		}
		if slices.ContainsFunc(lines, func(text string) bool {
			l, ok := parse(text)
			return ok && l.key == own && (l.relay != relay || l.kind != home)
		}) {
			return nil, ErrKnownKey
		}
		lines = without(lines, relay, invitation, used, home)
		return append(lines, line{kind: used, relay: relay, key: open.key}.String(),
			line{kind: home, relay: relay, key: own}.String()), nil
	})
}

// Forget removes all keys of a relay.
func (f File) Forget(relay string) error {
	return f.edit(func(lines []string) ([]string, error) {
		return without(lines, relay, invitation, used, home), nil
	})
}

// State reports whether a relay has an open invitation and until when, and whether a home has enrolled.
func (f File) State(relay string) (open bool, expires time.Time, enrolled bool, err error) {
	lines, err := f.read()
	for _, text := range lines {
		l, ok := parse(text)
		switch {
		case !ok || l.relay != relay:
		case l.kind == home:
			enrolled = true
		case l.kind == invitation && time.Now().Before(l.expires):
			open, expires = true, l.expires
		}
	}
	return open, expires, enrolled, err
}

// Good reports whether the key with that id is a relay's open invitation, or its home's own.
func (f File) Good(id, relay string) (bool, error) {
	lines, err := f.read()
	for _, text := range lines {
		l, ok := parse(text)
		if ok && l.relay == relay && l.id() == id && (l.kind == home || l.kind == invitation &&
			time.Now().Before(l.expires)) {
			return true, err
		}
	}
	return false, err
}

// Home reports whether a key, as in a .pub file, is that of the home which has enrolled.
func (f File) Home(relay, key string) (bool, error) {
	own, err := ParseKey(key)
	if err != nil {
		return false, err
	}
	lines, err := f.read()
	return slices.ContainsFunc(lines, func(text string) bool {
		l, ok := parse(text)
		return ok && l.relay == relay && l.kind == home && l.key == own
	}), err
}

// open returns the open invitation of a relay, or nil.
func open(lines []string, relay string) *line {
	for _, text := range lines {
		l, ok := parse(text)
		if ok && l.relay == relay && l.kind == invitation && time.Now().Before(l.expires) {
			return &l
		}
	}
	return nil
}

// without returns the lines without those of a relay and these kinds.
func without(lines []string, relay string, kinds ...string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(text string) bool {
		l, ok := parse(text)
		return ok && l.relay == relay && slices.Contains(kinds, l.kind)
	})
}

// ParseKey reads an ed25519 key as in a .pub file: its type, and the key in base64, which is returned. A comment is
// left out.
func ParseKey(text string) (string, error) {
	words := strings.Fields(text)
	if len(text) <= maxKey && len(words) >= 2 && words[0] == keyType {
		data, err := base64.StdEncoding.DecodeString(words[1])
		if err == nil && len(data) == len(blobHead)+32 && string(data[:len(blobHead)]) == blobHead {
			return base64.StdEncoding.EncodeToString(data), nil
		}
	}
	return "", message.New("the home's ssh key is no public key of the type %s, as in a .pub file", keyType)
}

// maxKey limits the text of a key in bytes; a comment may be with it.
const maxKey = 1024

// blobHead is how a public key begins: its type and the length of what follows, RFC 8709 section 4.
const blobHead = "\x00\x00\x00\x0b" + keyType + "\x00\x00\x00\x20"

func encode(key [32]byte) string {
	blob := binary.BigEndian.AppendUint32(nil, uint32(len(keyType)))
	blob = binary.BigEndian.AppendUint32(append(blob, keyType...), uint32(len(key)))
	return base64.StdEncoding.EncodeToString(append(blob, key[:]...))
}

// read returns the lines; none if there is no file.
func (f File) read() ([]string, error) {
	data, err := os.ReadFile(f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if text := strings.TrimSuffix(string(data), "\n"); text != "" {
		return strings.Split(text, "\n"), err
	}
	return nil, err
}

// edit replaces the file as a whole, while no other ds4relay does. Without a change it stays as it is.
func (f File) edit(change func([]string) ([]string, error)) (err error) {
	dir := filepath.Dir(f.Path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	lock, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := Lock(lock, lockTime); err != nil {
		return message.New("lock %s: %v", dir, err)
	}
	former, err := f.read()
	if err != nil {
		return err
	}
	lines, err := change(former)
	if err != nil || slices.Equal(lines, former) {
		return err
	}
	text := ""
	for _, l := range lines {
		text += l + "\n"
	}
	return replace.File(f.Path, []byte(text), 0o644)
}

// lockTime limits how long one waits for another.
const lockTime = 10 * time.Second

// Lock keeps others from locking an open file until it is closed. If another one has it for longer than wait, the error
// is unix.EWOULDBLOCK.
func Lock(file *os.File, wait time.Duration) error {
	for deadline := time.Now().Add(wait); ; time.Sleep(20 * time.Millisecond) {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err != unix.EWOULDBLOCK && err != unix.EINTR || time.Now().After(deadline) {
			return err
		}
	}
}
