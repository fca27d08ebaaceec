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

// number formats a value with three significant digits, or with all digits before the point.
func number(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}
