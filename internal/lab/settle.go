package lab

import (
	"os"
	"strconv"
	"strings"
	"time"
)

// Settle waits until no packet is on its way between the hosts: the kernel's queues of received packets are empty, and
// none was taken from them at several looks, between which the kernel's own threads had their turn. It gives up after
// five seconds, as where another test has traffic of its own. What a program has not sent yet it cannot know of.
func Settle() {
	const looks = 4
	taken, quiet := "", 0
	for deadline := time.Now().Add(5 * time.Second); quiet < looks &&
		time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		now, empty := backlog()
		if empty && now == taken {
			quiet++
		} else {
			quiet = 0
		}
		taken = now
	}
}

// backlog reads how many packets each CPU has taken, and whether none waits (softnet_seq_show in
// net/core/net-procfs.c).
func backlog() (taken string, empty bool) {
	const processed, queued = 0, 11
	data, err := os.ReadFile("/proc/net/softnet_stat")
	if err != nil {
		return "", false
	}
	empty = true
	var counts []string
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) <= queued {
			return "", false
		}
		waiting, err := strconv.ParseUint(fields[queued], 16, 32)
		empty = empty && err == nil && waiting == 0
		counts = append(counts, fields[processed])
	}
	return strings.Join(counts, " "), empty
}
