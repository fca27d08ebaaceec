package kernel

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/replace"
	"github.com/ds4relay/ds4relay/internal/state"
)

// maxRecord limits a record in bytes: the rules of thousands of homes on one VPS take some megabytes.
const maxRecord = 16 << 20

func (k *Kernel) path(name string) string { return filepath.Join(k.Run, name) }

// An Unrecorded error says that a step is done, but its record could not be written.
type Unrecorded struct{ Err error }

// Error implements error.
func (e *Unrecorded) Error() string { return e.AsText().Error() }

// AsText implements message.Coded.
func (e *Unrecorded) AsText() *message.Text {
	return message.New("write down what was done: %v", e.Err)
}

// Unwrap returns the cause.
func (e *Unrecorded) Unwrap() error { return e.Err }

func (k *Kernel) write(name string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return k.replace(name, data)
}

// replace writes a file as a whole. A folder in its place is not ours, and goes.
func (k *Kernel) replace(name string, data []byte) error {
	if err := os.MkdirAll(k.Run, 0o755); err != nil {
		return err
	}
	mode := os.FileMode(0o600)
	if public(name) {
		mode = 0o644
	}
	if info, err := os.Lstat(k.path(name)); err == nil && info.IsDir() {
		if err := os.RemoveAll(k.path(name)); err != nil {
			return err
		}
	}
	return replace.File(k.path(name), data, mode)
}

// load returns a record's text; the error is fs.ErrNotExist if there is none.
func (k *Kernel) load(name string) ([]byte, error) {
	info, err := os.Lstat(k.path(name))
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, message.New("it is no file")
	case info.Size() > maxRecord:
		return nil, message.New("it has %d bytes, at most %d are expected", info.Size(), maxRecord)
	}
	return os.ReadFile(k.path(name))
}

// read returns a record's value, or zero if there is none. A damaged record counts as none and adds a note; the next
// write replaces it. Users other than root cannot read records, but they change nothing either. valid reports whether a
// value is plausible.
func read[T any](k *Kernel, name string, valid func(T) bool) T {
	var value, none T
	data, err := k.load(name)
	if errors.Is(err, fs.ErrNotExist) || forRoot(err) {
		return none
	}
	if err == nil {
		err = json.Unmarshal(data, &value)
	}
	if err == nil && !valid(value) {
		err = message.New("what it says cannot be")
	}
	if err != nil {
		k.note(message.New("the record %s is damaged (%v): it counts as none", k.path(name), withoutPath(err)))
		return none
	}
	return value
}

// withoutPath returns a file's error without the name, for messages that already contain it.
func withoutPath(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// note keeps for Observe what a person should know, once.
func (k *Kernel) note(text *message.Text) {
	for _, known := range k.notes {
		if known.Error() == text.Error() {
			return
		}
	}
	k.notes = append(k.notes, text)
}

func (k *Kernel) remove(name string) error {
	err := os.Remove(k.path(name))
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
		return nil
	}
	if info, statErr := os.Lstat(k.path(name)); statErr == nil && info.IsDir() {
		return os.RemoveAll(k.path(name))
	}
	return err
}

// Each sysctl has its own file, so that deleting a record needs no disk space: sysctl:net:ipv4:conf:eth0:forwarding.
// Device names contain neither slashes nor colons (dev_valid_name in net/core/dev.c).
const (
	sysctlPrefix = "sysctl:"
	// formerSysctls is the single file with all of them that earlier releases wrote.
	formerSysctls = "sysctls"
)

func sysctlName(key string) string { return sysctlPrefix + strings.ReplaceAll(key, "/", ":") }

// validSysctl reports whether we could have recorded it: a key below net, and numbers.
func validSysctl(s state.Sysctl) bool {
	return strings.HasPrefix(s.Key, "net/") && filepath.IsLocal(s.Key) && filepath.Clean(s.Key) == s.Key &&
		s.Value != "" && strings.Trim(s.Value, "-0123456789 \t") == ""
}

// savedSysctls returns the previous values of sysctls that we changed. If a record is lost, the kernel still has the
// fence with the devices that did not forward.
func (k *Kernel) savedSysctls() ([]state.Sysctl, error) {
	saved := k.notedSysctls()
	fenced, err := elements(unix.NFPROTO_IPV4, state.FenceSet)
	if isErrno(err, unix.ENOENT, unix.EOPNOTSUPP, unix.EINVAL, unix.EPROTONOSUPPORT) || forRoot(err) {
		return saved, nil
	}
	for _, e := range fenced {
		key := state.ForwardingKey(e.Key.Device)
		if !slices.ContainsFunc(saved, func(s state.Sysctl) bool { return s.Key == key }) {
			saved = append(saved, state.Sysctl{Key: key, Value: "0"})
		}
	}
	return saved, err
}

