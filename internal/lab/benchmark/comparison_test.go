package benchmark

import (
	"encoding/xml"
	"io"
	"math"
	"strings"
	"testing"
)

var none = math.NaN()

func comparison() *Comparison {
	return &Comparison{
		Metrics: []Metric{{Name: "TCP up", Unit: "MB/s"}, {Name: "round trip", Unit: "us", LessIsBetter: true},
			{Name: "UDP", Unit: "/s"}, {Name: "memory", Unit: "MB", Show: Value},
			{Name: "p99", Unit: "us", Show: Added}},
		Paths: []*Path{
			{Name: "plain IPv6", Values: [][]float64{{100, 50, 10, none, 20}, {300, 40, 10, none, 20},
				{200, 60, 10, none, 20}}},
			{Name: "ours & <fast>", Group: "tunnels", Ours: true,
				Values: [][]float64{{180, 100, none, 7.25, 31}, {10, 100, none, 7.25, 31}, {190, 100, none, 7.25, 31}}},
		},
	}
}

func TestTable(t *testing.T) {
	want := `| path | TCP up | round trip | UDP | memory | p99 |
| --- | --- | --- | --- | --- | --- |
| plain IPv6 | 1.00 (200 MB/s) | 1.00 (50 us) | 1.00 (10 /s) | – | 20 us |
| **ours & <fast>** | 0.90 | 2.00 | – | 7.25 | +11 |
`
	if got := comparison().Table(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestSVG(t *testing.T) {
	svg := comparison().SVG("Figures", 0, 1, 2)
	decoder := xml.NewDecoder(strings.NewReader(svg))
	for {
		if _, err := decoder.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if strings.Contains(svg, "NaN") {
		t.Error("NaN in the chart")
	}
	for _, part := range []string{"ours &amp; &lt;fast&gt;", ">90 %<", ">50 %<", ">tunnels<", // the inverse of a time
		"A longer bar is better everywhere. 100 % is plain IPv6. For the round trip it is the inverse: longer is faster."} {
		if !strings.Contains(svg, part) {
			t.Errorf("no %q in the chart", part)
		}
	}
}

func TestAhead(t *testing.T) {
	c := &Comparison{
		Metrics: []Metric{{Name: "TCP up"}, {Name: "round trip", LessIsBetter: true}},
		Paths: []*Path{
			{Name: "plain", Values: [][]float64{{100, 10}}},
			{Name: "ours", Ours: true, Values: [][]float64{{50, 20}}},
			{Name: "by hand", Values: [][]float64{{50.5, 16}}}, // the first is noise
			{Name: "proxy", Values: [][]float64{{60, 15}}},
			{Name: "slow", Values: [][]float64{{10, 200}}},
		},
	}
	all := func(*Path, *Path) bool { return false }
	want := "Where ds4relay is not first, by more than 2%:\n\n" +
		"- ours, TCP up 0.50: proxy 0.60.\n- ours, round trip 2.00: by hand 1.60, proxy 1.50.\n"
	if got := c.Ahead(all); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	none := func(*Path, *Path) bool { return true }
	if got, want := c.Ahead(none), "ds4relay is first in every column, within 2%.\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
