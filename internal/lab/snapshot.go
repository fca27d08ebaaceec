//go:build linux

package lab

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

// volatile matches what changes by itself: lifetimes, timers of bridges, counters, and the operational state of a device
// that has its carrier, which the kernel brings up to date within a second (net/core/link_watch.c).
var volatile = []struct {
	pattern     *regexp.Regexp
	replacement string
}{
	{regexp.MustCompile(`\b((?:valid|preferred)_lft) \d+sec`), "$1 _"},
	{regexp.MustCompile(`\b(expires) [0-9a-z]+`), "$1 _"},
	{regexp.MustCompile(`\b(\w+_timer) +[0-9.]+`), "$1 _"},
	{regexp.MustCompile(`(,LOWER_UP\b.* state) (?:UP|UNKNOWN)\b`), "$1 _"},
	{regexp.MustCompile(`\bpackets \d+ bytes \d+`), "packets _ bytes _"},
}

// Snapshot describes the host's network as text: links, addresses, routes of all tables, rules, nft rulesets and the
// sysctls of devices. Equal texts mean an equal configuration.
func (h *Host) Snapshot() (string, error) {
	sections := []struct {
		title string
		read  func() (string, error)
	}{
		{"links", h.links},
		{"IPv4", func() (string, error) { return h.ipFamily("-4") }},
		{"IPv6", func() (string, error) { return h.ipFamily("-6") }},
		{"nft", func() (string, error) { return h.Run("nft", "list", "ruleset") }},
		{"sysctl", h.sysctls},
	}
	texts := make([]string, len(sections))
	errs := make([]error, len(sections))
	var readers sync.WaitGroup
	for i, section := range sections {
		readers.Go(func() { texts[i], errs[i] = section.read() })
	}
	readers.Wait()
	var snapshot strings.Builder
	for i, section := range sections {
		if errs[i] != nil {
			return "", fmt.Errorf("snapshot: %s: %w", section.title, errs[i])
		}
		fmt.Fprintf(&snapshot, "== %s\n%s", section.title, texts[i])
	}
	text := snapshot.String()
	for _, v := range volatile {
		text = v.pattern.ReplaceAllString(text, v.replacement)
	}
	return text, nil
}

// unsettled matches a device that has its carrier while its operational state says otherwise.
var unsettled = regexp.MustCompile(`<NO-CARRIER,[^>]*LOWER_UP`)

// links waits, up to two seconds, for the kernel to bring operational states up to date (net/core/link_watch.c).
func (h *Host) links() (text string, err error) {
	for range 20 {
		text, err = h.Run("ip", "-d", "link", "show")
		if err != nil || !unsettled.MatchString(text) {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	return text, err
}

// ipFamily is one process for three tables: on an emulated CPU, starting it is most of the work.
func (h *Host) ipFamily(family string) (string, error) {
	return h.RunInput("addr show\nroute show table all\nrule show\n", "ip", family, "-d", "-batch", "-")
}

func (h *Host) sysctls() (string, error) {
	var text strings.Builder
	err := h.Do(func() error {
		for _, tree := range []string{"ipv4/ip_forward", "ipv4/conf", "ipv6/conf"} {
			err := filepath.WalkDir(filepath.Join("/proc/sys/net", tree), func(path string, entry fs.DirEntry, err error) error {
				if err != nil || entry.IsDir() {
					return err
				}
				value, err := os.ReadFile(path)
				if err != nil {
					return nil // stable_secret cannot be read before it is set
				}
				fmt.Fprintf(&text, "%s = %s\n", strings.TrimPrefix(path, "/proc/sys/"), strings.TrimSpace(string(value)))
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	return text.String(), err
}
