package lab

import (
	"os"
	"strconv"
	"strings"
	"time"
)

// Settle waits until no packet is in transit between the hosts: the kernel's receive queues are empty, and several
// checks in a row, between which kernel threads could run, found no new packets. It gives up after five seconds, for
// example if another test has its own traffic. It cannot know about packets that a program has not sent yet.
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

// backlog returns how many packets each CPU has processed, and whether all queues are empty (softnet_seq_show in
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
