package feed

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestWorkflows: what CI runs is what anybody can run, and of a release nothing but targets of the Makefile.
func TestWorkflows(t *testing.T) {
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ file, want string }{
		{"ci.yml", ".ci/run, make, go vet ./..."},
		{"release.yml", "make release, make release-draft, make release-site"},
	} {
		text, err := os.ReadFile("../../.github/workflows/" + c.file)
		if err != nil {
			t.Fatal(err)
		}
		var commands []string
		for _, found := range regexp.MustCompile(`(?m)^ +(?:- )?run: (.*)$`).FindAllStringSubmatch(string(text), -1) {
			if strings.HasPrefix(found[1], "apt-get update") || strings.HasPrefix(found[1], "git config ") {
				continue // what make and git need
			}
			commands = append(commands, found[1])
			if target, isMake := strings.CutPrefix(found[1], "make "); isMake &&
				!regexp.MustCompile(`(?m)^([a-z-]+ )*`+target+`( [a-z-]+)*:`).Match(makefile) {
				t.Errorf("%s: the Makefile has no target %s", c.file, target)
			}
		}
		if got := strings.Join(commands, ", "); got != c.want {
			t.Errorf("%s runs %s, want %s", c.file, got, c.want)
		}
	}
}