// records returns the names of the files in the directory, in order. (os.ReadDir takes 3 kB more in the .ipk.)
func (k *Kernel) records() ([]string, error) {
	dir, err := os.Open(k.Run)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// notedSysctls returns those that are recorded in /run.
func (k *Kernel) notedSysctls() []state.Sysctl {
	saved := read(k, formerSysctls, func(all []state.Sysctl) bool {
		return !slices.ContainsFunc(all, func(s state.Sysctl) bool { return !validSysctl(s) })
	})
	names, err := k.records()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.note(message.New("the records in %s cannot be read (%v): they count as none", k.Run, withoutPath(err)))
	}
	for _, name := range names {
		key, ok := strings.CutPrefix(name, sysctlPrefix)
		if !ok || strings.HasSuffix(key, replace.Suffix) {
			continue
		}
		key = strings.ReplaceAll(key, ":", "/")
		value := read(k, name, func(value string) bool {
			return validSysctl(state.Sysctl{Key: key, Value: value})
		})
		if value != "" && !slices.ContainsFunc(saved, func(s state.Sysctl) bool { return s.Key == key }) {
			saved = append(saved, state.Sysctl{Key: key, Value: value})
		}
	}
	return saved
}

// saveSysctl keeps a value that is already recorded, because it is the older one. If it cannot be written, the fence is
// enough.
func (k *Kernel) saveSysctl(key, value string) error {
	if slices.ContainsFunc(k.notedSysctls(), func(s state.Sysctl) bool { return s.Key == key }) {
		return nil
	}
	err := k.write(sysctlName(key), value)
	if err == nil {
		return nil
	}
	if saved, _ := k.savedSysctls(); slices.Contains(saved, state.Sysctl{Key: key, Value: value}) {
		return nil
	}
	return err
}

// NoteSysctls rewrites records that only the fence still has.
func (k *Kernel) NoteSysctls() error {
	saved, err := k.savedSysctls()
	if err != nil {
		return err
	}
	noted := k.notedSysctls()
	for _, s := range saved {
		if !slices.Contains(noted, s) {
			if err := k.write(sysctlName(s.Key), s.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

func (k *Kernel) forgetSysctl(key string) error {
	if _, err := os.Lstat(k.path(formerSysctls)); err == nil {
		for _, s := range k.notedSysctls() {
			if err := k.write(sysctlName(s.Key), s.Value); err != nil {
				return err
			}
		}
		if err := k.remove(formerSysctls); err != nil {
			return err
		}
	}
	return k.remove(sysctlName(key))
}

// tableRecord is the text that a table was loaded from, and the kernel's checksum of it.
type tableRecord struct {
	Sum     string
	Ruleset string
	Sets    []state.Set // declarations, without elements
}

const tablePrefix = "nft-"

// includeFile can be included by the administrator's nftables.conf. If that flushes all tables, ours are restored in
// the same transaction, without a gap. OpenWrt needs no such file: its firewall does not touch our tables.
const includeFile = "tables.nft"

func recordName(t state.Table) string {
	if t.Name == state.TableName {
		return tablePrefix + t.Family
	}
	return tablePrefix + t.Name
}

func (k *Kernel) tableRecord(table state.Table) tableRecord {
	return read(k, recordName(table), func(r tableRecord) bool {
		return r.Sum != "" && r.Ruleset != "" && !slices.ContainsFunc(r.Sets, func(s state.Set) bool {
			return s.Name == "" || !known(s.Key) || s.Value != nil && !known(s.Value)
		})
	})
}

// known reports whether all field types of a set are known.
func known(types []state.Type) bool {
	unknown := func(t state.Type) bool { return fieldSizes[t] == 0 && t != state.Verdict }
	return len(types) > 0 && !slices.ContainsFunc(types, unknown)
}

func (k *Kernel) noteTable(table state.Table) error {
	sum, _, _, err := tableSum(table)
	if err != nil {
		return err
	}
	record := tableRecord{Sum: hex.EncodeToString(sum), Ruleset: table.Ruleset}
	for _, set := range table.Sets {
		set.Elements = nil
		record.Sets = append(record.Sets, set)
	}
	return k.write(recordName(table), record)
}

// Clear removes leftover records once nothing is installed: damaged ones, and those of objects that somebody else has
// removed. The addresses of names stay, so that down and up need no DNS. The directory is removed if Lock created it,
// together with the lock: after Clear nothing may be changed.
func (k *Kernel) Clear() error {
	names, err := k.records()
	if err != nil {
		return err
	}
	var errs []error
	left := 0
	for _, name := range names {
		ours := name == formerSysctls || strings.HasPrefix(name, sysctlPrefix) ||
			strings.HasPrefix(name, tablePrefix) || name == PeerRecord+replace.Suffix ||
			strings.HasPrefix(name, PathPrefix) || strings.HasPrefix(name, appliedRecord) ||
			strings.HasPrefix(name, watchRecord) || strings.HasPrefix(name, PushPrefix) ||
			strings.HasPrefix(name, RivalRecord) ||
			strings.HasPrefix(name, includeFile)
		switch {
		case ours:
			errs = append(errs, k.remove(name))
		case name != lockFile:
			left++
		}
	}
	if left == 0 {
		errs = append(errs, k.remove(lockFile))
		if k.made {
			_ = os.Remove(k.Run) // unless another process has created a file there meanwhile
		}
	}
	return errors.Join(errs...)
}
