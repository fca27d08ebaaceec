package benchmark

import (
	"encoding/xml"
	"io"
	"strings"
	"testing"
)

func comparison() *Comparison {
	return &Comparison{
		Metrics: []Metric{{Name: "TCP up", Unit: "MB/s"}, {Name: "round trip", Unit: "us", LessIsBetter: true}},
		Paths: []*Path{
			{Name: "plain IPv6", Values: [][]float64{{100, 50}, {300, 40}, {200, 60}}},
			{Name: "ours & <fast>", Ours: true, Values: [][]float64{{180, 100}, {10, 100}, {190, 100}}},
		},
	}
}

func TestTable(t *testing.T) {
	want := `| path | TCP up | round trip |
| --- | --- | --- |
| plain IPv6 | 1.00 (200 MB/s) | 1.00 (50 us) |
| **ours & <fast>** | 0.90 | 2.00 |
`
	if got := comparison().Table(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestSVG(t *testing.T) {
	svg := comparison().SVG("Figures", 0, 1)
	decoder := xml.NewDecoder(strings.NewReader(svg))
	for {
		if _, err := decoder.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for _, part := range []string{"ours &amp; &lt;fast&gt;", ">0.90<", ">0.50<"} { // the inverse of a time
		if !strings.Contains(svg, part) {
			t.Errorf("no %q in the chart", part)
		}
	}
}
