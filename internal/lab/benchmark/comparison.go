// Package benchmark holds the figures of a comparison and formats them as a table and as a chart.
package benchmark

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// A Metric is something that is measured on each path.
type Metric struct {
	Name string // head of the column
	Unit string // unit of the values, for the reference's row
	// LessIsBetter is set for times. A chart then shows the inverse ratio, so that longer bars are always better.
	LessIsBetter bool
	Show         Show
}

// Show says how a table shows a metric.
type Show int

const (
	Ratio Show = iota // ratio to the reference
	Value             // as measured
	Added             // difference to the reference
)

// A Path is one way to reach the home server, and its measurements.
type Path struct {
	Name   string
	Group  string      // heading in the chart, above the first path that has it
	Ours   bool        // drawn in the accent colour
	Values [][]float64 // a row per repetition, a column per metric; NaN: not measured on this path
}

// A Comparison holds paths that were measured interleaved in one run. The first path is the reference.
type Comparison struct {
	Metrics []Metric
	Paths   []*Path
}

// Median returns the median of a metric on a path; NaN if it has none.
func (c *Comparison) Median(path, metric int) float64 {
	var values []float64
	for _, row := range c.Paths[path].Values {
		if !math.IsNaN(row[metric]) {
			values = append(values, row[metric])
		}
	}
	slices.Sort(values)
	if len(values) == 0 {
		return math.NaN()
	}
	return values[len(values)/2]
}

// Ratio returns the ratio of a path's median to the reference's.
func (c *Comparison) Ratio(path, metric int) float64 {
	reference := c.Median(0, metric)
	if reference == 0 {
		return 0
	}
	return c.Median(path, metric) / reference
}

// Table formats the comparison in Markdown: ratios to the reference, whose own values are in its name.
func (c *Comparison) Table() string {
	var b strings.Builder
	b.WriteString("| path |")
	for _, m := range c.Metrics {
		fmt.Fprintf(&b, " %s |", m.Name)
	}
	b.WriteString("\n| --- |" + strings.Repeat(" --- |", len(c.Metrics)) + "\n")
	for i, path := range c.Paths {
		name := path.Name
		if path.Ours {
			name = "**" + name + "**"
		}
		fmt.Fprintf(&b, "| %s |", name)
		for j, m := range c.Metrics {
			switch value := c.Median(i, j); {
			case math.IsNaN(value):
				b.WriteString(" – |")
			case m.Show == Value:
				fmt.Fprintf(&b, " %s |", number(value))
			case i == 0 && m.Show == Added:
				fmt.Fprintf(&b, " %s %s |", number(value), m.Unit)
			case i == 0:
				fmt.Fprintf(&b, " 1.00 (%s %s) |", number(value), m.Unit)
			case m.Show == Added:
				fmt.Fprintf(&b, " +%s |", number(value-c.Median(0, j)))
			default:
				fmt.Fprintf(&b, " %.2f |", c.Ratio(i, j))
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

// noise is how far a path must be ahead to count: two runs differ by that much.
const noise = 1.02

// Ahead says for each of our paths, and each metric, which other paths are ahead of it by more than noise. Paths of
// other groups count unless apart says that the two groups are not comparable. The reference does not count.
func (c *Comparison) Ahead(apart func(ours, other *Path) bool) string {
	var b strings.Builder
	for i, ours := range c.Paths {
		if !ours.Ours {
			continue
		}
		for metric, m := range c.Metrics {
			var ahead []string
			for j, other := range c.Paths {
				if j > 0 && !other.Ours && !apart(ours, other) && c.share(j, metric) > c.share(i, metric)*noise {
					ahead = append(ahead, fmt.Sprintf("%s %.2f", other.Name, c.Ratio(j, metric)))
				}
			}
			if len(ahead) > 0 {
				b.WriteString(wrapped(fmt.Sprintf("- %s, %s %.2f: %s.", ours.Name, m.Name, c.Ratio(i, metric),
					strings.Join(ahead, ", "))))
			}
		}
	}
	if b.Len() == 0 {
		return "ds4relay is first in every column, within 2%.\n"
	}
	return "Where ds4relay is not first, by more than 2%:\n\n" + b.String()
}

// wrapped breaks an item of a list into lines of at most 120 columns.
func wrapped(item string) string {
	const columns = 120
	var b strings.Builder
	line := ""
	for i, word := range strings.Fields(item) {
		switch {
		case i == 0:
			line = word
		case len(line)+1+len(word) > columns:
			b.WriteString(line + "\n")
			line = "  " + word
		default:
			line += " " + word
		}
	}
	return b.String() + line + "\n"
}

// number formats a value with three significant digits, or with all digits before the point.
func number(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}
