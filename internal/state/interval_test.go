package state

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// TestIntervalKeys: no rule looks `meta l4proto` up in a set of intervals over several fields. nft before 1.1 converts
// the byte order of its single byte, in two bytes. Kernels refuse that since 7.1, and stable ones such as 6.12.117
// (nft_byteorder_init: EOPNOTSUPP). `ip protocol` is the same in tables of family ip, and needs no conversion.
func TestIntervalKeys(t *testing.T) {
	interval := regexp.MustCompile(`(?m)^\s*(?:set|map) (\w+) \{[^}\n]*flags interval`)
	key := regexp.MustCompile(`(?m)^.*\. meta l4proto .*@(\w+).*$`)
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	sets := map[string]bool{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range interval.FindAllSubmatch(text, -1) {
			sets[string(match[1])] = true
		}
		for _, match := range key.FindAllSubmatch(text, -1) {
			if sets[string(match[1])] {
				t.Errorf("%s: %s", path, match[0])
			}
		}
	}
	if len(sets) < 5 {
		t.Errorf("only these sets of intervals were found: %v", sets)
	}
}
