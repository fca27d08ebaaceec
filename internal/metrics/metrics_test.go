package metrics

import (
	"regexp"
	"strings"
	"testing"
)

// TestText: both formats, with labels that need escapes, and metrics in the catalogue's order.
func TestText(t *testing.T) {
	set := &Set{}
	set.Add("tunnel_receive_bytes_total", 1<<63, Label("relay", "home"))
	set.Is("relay_up", true, Label("relay", "home"))
	set.Is("relay_up", false, Label("relay", "cabin"))
	set.Add("info", 1, Label("version", "a \"b\" \\ c\nd"))
	set.Add("tunnel_mtu_bytes", 1460, Label("relay", "home"))
	for openMetrics, want := range map[bool]string{
		true: `# HELP ds4relay The version of ds4relay.
# TYPE ds4relay info
ds4relay_info{version="a \"b\" \\ c\nd"} 1
# HELP ds4relay_relay_up Whether the tunnel is set up (1) or not (0).
# TYPE ds4relay_relay_up gauge
ds4relay_relay_up{relay="home"} 1
ds4relay_relay_up{relay="cabin"} 0
# HELP ds4relay_tunnel_mtu_bytes The tunnel's MTU.
# TYPE ds4relay_tunnel_mtu_bytes gauge
# UNIT ds4relay_tunnel_mtu_bytes bytes
ds4relay_tunnel_mtu_bytes{relay="home"} 1460
# HELP ds4relay_tunnel_receive_bytes Bytes from the other end.
# TYPE ds4relay_tunnel_receive_bytes counter
# UNIT ds4relay_tunnel_receive_bytes bytes
ds4relay_tunnel_receive_bytes_total{relay="home"} 9223372036854775808
# EOF
`,
		false: `# HELP ds4relay_info The version of ds4relay.
# TYPE ds4relay_info gauge
ds4relay_info{version="a \"b\" \\ c\nd"} 1
# HELP ds4relay_relay_up Whether the tunnel is set up (1) or not (0).
# TYPE ds4relay_relay_up gauge
ds4relay_relay_up{relay="home"} 1
ds4relay_relay_up{relay="cabin"} 0
# HELP ds4relay_tunnel_mtu_bytes The tunnel's MTU.
# TYPE ds4relay_tunnel_mtu_bytes gauge
ds4relay_tunnel_mtu_bytes{relay="home"} 1460
# HELP ds4relay_tunnel_receive_bytes_total Bytes from the other end.
# TYPE ds4relay_tunnel_receive_bytes_total counter
ds4relay_tunnel_receive_bytes_total{relay="home"} 9223372036854775808
`} {
		if got := set.Text(openMetrics); got != want {
			t.Errorf("OpenMetrics %v:\n%s\nwant\n%s", openMetrics, got, want)
		}
	}
}

// TestCatalogue: names are valid, there once, and each has an explanation of one line.
func TestCatalogue(t *testing.T) {
	known := map[string]bool{}
	for line := range strings.SplitSeq(Catalogue, "\n") {
		name, help, _ := strings.Cut(line, " ")
		family := strings.TrimSuffix(strings.TrimSuffix(name, "_total"), "_info")
		if !regexp.MustCompile(`^[a-z_]+$`).MatchString(name) || known[family] {
			t.Errorf("%q: the name is wrong, or there twice", name)
		}
		known[family] = true
		if !strings.HasSuffix(help, ".") || strings.ContainsAny(help, `"\`) {
			t.Errorf("%s: %q", name, help)
		}
	}
}
