package kernel

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/state"
)

func (k *Kernel) path(name string) string { return filepath.Join(k.Run, name) }

// write replaces a record at once, so that a reader or a crash never sees half of it.
func (k *Kernel) write(name string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(k.Run, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(k.path(name+".new"), data, 0o600); err != nil {
		return err
	}
	return os.Rename(k.path(name+".new"), k.path(name))
}

// read leaves value as it is where there is no record. A record that cannot be read counts as none: it is written
// again by what comes next.
func (k *Kernel) read(name string, value any) error {
	data, err := os.ReadFile(k.path(name))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, value); err != nil {
		return fmt.Errorf("%s: %w (remove the file)", k.path(name), err)
	}
	return nil
}

func (k *Kernel) remove(name string) error {
	if err := os.Remove(k.path(name)); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

const sysctlRecord = "sysctls"

// savedSysctls are what sysctls were before we changed them. Where the record is lost, the kernel still has the fence
// for the devices that did not forward.
func (k *Kernel) savedSysctls() ([]state.Sysctl, error) {
	var saved []state.Sysctl
	if err := k.read(sysctlRecord, &saved); err != nil {
		return nil, err
	}
	fenced, err := elements(unix.NFPROTO_IPV4, state.FenceSet)
	if isErrno(err, unix.ENOENT, unix.EOPNOTSUPP, unix.EINVAL, unix.EPROTONOSUPPORT) {
		return saved, nil
	}
	for _, e := range fenced {
		device, err := strconv.Unquote(e.Key)
		key := state.ForwardingKey(device)
		if err == nil && !slices.ContainsFunc(saved, func(s state.Sysctl) bool { return s.Key == key }) {
			saved = append(saved, state.Sysctl{Key: key, Value: "0"})
		}
	}
	return saved, err
}

func (k *Kernel) saveSysctl(key, value string) error {
	saved, err := k.savedSysctls()
	if err != nil {
		return err
	}
	return k.write(sysctlRecord, append(saved, state.Sysctl{Key: key, Value: value}))
}

func (k *Kernel) forgetSysctl(key string) error {
	saved, err := k.savedSysctls()
	if err != nil {
		return err
	}
	saved = slices.DeleteFunc(saved, func(s state.Sysctl) bool { return s.Key == key })
	if len(saved) == 0 {
		return k.remove(sysctlRecord)
	}
	return k.write(sysctlRecord, saved)
}

// tableRecord is what a table was loaded from, and the kernel's sum of it.
type tableRecord struct {
	Sum     string
	Ruleset string
	Sets    []state.Set // declarations, without elements
}

func recordName(t state.Table) string {
	if t.Name == state.TableName {
		return "nft-" + t.Family
	}
	return "nft-" + t.Name
}

func (k *Kernel) tableRecord(table state.Table) (record tableRecord, err error) {
	return record, k.read(recordName(table), &record)
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

func (k *Kernel) forgetTable(table state.Table) error { return k.remove(recordName(table)) }

// lockTime bounds how long one ds4relay waits for another.
const lockTime = 30 * time.Second

// Lock keeps other ds4relay processes from changing the kernel until unlock is called or the process ends. waiting is
// called once where another one has to be waited for.
func (k *Kernel) Lock(waiting func(holder string)) (unlock func(), err error) {
	if err := os.MkdirAll(k.Run, 0o755); err != nil {
		return nil, fmt.Errorf("make the directory for run-time records: %w", err)
	}
	file, err := os.OpenFile(k.path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(lockTime)
	for first := true; ; first = false {
		if err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			break
		}
		holder := make([]byte, 16)
		n, _ := file.ReadAt(holder, 0)
		if !isErrno(err, unix.EWOULDBLOCK, unix.EINTR) || time.Now().After(deadline) {
			file.Close()
			return nil, fmt.Errorf("another ds4relay (process %s) is at work and did not finish within %v", holder[:n], lockTime)
		}
		if first && waiting != nil {
			waiting(string(holder[:n]))
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err := file.Truncate(0); err == nil {
		_, err = file.WriteAt(fmt.Append(nil, os.Getpid()), 0)
		if err != nil {
			file.Close()
			return nil, err
		}
	}
	return func() { file.Close() }, nil
}

// afterSeconds calls f after that time unless the returned function is called first; that tells whether it came first.
func afterSeconds(seconds int, f func()) func() bool {
	return time.AfterFunc(time.Duration(seconds)*time.Second, f).Stop
}
