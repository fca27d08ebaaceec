package benchmark

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Sizes of the chart in pixels. It is as wide as a page on GitHub, so that nothing is scaled down.
const (
	nameWidth   = 258
	barWidth    = 96
	panelWidth  = 146 // a bar, its number and the gap to the next one
	lineHeight  = 22
	groupHeight = 24 // of a group's heading
	barHeight   = 13
	headHeight  = 62
	footHeight  = 30
)

// SVG draws one panel for each of these metrics, with a bar for each path, below the names of the groups. The length of
// a bar is the share of the reference that the path reaches. For times it is the inverse, which a line at the bottom
// says. So a longer bar is better everywhere. Colours follow the reader's light or dark setting.
func (c *Comparison) SVG(title string, metrics ...int) string {
	width := nameWidth + len(metrics)*panelWidth
	rows, end := c.rows()
	height := end + footHeight
	scale := c.greatest(metrics)
	var b strings.Builder
	fmt.Fprintf(&b,
		`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" `+
			`aria-label="%s">`+"\n", width, height, width, height, html.EscapeString(title))
	b.WriteString(`<style>
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600; font-size: 15px }
.head, .group, .note { fill: #57606a }
.group { font-style: italic }
.ours-name { font-weight: 600 }
.number { paint-order: stroke; stroke: #ffffff; stroke-width: 4px }
.bar { fill: #8c959f }
.reference { fill: #c3c9d0 }
.ours { fill: #1f7a4d }
.limit { stroke: #8c959f; stroke-dasharray: 3 3 }
.paper { fill: #ffffff }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .head, .group, .note { fill: #9198a1 } .bar { fill: #6e7681 } .reference { fill: #3d444d }
.ours { fill: #3fb950 } .limit { stroke: #6e7681 } .paper { fill: #0d1117 }
.number { stroke: #0d1117 }
}
</style>
`)
	text := func(class string, x, y int, s string) {
		fmt.Fprintf(&b, `<text class="%s" x="%d" y="%d">%s</text>`+"\n", class, x, y, html.EscapeString(s))
	}
	fmt.Fprintf(&b, `<rect class="paper" width="%d" height="%d"/>`+"\n", width, height)
	text("title", 10, 22, title)
	var inverse []string
	for panel, metric := range metrics {
		x := nameWidth + panel*panelWidth
		one := x + int(barWidth/scale)
		fmt.Fprintf(&b, `<line class="limit" x1="%d" y1="54" x2="%d" y2="%d"/>`+"\n", one, one, end)
		text("head", x, 47, c.Metrics[metric].Name)
		if c.Metrics[metric].LessIsBetter {
			inverse = append(inverse, c.Metrics[metric].Name)
		}
		for i, path := range c.Paths {
			share := c.share(i, metric)
			if math.IsNaN(share) {
				continue
			}
			class := "bar"
			switch {
			case path.Ours:
				class = "ours"
			case i == 0:
				class = "reference"
			}
			length := max(int(share/scale*barWidth), 1)
			fmt.Fprintf(&b, `<rect class="%s" x="%d" y="%d" width="%d" height="%d" rx="2"/>`+"\n", class, x, rows[i],
				length, barHeight)
			text("number", x+length+5, rows[i]+barHeight-2, fmt.Sprintf("%.0f %%", share*100))
		}
	}
	for i, path := range c.Paths {
		if c.begins(i) {
			text("group", 10, rows[i]-6, path.Group)
		}
		class := "name"
		if path.Ours {
			class = "ours-name"
		}
		text(class, 10, rows[i]+barHeight-2, path.Name)
	}
	note := fmt.Sprintf("A longer bar is better everywhere. 100 %% is %s.", c.Paths[0].Name)
	if len(inverse) > 0 {
		note += fmt.Sprintf(" For the %s it is the inverse: longer is faster.", strings.Join(inverse, " and the "))
	}
	text("note", 10, height-10, note)
	b.WriteString("</svg>\n")
	return b.String()
}

// begins reports whether a path is the first of a group with a name.
func (c *Comparison) begins(path int) bool {
	group := c.Paths[path].Group
	return group != "" && (path == 0 || c.Paths[path-1].Group != group)
}

// rows returns where each path's row begins, and where the last one ends.
func (c *Comparison) rows() (tops []int, end int) {
	end = headHeight
	for i := range c.Paths {
		if c.begins(i) {
			end += groupHeight
		}
		tops = append(tops, end)
		end += lineHeight
	}
	return tops, end
}

// share is a ratio of which more is better.
func (c *Comparison) share(path, metric int) float64 {
	ratio := c.Ratio(path, metric)
	if c.Metrics[metric].LessIsBetter && ratio > 0 {
		return 1 / ratio
	}
	return ratio
}

// greatest returns the greatest share of the metrics, at least 1.
func (c *Comparison) greatest(metrics []int) float64 {
	most := 1.0
	for _, metric := range metrics {
		for path := range c.Paths {
			if share := c.share(path, metric); share > most {
				most = share
			}
		}
	}
	return most
}
