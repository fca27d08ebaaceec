// Package metrics writes figures for Prometheus, in OpenMetrics or in its older text format.
package metrics

import (
	"strconv"
	"strings"
)

// Set is a list of samples; the zero value is empty.
type Set struct{ samples []sample }

type sample struct{ name, text string }

var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// Label returns a label, for Add.
func Label(name, value string) string { return name + `="` + escape.Replace(value) + `"` }

// Add adds a sample. Its name is one of Catalogue's, without the prefix; labels are separated by commas. All samples of
// a name have the same labels, with different values.
func (s *Set) Add(name string, value uint64, labels string) {
	if labels != "" {
		labels = "{" + labels + "}"
	}
	s.samples = append(s.samples, sample{name, prefix + name + labels + " " + strconv.FormatUint(value, 10) + "\n"})
}

// Is adds a sample that is 1 or 0.
func (s *Set) Is(name string, value bool, labels string) {
	n := uint64(0)
	if value {
		n = 1
	}
	s.Add(name, n, labels)
}

// Text returns the set as OpenMetrics 1.0, or as Prometheus' text format 0.0.4, in which a metric has the name of its
// samples, and there is no type for infos.
func (s *Set) Text(openMetrics bool) string {
	var b strings.Builder
	for line := range strings.SplitSeq(Catalogue, "\n") {
		name, help, _ := strings.Cut(line, " ")
		begun := false
		for _, sample := range s.samples {
			if sample.name != name {
				continue
			}
			if !begun {
				b.WriteString(head(prefix+name, help, openMetrics))
				begun = true
			}
			b.WriteString(sample.text)
		}
	}
	if openMetrics {
		b.WriteString("# EOF\n")
	}
	return b.String()
}

// head returns what precedes the samples of a name.
func head(name, help string, openMetrics bool) string {
	kind, unit := "gauge", ""
	family, counts := strings.CutSuffix(name, "_total")
	if counts {
		kind = "counter"
	}
	if openMetrics {
		if name = family; strings.HasSuffix(name, "_info") {
			name, kind = strings.TrimSuffix(name, "_info"), "info"
		}
		for _, u := range []string{"bytes", "seconds"} {
			if strings.HasSuffix(name, "_"+u) {
				unit = "# UNIT " + name + " " + u + "\n"
			}
		}
	}
	return "# HELP " + name + " " + help + "\n# TYPE " + name + " " + kind + "\n" + unit
}
