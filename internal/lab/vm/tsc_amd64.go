package vm

import (
	"fmt"
	"sync"
	"time"
)

// readTSC reads the computer's time stamp counter. QEMU's emulated x86 has the same one.
func readTSC() uint64

// knownTSC returns kernel parameters that state the frequency of the time stamp counter. If the kernel measures it
// itself while the computer is busy, it and the kernel's clock can be wrong by a factor of three.
var knownTSC = sync.OnceValue(func() string {
	const apart = 100 * time.Millisecond
	began, from := together()
	time.Sleep(apart)
	ended, to := together()
	return fmt.Sprintf(" tsc_early_khz=%d",
		uint64(float64(to-from)/float64(ended.Sub(began))*float64(time.Millisecond)))
})

// together reads clock and counter at the same moment: of several tries it returns the least disturbed one.
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
