package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ds4relay/ds4relay/internal/lab/remote"
)

// spin counts rounds of a loop at the lowest priority. Whatever else the CPU does costs rounds.
func spin(long time.Duration) error {
	const lowest, roundsPerLook = 19, 1 << 14
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, 0, lowest); err != nil {
		return err
	}
	before, err := packets()
	if err != nil {
		return err
	}
	start := time.Now()
	result := remote.Spun{Packets: map[string]int64{}}
	for time.Since(start) < long {
		for range roundsPerLook {
			result.Rounds++
		}
	}
	result.Elapsed = time.Since(start)
	after, err := packets()
	if err != nil {
		return err
	}
	for name, n := range after {
		result.Packets[name] = n - before[name]
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

// packets returns how many packets each network card has received.
func packets() (map[string]int64, error) {
	files, err := filepath.Glob("/sys/class/net/*/statistics/rx_packets")
	if err != nil {
		return nil, err
	}
	counts := map[string]int64{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
		if err != nil {
			return nil, err
		}
		counts[filepath.Base(filepath.Dir(filepath.Dir(file)))] = n
	}
	return counts, nil
}
