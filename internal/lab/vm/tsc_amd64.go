package vm

import (
	"fmt"
	"sync"
	"time"
)

// readTSC is the computer's time stamp counter, which QEMU's emulated x86 has as well.
func readTSC() uint64

// knownTSC are words for an x86 kernel's command line that say how fast its time stamp counter runs. A kernel that
// finds it out by itself, while the computer does something else, may be wrong by a factor of three, and its clock
// with it.
var knownTSC = sync.OnceValue(func() string {
	const apart = 100 * time.Millisecond
	began, from := together()
	time.Sleep(apart)
	ended, to := together()
	return fmt.Sprintf(" tsc_early_khz=%d",
		uint64(float64(to-from)/float64(ended.Sub(began))*float64(time.Millisecond)))
})

// together reads clock and counter at one time: of several tries the one that nothing came between.
func together() (at time.Time, counter uint64) {
	least := time.Hour
	for range 50 {
		before := time.Now()
		c := readTSC()
		if took := time.Since(before); took < least {
			least, at, counter = took, before, c
		}
	}
	return at, counter
}
