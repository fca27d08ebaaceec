package benchmark

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Sizes of the chart in pixels.
const (
	nameWidth  = 250
	barWidth   = 210
	panelGap   = 62
	lineHeight = 24
	barHeight  = 14
	headHeight = 60
)

// SVG draws one panel for each of these metrics, with a bar for each path. The length of a bar is the ratio to the
// reference (for times its inverse), at most one and a half. Colours follow the reader's light or dark setting.
func (c *Comparison) SVG(title string, metrics ...int) string {
	width := nameWidth + len(metrics)*(barWidth+panelGap)
	height := headHeight + len(c.Paths)*lineHeight + 14
	var b strings.Builder
	fmt.Fprintf(&b,
		`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" `+
			`aria-label="%s">`+"\n", width, height, width, height, html.EscapeString(title))
	b.WriteString(`<style>
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600; font-size: 15px }
.head { fill: #57606a }
.bar { fill: #8c959f }
.ours { fill: #1f7a4d }
.limit { stroke: #57606a; stroke-dasharray: 3 3 }
.paper { fill: #ffffff }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .head { fill: #9198a1 } .bar { fill: #6e7681 } .ours { fill: #3fb950 } .limit { stroke: #9198a1 } .paper { fill: #0d1117 }
}
</style>
`)
	fmt.Fprintf(&b, `<rect class="paper" width="%d" height="%d"/>`+"\n", width, height)
	fmt.Fprintf(&b, `<text class="title" x="10" y="22">%s</text>`+"\n", html.EscapeString(title))
	for panel, metric := range metrics {
		x := nameWidth + panel*(barWidth+panelGap)
		head := c.Metrics[metric].Name
		fmt.Fprintf(&b, `<text class="head" x="%d" y="46">%s</text>`+"\n", x, html.EscapeString(head))
		for i, path := range c.Paths {
			ratio := c.Ratio(i, metric)
			if math.IsNaN(ratio) {
				continue
			}
			if c.Metrics[metric].LessIsBetter && ratio > 0 {
				ratio = 1 / ratio
			}
			y := headHeight + i*lineHeight
			class := "bar"
			if path.Ours {
				class = "ours"
			}
			length := int(min(ratio, 1.5) / 1.5 * barWidth)
			fmt.Fprintf(&b,
				`<rect class="%s" x="%d" y="%d" width="%d" height="%d" rx="2"/><text x="%d" y="%d">%.2f</text>`+"\n",
				class, x, y, max(length, 1), barHeight, x+max(length, 1)+6, y+barHeight-2, ratio)
		}
		one := x + barWidth*2/3
		fmt.Fprintf(&b, `<line class="limit" x1="%d" y1="52" x2="%d" y2="%d"/>`+"\n", one, one,
			headHeight+len(c.Paths)*lineHeight-4)
	}
	for i, path := range c.Paths {
		fmt.Fprintf(&b, `<text x="10" y="%d">%s</text>`+"\n", headHeight+i*lineHeight+barHeight-2,
			html.EscapeString(path.Name))
	}
	b.WriteString("</svg>\n")
	return b.String()
}
