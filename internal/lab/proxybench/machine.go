package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// userHZ is the unit of /proc/stat; it is the same on all Linux systems that Go supports.
const userHZ = 100

// busy returns the time that all CPUs have worked, for all processes.
func busy() (time.Duration, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(data), "\n")
	fields := strings.Fields(line)
	var sum int
	for _, column := range []int{1, 2, 3, 6, 7} { // user nice system idle iowait irq softirq, proc_stat(5)
		n, err := strconv.Atoi(fields[column])
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return time.Duration(sum) * time.Second / userHZ, nil
}

// memory returns the proportional and the resident set size of process groups, in bytes.
func memory(groups map[int]bool) (pss, rss float64, err error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, 0, err
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // the process has ended
		}
		// The name, in parentheses, may contain spaces; then come state, parent and group.
		fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
		if group, err := strconv.Atoi(string(fields[2])); err != nil || !groups[group] {
			continue
		}
		rollup, err := os.ReadFile(filepath.Join(filepath.Dir(file), "smaps_rollup"))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(rollup)) {
			var kb float64
			switch {
			case strings.HasPrefix(line, "Pss:"):
				fmt.Sscan(line[len("Pss:"):], &kb)
				pss += kb * 1024
			case strings.HasPrefix(line, "Rss:"):
				fmt.Sscan(line[len("Rss:"):], &kb)
				rss += kb * 1024
			}
		}
	}
	return pss, rss, nil
}
