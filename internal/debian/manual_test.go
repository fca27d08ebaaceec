//go:build !openwrt

package debian

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/config"
)

const files = "../../files/debian"

// manual returns the options of ds4relay(5) with their text, by section.
func manual(t *testing.T) map[string]map[string]string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(files, "usr/share/man/man5/ds4relay.5"))
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]map[string]string{}
	for _, part := range strings.Split(string(data), "\n.SH ")[1:] {
		title, body, _ := strings.Cut(part, "\n")
		options := map[string]string{}
		for _, entry := range strings.Split(body, ".TP\n.B ")[1:] {
			name, text, _ := strings.Cut(entry, "\n")
			options[name] = strings.NewReplacer(`\-`, "-", "\n", " ").Replace(text)
		}
		sections[title] = options
	}
	return sections
}

var numbers = regexp.MustCompile(`\d+`)

// TestManual: ds4relay(5) has every option of the schema, with its default and the bounds that errors name, and no
// other.
func TestManual(t *testing.T) {
	sections := manual(t)
	for _, section := range config.Schema {
		options, ok := sections["CONFIG "+strings.ToUpper(section.Type)]
		if !ok {
			t.Errorf("no section for config %s", section.Type)
			continue
		}
		for _, option := range section.Options {
			text, ok := options[option.Name]
			delete(options, option.Name)
			switch {
			case !ok:
				t.Errorf("config %s: option %s is missing", section.Type, option.Name)
				continue
			case option.Required && !strings.Contains(text, "Required."):
				t.Errorf("config %s: option %s: not said to be required", section.Type, option.Name)
			case option.Default != "" && !strings.Contains(text, "Default: "+option.Default):
				t.Errorf("config %s: option %s: the default %s is missing", section.Type, option.Name, option.Default)
			case option.List != strings.HasPrefix(text, "a list"):
				t.Errorf("config %s: option %s: a list or not?", section.Type, option.Name)
			}
			if strings.Contains(option.Allowed, "a number from") {
				for _, bound := range numbers.FindAllString(option.Allowed, 2) {
					if !strings.Contains(text, bound) {
						t.Errorf("config %s: option %s: the bound %s is missing", section.Type, option.Name, bound)
					}
				}
			}
		}
		for name := range options {
			t.Errorf("config %s: there is no option %s", section.Type, name)
		}
	}
}

// TestExample: the installed configuration is correct, and disabled.
func TestExample(t *testing.T) {
	c, warnings, err := config.Load(filepath.Join(files, "etc/config/ds4relay"), config.Defaults{Role: config.VPS})
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0].Message, "no relay is enabled") {
		t.Fatal(err, warnings)
	}
	if len(c.Relays) != 1 || c.Relays[0].Enabled || c.Relays[0].Role != config.VPS || len(c.Relays[0].Forwards) != 1 {
		t.Errorf("%+v", c.Relays[0])
	}
}
