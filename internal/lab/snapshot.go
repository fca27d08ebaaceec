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

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// volatile matches what changes by itself: lifetimes, bridge timers, counters, and the operational state of a device
// with carrier, which the kernel updates within a second (net/core/link_watch.c).
var volatile = []struct {
	word        string // contained in every line that the pattern matches
	pattern     *regexp.Regexp
	replacement string
}{
	{"_lft ", regexp.MustCompile(`\b((?:valid|preferred)_lft) \d+sec`), "$1 _"},
	{"expires ", regexp.MustCompile(`\b(expires) [0-9a-z]+`), "$1 _"},
	{"_timer ", regexp.MustCompile(`\b(\w+_timer) +[0-9.]+`), "$1 _"},
	{"LOWER_UP", regexp.MustCompile(`(,LOWER_UP\b.* state) (?:UP|UNKNOWN)\b`), "$1 _"},
	{"packets ", regexp.MustCompile(`\bpackets \d+ bytes \d+`), "packets _ bytes _"},
}

// netnsGone is what ip writes to standard error where another lab takes away one of its namespaces meanwhile: ip asks
// the kernel for the number of each namespace that has a name.
const netnsGone = "Error: Peer netns reference is invalid.\n"

// steady replaces what changes by itself.
func steady(line string) string {
	for _, v := range volatile {
		if strings.Contains(line, v.word) {
			line = v.pattern.ReplaceAllString(line, v.replacement)
		}
	}
	return line
}

// Snapshot describes the host's network as text: links, addresses, routes of all tables, rules, nft rulesets and
// sysctls of devices. Equal texts mean equal configurations.
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
	// Read the links first, because that waits for the operational states. What depends on them, such as link-local
	// addresses, is complete afterwards.
	texts[0], errs[0] = sections[0].read()
	var readers sync.WaitGroup
	for i, section := range sections[1:] {
		readers.Add(1)
		go func() {
			defer readers.Done()
			texts[i+1], errs[i+1] = section.read()
		}()
	}
	readers.Wait()
	var snapshot strings.Builder
	for i, section := range sections {
		if errs[i] != nil {
			return "", fmt.Errorf("snapshot: %s: %w", section.title, errs[i])
		}
		fmt.Fprintf(&snapshot, "== %s\n", section.title)
		for line := range strings.Lines(texts[i]) {
			if line != netnsGone {
				snapshot.WriteString(steady(line))
			}
		}
	}
	return snapshot.String(), nil
}

// unsettled matches a device that has carrier, but whose operational state still says otherwise.
var unsettled = regexp.MustCompile(`<NO-CARRIER,[^>]*LOWER_UP`)

// links waits, for at most five seconds, until the kernel has updated operational states (net/core/link_watch.c).
func (h *Host) links() (text string, err error) {
	for range 50 {
		text, err = h.Run("ip", "-d", "link", "show")
		if err != nil || !unsettled.MatchString(text) {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	return text, err
}

// ipFamily lists three tables with one process, since starting processes dominates the cost on an emulated CPU.
func (h *Host) ipFamily(family string) (string, error) {
	return h.RunInput("addr show\nroute show table all\nrule show\n", "ip", family, "-d", "-batch", "-")
}

// sysctls returns the sysctls of devices, from one rtnetlink dump, and those of all and default, which only files have.
// Reading a file for each value of each device took most of a snapshot's time.
func (h *Host) sysctls() (string, error) {
	var text strings.Builder
	err := h.Do(func() error {
		for _, tree := range []string{"ipv4/ip_forward", "ipv4/conf/all", "ipv4/conf/default", "ipv6/conf/all",
			"ipv6/conf/default"} {
			err := filepath.WalkDir(filepath.Join("/proc/sys/net", tree),
				func(path string, entry fs.DirEntry, err error) error {
					if err != nil || entry.IsDir() {
						return err
					}
					value, err := os.ReadFile(path)
					if err != nil {
						return nil // stable_secret is unreadable until it is set
					}
					fmt.Fprintf(&text, "%s = %s\n", strings.TrimPrefix(path, "/proc/sys/"),
						strings.TrimSpace(string(value)))
					return nil
				})
			if err != nil {
				return err
			}
		}
		return deviceConf(&text)
	})
	return text.String(), err
}

// deviceConf writes the values of /proc/sys/net/ipv[46]/conf of each device by their numbers (linux/ip.h:
// IPV4_DEVCONF_…, linux/ipv6.h: DEVCONF_…), for the calling thread's namespace.
func deviceConf(text *strings.Builder) error {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	messages, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	for _, m := range messages {
		attrs, err := nl.ParseRouteAttr(m[nl.DeserializeIfInfomsg(m).Len():])
		if err != nil {
			return err
		}
		name := ""
		for _, attr := range attrs {
			switch attr.Attr.Type {
			case unix.IFLA_IFNAME:
				name = strings.TrimRight(string(attr.Value), "\x00")
			case unix.IFLA_AF_SPEC:
				families, err := nl.ParseRouteAttr(attr.Value)
				if err != nil {
					return err
				}
				for _, family := range families {
					if err := writeConf(text, name, family.Attr.Type, family.Value); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

func writeConf(text *strings.Builder, device string, family uint16, value []byte) error {
	// The attribute with the values (linux/if_link.h: IFLA_INET_CONF, IFLA_INET6_CONF).
	conf := map[uint16]uint16{unix.AF_INET: 1, unix.AF_INET6: 2}[family]
	attrs, err := nl.ParseRouteAttr(value)
	if err != nil || conf == 0 {
		return err
	}
	for _, attr := range attrs {
		if attr.Attr.Type != conf {
			continue
		}
		for i := 0; i+4 <= len(attr.Value); i += 4 {
			fmt.Fprintf(text, "conf %s family %d number %d = %d\n", device, family, i/4,
				int32(nl.NativeEndian().Uint32(attr.Value[i:])))
		}
	}
	return nil
}
