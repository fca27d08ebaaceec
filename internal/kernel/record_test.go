package kernel

import (
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/state"
)

var table = state.Table{Family: "ip", Name: state.TableName}

// written is a kernel with one record of each kind.
func written(t *testing.T) *Kernel {
	t.Helper()
	k := &Kernel{Run: filepath.Join(t.TempDir(), "run")}
	record := tableRecord{Sum: "00", Ruleset: "table ip ds4relay {\n}\n",
		Sets: []state.Set{{Name: "host", Key: []state.Type{state.IPv4}}}}
	for name, value := range map[string]any{
		sysctlName("net/ipv4/conf/eth0.5/forwarding"): "0", recordName(table): record,
		PeerRecord: map[string]netip.Addr{"home.example.org": netip.MustParseAddr("2001:db8::1")},
	} {
		if err := k.write(name, value); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

// records counts the valid records.
func records(k *Kernel) int {
	n := len(k.notedSysctls()) + len(k.peers())
	if k.tableRecord(table).Sum != "" {
		n++
	}
	return n
}

// TestDamagedRecords: a damaged record, whatever it is, counts as none, a note says so, and the next write replaces it.
func TestDamagedRecords(t *testing.T) {
	names := []string{sysctlName("net/ipv4/conf/eth0.5/forwarding"), recordName(table), PeerRecord}
	damages := map[string]func(path string) error{
		"empty":    func(path string) error { return os.Truncate(path, 0) },
		"one byte": func(path string) error { return os.Truncate(path, 1) },
		"no JSON":  func(path string) error { return os.WriteFile(path, []byte("\x00\xff{"), 0o600) },
		"a number": func(path string) error { return os.WriteFile(path, []byte("46"), 0o600) },
		"a list":   func(path string) error { return os.WriteFile(path, []byte(`[{"Key":7}]`), 0o600) },
		"an object": func(path string) error {
			return os.WriteFile(path, []byte(`{"Sum":"00","x":"127.0.0.1"}`), 0o600)
		},
		"no types": func(path string) error {
			return os.WriteFile(path, []byte(`{"Sum":"00","Ruleset":"x","Sets":[{"Name":"host","Key":[]}]}`), 0o600)
		},
		"huge":   func(path string) error { return os.Truncate(path, maxRecord+1) },
		"a fifo": func(path string) error { os.Remove(path); return unix.Mkfifo(path, 0o600) },
		"a loop": func(path string) error { os.Remove(path); return os.Symlink(path, path) },
		"directory": func(path string) error {
			os.Remove(path)
			return os.MkdirAll(filepath.Join(path, "full"), 0o700)
		},
	}
	for damage, do := range damages {
		for _, name := range names {
			k := written(t)
			if n := records(k); n != 3 || len(k.notes) != 0 {
				t.Fatalf("%d records, %q", n, k.notes)
			}
			if err := do(k.path(name)); err != nil {
				t.Fatal(err)
			}
			n := records(k) + records(k)
			if n != 4 || len(k.notes) != 1 || !strings.Contains(k.notes[0].Error(), k.path(name)+" is damaged (") {
				t.Errorf("%s: %s: %d records count, want 2; notes %q", name, damage, n/2, k.notes)
			}
			var err error
			switch name {
			case recordName(table):
				err = k.write(name, tableRecord{Sum: "00", Ruleset: "x"})
			case PeerRecord:
				err = k.NotePeers([]*config.Relay{{Name: "home", PeerName: "home.example.org"}},
					map[string]netip.Addr{"home": netip.MustParseAddr("2001:db8::2")})
			default:
				err = k.saveSysctl("net/ipv4/conf/eth0.5/forwarding", "1")
			}
			if k.notes = nil; err != nil || records(k) != 3 || len(k.notes) != 0 {
				t.Errorf("%s: %s: after the next write %v, %d records, notes %q", name, damage, err, records(k),
					k.notes)
			}
		}
	}
}

// TestSysctlNames: recorded sysctls are found again, and nothing else is mistaken for one.
func TestSysctlNames(t *testing.T) {
	k := &Kernel{Run: t.TempDir()}
	former, err := json.Marshal([]state.Sysctl{{Key: "net/ipv4/conf/eth9/forwarding", Value: "0"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(k.path(formerSysctls), former, 0o600); err != nil {
		t.Fatal(err)
	}
	keys := []string{"net/ipv4/conf/a.b/forwarding", "net/ipv4/conf/a_b/forwarding", "net/ipv4/conf/a-b/rp_filter"}
	for _, key := range keys {
		for _, value := range []string{"0", "1"} { // the older one counts
			if err := k.saveSysctl(key, value); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, name := range []string{"sysctl:..:..:etc:passwd", "sysctl:net:..:kernel", "sysctl:kernel:panic"} {
		if err := os.WriteFile(k.path(name), []byte(`"1"`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	saved := k.notedSysctls()
	if len(saved) != 4 || slices.ContainsFunc(saved, func(s state.Sysctl) bool { return s.Value != "0" }) {
		t.Errorf("saved: %v", saved)
	}
	for i, s := range saved {
		if err := k.forgetSysctl(s.Key); err != nil || len(k.notedSysctls()) != len(saved)-i-1 {
			t.Errorf("forget %s: %v, left %v", s.Key, err, k.notedSysctls())
		}
	}
}

// TestNoRoom: if a record cannot be written, the previous one stays, nothing else is left, and deleting needs no disk
// space. The test runs in a process that limits each file to two bytes: the rest of a write fails as on a full disk.
func TestNoRoom(t *testing.T) {
	if os.Getenv("NO_ROOM") == "" {
		child := exec.Command("/proc/self/exe", "-test.run=^TestNoRoom$")
		child.Env = append(os.Environ(), "NO_ROOM=1")
		if out, err := child.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	k := written(t)
	before := listing(t, k.Run)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 2, Max: 2}); err != nil {
		t.Fatal(err)
	}
	for name, write := range map[string]func() error{
		"a sysctl": func() error { return k.saveSysctl("net/ipv4/conf/eth1/forwarding", "0") },
		"a table":  func() error { return k.write(recordName(table), tableRecord{Sum: "11", Ruleset: "x"}) },
		"a peer": func() error {
			return k.NotePeers([]*config.Relay{{Name: "x", PeerName: "x"}},
				map[string]netip.Addr{"x": netip.MustParseAddr("2001:db8::2")})
		},
		"a file":    func() error { return k.replace("tables.nft", []byte("table")) },
		"a new one": func() error { return k.replace("another", []byte("table")) },
	} {
		if err := write(); err == nil || listing(t, k.Run) != before || records(k) != 3 {
			t.Errorf("%s: %v, %s\nbefore %s", name, err, listing(t, k.Run), before)
		}
	}
	unlock, err := k.Lock(nil)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	if err := k.forgetSysctl("net/ipv4/conf/eth0.5/forwarding"); err != nil || len(k.notedSysctls()) != 0 {
		t.Errorf("forget: %v", err)
	}
}

// listing returns the files of a directory with their contents.
func listing(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err.Error()
	}
	var lines []string
	for _, entry := range entries {
		data, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, entry.Name()+"="+string(data))
	}
	return strings.Join(lines, "\n")
}

// TestClear: leftover records are removed when nothing is installed; the directory only if Lock created it.
func TestClear(t *testing.T) {
	clear := func(k *Kernel) {
		t.Helper()
		unlock, err := k.Lock(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer unlock()
		if err := k.Clear(); err != nil {
			t.Error(err)
		}
	}
	k := written(t)
	if err := os.WriteFile(k.path("sysctl:net:ipv4:conf:x:forwarding"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	clear(k)
	left, _ := os.ReadDir(k.Run)
	if len(left) != 2 || left[0].Name() != lockFile || left[1].Name() != PeerRecord {
		t.Errorf("left with names in use: %v", left)
	}
	dir := t.TempDir()
	clear(&Kernel{Run: dir})
	if entries, err := os.ReadDir(dir); len(entries) != 0 || err != nil {
		t.Errorf("left in a directory that was there: %v, %v", entries, err)
	}
	clear(&Kernel{Run: filepath.Join(dir, "run")})
	if entries, err := os.ReadDir(dir); len(entries) != 0 || err != nil {
		t.Errorf("a directory that was not there: %v, %v", entries, err)
	}
}

// TestLock: there are never two holders, even if the previous one removes the file and its directory.
func TestLock(t *testing.T) {
	run := filepath.Join(t.TempDir(), "a", "run")
	const workers, rounds = 8, 30
	inside := make(chan struct{}, 1)
	done := make(chan error, workers)
	for range workers {
		go func() {
			for range rounds {
				k := &Kernel{Run: run}
				unlock, err := k.Lock(nil)
				if err != nil {
					done <- err
					return
				}
				select {
				case inside <- struct{}{}:
				default:
					done <- syscall.EBUSY
					return
				}
				<-inside
				err = k.Clear()
				unlock()
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range workers {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	// A process opens the file before it is removed, and then locks a file that nobody else would open.
	k := &Kernel{Run: run}
	file, err := k.openLock()
	if err != nil || !k.isLock(file) {
		t.Fatal(err)
	}
	defer file.Close()
	if err := k.Clear(); err != nil || k.isLock(file) {
		t.Errorf("the lock is gone, and counts: %v", err)
	}
	if again, err := k.openLock(); err != nil || k.isLock(file) || !k.isLock(again) {
		t.Errorf("the lock is another file, and counts: %v", err)
	} else {
		again.Close()
	}
	blocked := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = (&Kernel{Run: filepath.Join(blocked, "run")}).Lock(nil)
	if err == nil || !strings.Contains(err.Error(), blocked) {
		t.Errorf("there is no place for it: %v", err)
	}
}

// TestReadingWritesNothing: looking up a name and observing leave no trace; NotePeers does.
func TestReadingWritesNothing(t *testing.T) {
	home, moved := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	k := &Kernel{Run: filepath.Join(t.TempDir(), "run"),
		looked: map[string]lookedUp{"home.example.org": {addrs: []netip.Addr{home}}}}
	r := &config.Relay{Name: "no-such-relay", PeerName: "home.example.org", Local: moved}
	addr := func() netip.Addr {
		t.Helper()
		addr, _, err := k.peer(r, []*config.Relay{r})
		if err != nil {
			t.Error(err)
		}
		return addr
	}
	if got := addr(); got != home {
		t.Errorf("got %v", got)
	}
	if _, err := os.Stat(k.Run); !os.IsNotExist(err) {
		t.Errorf("looking the name up made %s: %v", k.Run, err)
	}
	if err := k.NotePeers([]*config.Relay{r}, map[string]netip.Addr{r.Name: home}); err != nil {
		t.Fatal(err)
	}
	noted := listing(t, k.Run)
	answers := []lookedUp{{err: syscall.EAGAIN}, {addrs: []netip.Addr{moved}}, {addrs: []netip.Addr{moved, home}}}
	for _, answer := range answers {
		k.looked[r.PeerName] = answer
		if got := addr(); got != home { // moved is this end's own endpoint
			t.Errorf("%v: got %v", answer, got)
		}
		if now := listing(t, k.Run); now != noted {
			t.Errorf("%v: looking the name up wrote %s, before %s", answer, now, noted)
		}
	}
	k.looked[r.PeerName] = lookedUp{addrs: []netip.Addr{moved}}
	if err := os.Remove(k.path(PeerRecord)); err != nil {
		t.Fatal(err)
	}
	if got, _, err := k.peer(r, []*config.Relay{r}); err == nil ||
		!strings.Contains(err.Error(), "this machine's own") {
		t.Errorf("this end's own endpoint: %v, %v", got, err)
	}
}

// TestDumpAgain: an interrupted dump is repeated, but not endlessly.
func TestDumpAgain(t *testing.T) {
	for _, passing := range []error{unix.EINTR, unix.ENOBUFS} {
		for failures, want := range map[int]error{0: nil, 1: nil, dumpTries - 1: nil, dumpTries: passing} {
			n := 0
			items, err := dump(func() ([]int, error) {
				if n++; n <= failures {
					return []int{1}, passing
				}
				return []int{1, 2}, nil
			})
			if err != want || err == nil && len(items) != 2 {
				t.Errorf("%v, %d times: %v %v", passing, failures, items, err)
			}
		}
	}
	n := 0
	if _, err := dump(func() ([]int, error) { n++; return nil, unix.EPERM }); err != unix.EPERM || n != 1 {
		t.Errorf("EPERM: %v after %d tries", err, n)
	}
}
