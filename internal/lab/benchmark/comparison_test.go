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
			{Name: "ours & <fast>", Ours: true,
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
	for _, part := range []string{"ours &amp; &lt;fast&gt;", ">0.90<", ">0.50<"} { // the inverse of a time
		if !strings.Contains(svg, part) {
			t.Errorf("no %q in the chart", part)
		}
	}
}
