//go:build !openwrt

package config

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/options.md anew")

// TestOptionsPage: docs/options.md matches the schema.
func TestOptionsPage(t *testing.T) {
	const page = "../../docs/options.md"
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for _, section := range Schema {
		for _, option := range section.Options {
			if Abouts[section.Type][option.Name].Meaning == "" {
				t.Errorf("nothing is said about option %s of %s", option.Name, section.Type)
			}
		}
		if len(Abouts[section.Type]) != len(section.Options) {
			t.Errorf("something is said about options of %s that it does not have", section.Type)
		}
		head := "<!-- the options of " + section.Type + ", out of the schema -->\n"
		before, rest, ok := strings.Cut(text, head)
		_, after, ok2 := strings.Cut(rest, "<!-- end -->\n")
		if !ok || !ok2 {
			t.Fatalf("%s has no place for the options of %s: a line %q and a line <!-- end -->", page, section.Type,
				strings.TrimSpace(head))
		}
		text = before + head + OptionsTable(section.Type) + "<!-- end -->\n" + after
	}
	if *update {
		if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if text != string(data) {
		t.Errorf("%s is out of date: go test ./internal/config -run TestOptionsPage -update", page)
	}
}
