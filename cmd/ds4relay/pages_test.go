//go:build !openwrt && !lab

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// pages returns the pages for users and developers, by path from the repository's root.
func pages(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, pattern := range []string{"/*.md", "/docs/*.md", "/docs/de/*.md", "/docs/dev/*.md", "/docs/recipes/*.md"} {
		names, err := filepath.Glob(root + pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			texts[strings.TrimPrefix(name, root+"/")] = string(text)
		}
	}
	return texts
}

// anchors returns the names of a page's headings in links.
func anchors(text string) []string {
	var found []string
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		words := regexp.MustCompile(`[^\pL\pN _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		found = append(found, strings.ReplaceAll(words, " ", "-"))
	}
	return found
}

// index returns the page that must link to a page.
func index(page string) string {
	dir := filepath.Dir(page)
	if list := dir + "/README.md"; page != list && slices.Contains([]string{"docs/dev", "docs/recipes"}, dir) {
		return list
	}
	return "README.md"
}

// TestRecipesMarked: each recipe says above its first file how far it was tried, and is no longer than a screen.
func TestRecipesMarked(t *testing.T) {
	const screen = 64 // lines
	for path, text := range pages(t) {
		if filepath.Dir(path) != "docs/recipes" || path == "docs/recipes/README.md" {
			continue
		}
		if lines := strings.Count(text, "\n"); lines > screen {
			t.Errorf("%s: %d lines, want at most %d", path, lines, screen)
		}
		begin, _, _ := strings.Cut(text, "\n    ")
		imitated := strings.Contains(begin, "*Imitated in the lab, not ") &&
			strings.Contains(begin, "](README.md#imitated-in-the-lab-not-rented)")
		if !imitated && !strings.Contains(begin, "***Not tried.***") {
			t.Errorf("%s does not say how far it was tried", path)
		}
	}
}

// TestPagesLinks: every link leads somewhere, README links to every page for users, docs/dev/README.md to every page
// for developers, docs/recipes/README.md to every recipe.
func TestPagesLinks(t *testing.T) {
	texts := pages(t)
	linked := map[string]bool{}
	for page, text := range texts {
		for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(text, -1) {
			if strings.HasPrefix(m[1], "https://") {
				continue
			}
			path, anchor, _ := strings.Cut(m[1], "#")
			target := page
			if path != "" {
				target = filepath.Join(filepath.Dir(page), path)
			}
			if page == index(target) || strings.HasSuffix(target, ".png") {
				linked[target] = true
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s: the link %s leads nowhere", page, m[1])
			} else if anchor != "" && !slices.Contains(anchors(texts[target]), anchor) {
				t.Errorf("%s: the link %s: %s has no such heading", page, m[1], target)
			}
		}
	}
	pictures, err := filepath.Glob(root + "/docs/luci/*.png")
	if err != nil {
		t.Fatal(err)
	}
	for _, picture := range pictures {
		if name := strings.TrimPrefix(picture, root+"/"); !linked[name] {
			t.Errorf("no page shows %s", name)
		}
	}
	for page := range texts {
		if page != "README.md" && !linked[page] {
			t.Errorf("%s does not link to %s", index(page), page)
		}
	}
}

// TestPagesKept: what add-feed writes on a router is there again after sysupgrade. OpenWrt keeps the files of opkg's
// feeds, and apk's list of feeds, but not its keys.
func TestPagesKept(t *testing.T) {
	list, err := os.ReadFile(root + "/files/openwrt/lib/upgrade/keep.d/ds4relay")
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile(root + "/files/site/add-feed")
	if err != nil {
		t.Fatal(err)
	}
	kept := append(strings.Fields(string(list)), "/etc/opkg/customfeeds.conf", "/etc/opkg/keys",
		"/etc/apk/repositories.d/customfeeds.list")
	written := regexp.MustCompile(`\$root(/etc/(?:opkg|apk)/[\w./-]+)`).FindAllStringSubmatch(string(script), -1)
	for _, m := range written {
		if !slices.Contains(kept, m[1]) && m[1] != "/etc/apk/keys" {
			t.Errorf("add-feed: sysupgrade does not keep %s", m[1])
		}
	}
	if len(written) < 4 {
		t.Errorf("add-feed: %q", written)
	}
}

// TestPagesArchitectures: the page about packages lists the architectures of OpenWrt that there are packages for.
func TestPagesArchitectures(t *testing.T) {
	script, err := os.ReadFile(root + "/scripts/common.sh")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(script), "declare -A openwrt_arch=(")
	table, _, _ = strings.Cut(table, "\n)")
	var built, listed []string
	for _, m := range regexp.MustCompile(`\[(\S+)\]=`).FindAllStringSubmatch(table, -1) {
		built = append(built, m[1])
	}
	_, text, _ := strings.Cut(pages(t)["docs/install.md"], "There are packages for")
	text, _, _ = strings.Cut(text, ".")
	for _, m := range regexp.MustCompile("`(\\S+)`").FindAllStringSubmatch(text, -1) {
		listed = append(listed, m[1])
	}
	slices.Sort(built)
	if !slices.Equal(built, listed) {
		t.Errorf("docs/install.md lists the architectures %v, built are %v", listed, built)
	}
}

// TestPagesCommands: the program's commands and make's targets in the pages exist.
func TestPagesCommands(t *testing.T) {
	makefile, err := os.ReadFile(root + "/Makefile")
	if err != nil {
		t.Fatal(err)
	}
	targets := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z][a-z -]*):`).FindAllSubmatch(makefile, -1) {
		for _, target := range strings.Fields(string(m[1])) {
			targets[target] = true
		}
	}
	for page, text := range pages(t) {
		// In a code span, or at the start of a line of a code block, also after a prompt. Output of the program
		// continues with lower-case words.
		for _, m := range regexp.MustCompile("(?m)(?:`|^    (?:# )?)ds4relay ([a-z]+)(?:[^ a-z]| "+
			"[^a-z]|$)").FindAllStringSubmatch(text, -1) {
			// `ds4relay home` is a line for ifupdown, with a relay's name.
			if command := m[1]; command != "home" && find(command) == nil {
				t.Errorf("%s: there is no command ds4relay %s", page, command)
			}
		}
		for _, m := range regexp.MustCompile("(?m)(?:`|^    (?:# )?)make ([a-z][a-z-]*)").FindAllStringSubmatch(
			text, -1) {
			if !targets[m[1]] {
				t.Errorf("%s: the Makefile has no target %s", page, m[1])
			}
		}
	}
}

