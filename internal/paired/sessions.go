package paired

import (
	"bytes"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// User is the user that homes log in as.
const User = "ds4relay"

// process is one of that user.
type process struct {
	pid, parent int
	name        string // as in /proc/PID/comm
	words       []string
}

// EndSessions ends what homes have open for a relay by ssh, and sessions without a command: sshd asks for a key only
// when a session begins. It returns how many processes were ended.
func EndSessions(relay string) int {
	who, err := user.Lookup(User)
	if err != nil {
		return 0
	}
	uid, err := strconv.Atoi(who.Uid)
	if err != nil || uid == 0 {
		return 0
	}
	ended := 0
	for _, pid := range toEnd(processes("/proc", uint32(uid)), relay) {
		if syscall.Kill(pid, syscall.SIGTERM) == nil {
			ended++
		}
	}
	return ended
}

// processes lists a user's.
func processes(proc string, uid uint32) (list []process) {
	dirs, _ := filepath.Glob(filepath.Join(proc, "[0-9]*"))
	for _, dir := range dirs {
		var of syscall.Stat_t
		if syscall.Stat(dir, &of) != nil || of.Uid != uid {
			continue
		}
		p := process{}
		p.pid, _ = strconv.Atoi(filepath.Base(dir))
		stat, err := os.ReadFile(filepath.Join(dir, "stat"))
		begin, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
		if err != nil || begin < 0 || end < begin {
			continue
		}
		p.name = string(stat[begin+1 : end])
		_, _ = fmt.Sscanf(string(stat[end+1:]), " %s %d", new(string), &p.parent)
		command, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		p.words = strings.FieldsFunc(string(command), func(c rune) bool { return c == 0 || c == ' ' })
		list = append(list, p)
	}
	return list
}

// toEnd returns the processes to be ended: sessions of sshd that have a command for the relay, or none at all, with
// what runs in them.
func toEnd(list []process, relay string) (pids []int) {
	for _, p := range list {
		commands := commandsOf(list, p.pid)
		ours := slices.ContainsFunc(append(commands, p), func(c process) bool { return c.serves(relay) })
		if ours || strings.HasPrefix(p.name, "sshd") && len(commands) == 0 {
			pids = append(pids, p.pid)
		}
	}
	return pids
}

// commandsOf are the processes that a process has started, and these.
func commandsOf(list []process, pid int) (below []process) {
	for _, p := range list {
		if p.parent == pid && p.pid != pid {
			below = append(append(below, p), commandsOf(list, p.pid)...)
		}
	}
	return below
}

// serves reports whether a process is `ds4relay receive` of the relay, or a shell that runs it.
func (p process) serves(relay string) bool {
	return slices.Contains(p.words, "receive") && len(p.words) > 0 && p.words[len(p.words)-1] == relay
}
