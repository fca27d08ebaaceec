// Package paired is a VPS's side of pairing: what it keeps of the homes, and what it does when one enrols or pushes.
package paired

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/ds4relay/ds4relay/internal/authorized"
	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/replace"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// Path is the folder of a VPS with what it keeps of homes. It is also the home directory of the user that they log in
// as.
const Path Dir = "/var/lib/ds4relay"

// A Dir is such a folder. In relays/ there is for each relay NAME.json, what its home has said about itself, and NAME,
// what it has pushed. Both are for everybody to read: they have no secret, and `status` shows them.
type Dir string

// record is a NAME.json.
type record struct {
	Version     int           `json:"version"` // 1
	PublicKey   string        `json:"public_key,omitempty"`
	Peer        string        `json:"peeraddr,omitempty"`
	PeerChanged int64         `json:"peer_changed,omitempty"` // seconds since 1970, as all times here
	Enrolled    int64         `json:"enrolled"`
	From        string        `json:"from"`
	Reused      *config.Reuse `json:"reused,omitempty"`
}

// maxRecord limits a record in bytes.
const maxRecord = 4 << 10

func (d Dir) relays() string { return filepath.Join(string(d), "relays") }

func (d Dir) record(relay string) string { return filepath.Join(d.relays(), relay+".json") }

func (d Dir) push(relay string) string { return filepath.Join(d.relays(), relay) }

// turns is locked by who has a relay's turn.
func (d Dir) turns(relay string) string { return d.push(relay) + ".lock" }

// Keys are the keys that may log in.
func (d Dir) Keys() authorized.File {
	return authorized.File{Path: filepath.Join(string(d), ".ssh", "authorized_keys")}
}

// Read returns what is known of homes, by the names of their relays.
func (d Dir) Read() map[string]*config.Home {
	entries, err := os.ReadDir(d.relays())
	if err != nil {
		return nil
	}
	homes := map[string]*config.Home{}
	for _, entry := range entries {
		name := strings.TrimSuffix(entry.Name(), ".json")
		if name != entry.Name() && config.RelayName(name) {
			homes[name] = d.home(name)
		}
	}
	return homes
}

// home reads what is known of one home. What is damaged counts as nothing.
func (d Dir) home(relay string) *config.Home {
	h := &config.Home{File: d.push(relay)}
	r, err := d.load(relay)
	if err != nil {
		return &config.Home{File: d.record(relay), Damaged: message.Of(err)}
	}
	h.Enrolled, h.From, h.Reused = r.Enrolled, r.From, r.Reused
	h.PublicKey, _ = transport.ParseKey(r.PublicKey)
	h.Peer, _ = netip.ParseAddr(r.Peer)
	switch h.Push, err = readFile(d.push(relay), config.MaxPush); {
	case errors.Is(err, fs.ErrNotExist):
		h.Push = nil
	case err != nil:
		h.Push, h.Damaged = nil, message.Of(err)
	}
	return h
}

// load reads a record.
func (d Dir) load(relay string) (r record, err error) {
	data, err := readFile(d.record(relay), maxRecord)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return record{}, message.New("it is no record: %v", err)
	}
	addr, err := netip.ParseAddr(r.Peer)
	_, key := transport.ParseKey(r.PublicKey)
	if r.Version != 1 || r.Peer != "" && (err != nil || !addr.Is6()) || r.PublicKey != "" && !key {
		return record{}, message.New("what it says cannot be")
	}
	return r, nil
}

// readFile reads a file of at most that many bytes.
func readFile(path string, most int64) ([]byte, error) {
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, message.New("it is no file")
	case info.Size() > most:
		return nil, message.New("it has %d bytes, at most %d are expected", info.Size(), most)
	}
	return os.ReadFile(path)
}

func (d Dir) save(relay string, r record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(d.relays(), 0o755); err != nil {
		return err
	}
	return replace.File(d.record(relay), append(data, '\n'), 0o644)
}

// kept are both files of a relay as they were.
type kept struct{ record, push []byte } // nil: there was none

func (d Dir) keep(relay string) (k kept, err error) {
	for path, data := range map[string]*[]byte{d.record(relay): &k.record, d.push(relay): &k.push} {
		if *data, err = os.ReadFile(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return k, err
		}
	}
	return k, nil
}

// restore puts both files back.
func (d Dir) restore(relay string, k kept) (err error) {
	for path, data := range map[string][]byte{d.record(relay): k.record, d.push(relay): k.push} {
		if data == nil {
			err = errors.Join(err, remove(path))
		} else {
			err = errors.Join(err, replace.File(path, data, 0o644))
		}
	}
	return err
}

// remove removes a file that may be missing.
func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