var (
	sectionLine = regexp.MustCompile(`(?:^|\s)(config (?:relay|forward|proxy)(?: '[a-z0-9_]*')?)\s*(?:[#…].*)?$`)
	fileLine    = regexp.MustCompile(`^\s*(?:(?:config|option|list)\s.*|[#…].*)?$`)
)

// files returns the configurations in a page's code blocks. Two side by side are two files.
func files(text string) []string {
	var found []string
	for _, block := range regexp.MustCompile(`(?m)(?:^(?:    .*)?\n)+`).FindAllString(text, -1) {
		var lines [][]rune // runes, because columns count characters
		for line := range strings.Lines(block) {
			lines = append(lines, []rune(strings.TrimRight(line, "\n")))
		}
		var columns []int
		for _, line := range lines {
			for end := len(line); end > 0; {
				at := sectionLine.FindStringSubmatchIndex(string(line[:end]))
				if at == nil {
					break
				}
				end = len([]rune(string(line[:end])[:at[2]]))
				columns = append(columns, end)
			}
		}
		slices.Sort(columns)
		columns = slices.Compact(columns)
		for i, column := range columns {
			var file strings.Builder
			for _, line := range lines {
				last := len(line)
				if i+1 < len(columns) {
					last = min(last, columns[i+1])
				}
				part := ""
				if column < last {
					part = strings.TrimRight(string(line[column:last]), " ")
				}
				if file.Len() == 0 && !sectionLine.MatchString(part) {
					continue
				}
				if !fileLine.MatchString(part) {
					break
				}
				file.WriteString(part + "\n")
			}
			found = append(found, file.String())
		}
	}
	return found
}

// required are the mandatory options of a relay.
var required = []string{"option ipaddr '198.51.100.144'", "option ip6addr '2001:db8:6ef9::/64'",
	"option peeraddr '2001:db8:fdd2::/64'"}

// complete adds what a page leaves out of a file: a relay if there are only forwards, and the other options of a relay
// that ends with a line …. It drops a forward that consists of a single line with ….
func complete(file string) string {
	if !strings.Contains(file, "config relay") && strings.Contains(file, "config forward") {
		file = "config relay 'home'\n…\n" + file
	}
	var b strings.Builder
	for _, section := range regexp.MustCompile(`(?m)^config .*\n(?:(?:[^c\n].*)?\n)*`).FindAllString(file, -1) {
		short := regexp.MustCompile(`(?m)(^|\s)…$`)
		if !short.MatchString(section) {
			b.WriteString(section)
		} else if strings.HasPrefix(section, "config relay") {
			b.WriteString(short.ReplaceAllString(section, ""))
			for _, option := range required {
				if !strings.Contains(section, strings.Fields(option)[1]) {
					b.WriteString(option + "\n")
				}
			}
		}
	}
	return b.String()
}

// TestPagesFiles: every configuration in the pages is correct, without a warning.
func TestPagesFiles(t *testing.T) {
	count := 0
	for page, text := range pages(t) {
		for _, file := range files(text) {
			count++
			path := filepath.Join(t.TempDir(), "ds4relay")
			if err := os.WriteFile(path, []byte(complete(file)), 0o644); err != nil {
				t.Fatal(err)
			}
			var out, problems bytes.Buffer
			a := &app{stdout: &out, stderr: &problems, env: func(string) string { return "" }}
			if status := a.main([]string{"check", path}); status != 0 || problems.Len() > 0 {
				t.Errorf("%s: check has status %d and says:\n%s\nof\n%s", page, status, problems.String(),
					complete(file))
			}
		}
	}
	if count < 8 {
		t.Errorf("%d configurations were found in the pages; at least 8 are there", count)
	}
}
