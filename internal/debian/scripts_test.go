package debian

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestStopsTriggersFirst: the package's scripts never stop a service in one call with what starts it. systemd stops the
// service first then, and a path unit that still runs may start it again.
func TestStopsTriggersFirst(t *testing.T) {
	scripts, err := filepath.Glob("../../debian/scripts/*")
	if err != nil || len(scripts) < 3 {
		t.Fatalf("%v: %q", err, scripts)
	}
	stops := 0
	for _, script := range scripts {
		text, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.ReplaceAll(string(text), "\\\n", " ")
		for _, call := range regexp.MustCompile(`systemctl (?:stop|disable --now) [^|>&\n]*`).FindAllString(lines, -1) {
			stops++
			units := strings.Fields(call)
			for _, unit := range units {
				name, isService := strings.CutSuffix(unit, ".service")
				if isService && slices.ContainsFunc([]string{".path", ".timer", ".socket"}, func(kind string) bool {
					return slices.Contains(units, name+kind)
				}) {
					t.Errorf("%s: %s", filepath.Base(script), call)
				}
			}
		}
	}
	if stops < 4 {
		t.Errorf("only %d calls were found", stops)
	}
}
