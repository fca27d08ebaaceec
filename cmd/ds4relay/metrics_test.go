//go:build !openwrt && !lab

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/kernel/fake"
	"github.com/ds4relay/ds4relay/internal/metrics"
	"github.com/ds4relay/ds4relay/internal/reconcile"
	"github.com/ds4relay/ds4relay/internal/state"
	"github.com/ds4relay/ds4relay/internal/traffic"
)

// everything is a status with all metrics, and some text that must be escaped.
func everything() *reconcile.Status {
	heard, shaken := int64(18), int64(95)
	forwards := []reconcile.ForwardStatus{
		{Section: "web", Name: `Mum's "web" \ server`, DestIP: "192.168.1.210", Host: "up",
			Flows: &reconcile.Flows{Open: 2, In: &state.Traffic{Bytes: 1 << 50}, Out: &state.Traffic{Bytes: 8}}},
		{Section: "forward[1]", DestIP: "192.168.1.211", Host: "missing", Flows: &reconcile.Flows{}},
		{Section: "mail", DestIP: "192.168.1.212", Host: "unknown"},
	}
	relay := reconcile.RelayStatus{Name: "home", Enabled: true, Role: config.Router, Up: true, IPAddr: "198.51.100.144",
		Device: "wrap1", Transport: config.IPIP6, MTU: 1452, OtherEnd: "heard", HeardS: &heard, Forwards: forwards,
		Counters: &kernel.Counters{RxBytes: 1, RxPackets: 2, TxBytes: 3, TxPackets: 4, RxErrors: 5, TxErrors: 6}}
	turn := true
	silent := relay
	silent.Active = &turn
	silent.Name, silent.OtherEnd, silent.HeardS, silent.Counters, silent.Forwards = "cabin", "silent", nil, nil,
		[]reconcile.ForwardStatus{}
	encrypted := silent
	encrypted.Name, encrypted.Transport = "mill", config.WireGuard
	encrypted.KeysStatus = reconcile.KeysStatus{Port: 51847,
		PeerPublicKey: "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=", Endpoint: "[2001:db8::7]:40112",
		HandshakeS: &shaken}
	return &reconcile.Status{Relays: []reconcile.RelayStatus{relay, silent, encrypted, {Name: "off"}},
		Differs: []string{}, Connections: &kernel.Connections{Count: 9, Max: 10}}
}

func everyMetric() *metrics.Set {
	set := reconcile.Metrics("0.1.0", everything())
	(&traffic.Totals{Counted: true, Forwards: []traffic.Forward{{Relay: "home", Section: "web"}}}).Metrics(set)
	return set
}

// names are those of a set's samples.
func names(text string) []string {
	found := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^(ds4relay_[a-z_]+)[ {]`).FindAllStringSubmatch(text, -1) {
		found[m[1]] = true
	}
	return slices.Sorted(maps.Keys(found))
}

// promtool runs Prometheus' own checker, and returns its output.
func promtool(t *testing.T, input string, args ...string) (out string, ok bool) {
	t.Helper()
	path := os.Getenv("DS4RELAY_PROMTOOL")
	if path == "" {
		t.Skip("DS4RELAY_PROMTOOL names no promtool")
	}
	command := exec.Command(path, args...)
	command.Stdin = strings.NewReader(input)
	output, err := command.CombinedOutput()
	if _, failed := err.(*exec.ExitError); err != nil && !failed {
		t.Fatal(err)
	}
	return string(output), err == nil
}

// TestPromtool: Prometheus' own checker finds nothing wrong with the text format.
func TestPromtool(t *testing.T) {
	if out, ok := promtool(t, everyMetric().Text(false), "check", "metrics"); !ok || out != "" {
		t.Errorf("promtool check metrics: %s", out)
	}
}

// TestOpenMetrics: the strict parser of Prometheus' Python client takes the output.
func TestOpenMetrics(t *testing.T) {
	const script = `import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
for family in text_string_to_metric_families(sys.stdin.read()):
    for sample in family.samples:
        print(sample.name, family.type, family.unit)
`
	const python = "/usr/bin/python3"
	if out, err := exec.Command(python, "-c", "import prometheus_client").CombinedOutput(); err != nil {
		t.Skip("there is no prometheus_client here: ", err, string(out))
	}
	text := everyMetric().Text(true)
	command := exec.Command(python, "-c", script)
	command.Stdin = strings.NewReader(text)
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s\n%s", err, out, text)
	}
	for _, want := range []string{"ds4relay_info info ", "ds4relay_relay_up gauge ",
		"ds4relay_peer_heard_seconds gauge seconds", "ds4relay_forward_bytes_total counter bytes"} {
		if !slices.Contains(strings.Split(string(out), "\n"), want) {
			t.Errorf("the parser does not say %q, but\n%s", want, out)
		}
	}
}

// lua writes a value of JSON as an expression of Lua.
func lua(value any) string {
	switch value := value.(type) {
	case map[string]any:
		var b strings.Builder
		for key, member := range value {
			fmt.Fprintf(&b, "[%s]=%s,", lua(key), lua(member))
		}
		return "{" + b.String() + "}"
	case []any:
		var b strings.Builder
		for _, member := range value {
			b.WriteString(lua(member) + ",")
		}
		return "{" + b.String() + "}"
	case string:
		var b strings.Builder
		for _, c := range []byte(value) {
			fmt.Fprintf(&b, `\%03d`, c)
		}
		return `"` + b.String() + `"`
	case nil:
		return "nil"
	}
	return fmt.Sprint(value)
}

// exporter has the functions that prometheus-node-exporter-lua gives to collectors, and a ubus with one answer.
const exporter = `
function output(text) print(text) end
local function sample(name, labels, value)
  local list = {}
  for label, text in pairs(labels or {}) do list[#list + 1] = label .. '="' .. text .. '"' end
  output(name .. (labels and "{" .. table.concat(list, ",") .. "}" or "") .. " " .. value)
end
function metric(name, kind, labels, value)
  output("# TYPE " .. name .. " " .. kind)
  if value then sample(name, labels, value) end
  return function(labels, value) sample(name, labels, value) end
end
package.preload.ubus = function()
  return { connect = function()
    return { close = function() end, call = function(_, object, method)
      return object == "ds4relay" and method == "status" and answer or nil
    end }
  end }
end
local done, problem = pcall(dofile(arg[1]).scrape)
if not done then io.stderr:write(problem) os.exit(1) end
`

// collect runs the collector of OpenWrt with ubus' answer in JSON; nil is no answer.
func collect(t *testing.T, answer any) (out string, ok bool) {
	t.Helper()
	if _, err := exec.LookPath("lua5.1"); err != nil {
		t.Skip(err)
	}
	data, err := json.Marshal(answer)
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "exporter.lua")
	if err := os.WriteFile(path, []byte("answer = "+lua(value)+exporter), 0o644); err != nil {
		t.Fatal(err)
	}
	output, err := exec.Command("lua5.1", path,
		filepath.Join(root, "files/openwrt/usr/lib/lua/prometheus-collectors/ds4relay.lua")).CombinedOutput()
	return string(output), err == nil
}

// sorted returns the samples of a text, with the labels of each in order.
func sorted(text string) []string {
	var list []string
	sample := regexp.MustCompile(`(?m)^(\w+)(?:\{(.*)\})? (\d+)$`)
	for _, m := range sample.FindAllStringSubmatch(text, -1) {
		labels := regexp.MustCompile(`\w+="(?:\\.|[^"\\])*"`).FindAllString(m[2], -1)
		slices.Sort(labels)
		list = append(list, m[1]+"{"+strings.Join(labels, ",")+"} "+m[3])
	}
	slices.Sort(list)
	return list
}

// TestCollector: OpenWrt's collector makes the same of the status as `ds4relay metrics`.
func TestCollector(t *testing.T) {
	differs := everything()
	differs.Blocked = []string{"a device of another program"}
	differs.Connections = nil
	for what, s := range map[string]*reconcile.Status{"all": everything(), "a difference": differs,
		"no relay": {Relays: []reconcile.RelayStatus{}, Differs: []string{}}} {
		out, ok := collect(t, s)
		if !ok {
			t.Fatalf("%s: %s", what, out)
		}
		// The status does not say these.
		want := slices.DeleteFunc(sorted(reconcile.Metrics("0.1.0", s).Text(false)), func(sample string) bool {
			return strings.HasPrefix(sample, "ds4relay_info") ||
				strings.HasPrefix(sample, "ds4relay_configuration_valid")
		})
		if got := sorted(out); !slices.Equal(got, want) {
			t.Errorf("%s: the collector says\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		for line := range strings.Lines(reconcile.Metrics("0.1.0", s).Text(false)) {
			if name := strings.Fields(line); name[1] == "TYPE" && slices.Contains(names(out), name[2]) &&
				!strings.Contains(out, line) {
				t.Errorf("%s: the collector does not say %s", what, line)
			}
		}
		// The exporter gives no metric an explanation.
		report, _ := promtool(t, out, "check", "metrics")
		for line := range strings.Lines(report) {
			if !strings.HasSuffix(line, " no help text\n") {
				t.Errorf("%s: promtool check metrics: %s", what, line)
			}
		}
	}
	if out, ok := collect(t, nil); ok || !strings.Contains(out, "has no status") {
		t.Errorf("without an answer: %s", out)
	}
}

// TestMetrics: the command's formats, its file, and mistakes.
func TestMetrics(t *testing.T) {
	dir := t.TempDir()
	path, output := filepath.Join(dir, "config"), filepath.Join(dir, "ds4relay.prom")
	run := func(configuration string, args ...string) (int, string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(configuration), 0o644); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		a := &app{stdout: &out, stderr: &out, env: func(string) string { return "" },
			apply: func(reconcile.Kernel) reconcile.Kernel { return fake.New("eth0") }}
		args = append([]string{"-c", path, "--run", filepath.Join(dir, "run"), "metrics"}, args...)
		return a.main(args), out.String()
	}
	read := func() string {
		data, err := os.ReadFile(output)
		if err != nil {
			return err.Error()
		}
		return string(data)
	}
	relay := "config relay 'home'\n" + strings.Join(required, "\n") + "\n"
	for _, c := range []struct {
		configuration string
		args          []string
		code          int
		want          string
	}{
		{relay, nil, 0, "\n# TYPE ds4relay info\n"},
		{relay, []string{"--format", "prometheus"}, 0, "\n# TYPE ds4relay_info gauge\n"},
		{relay, nil, 0, "\nds4relay_relay_up{relay=\"home\"} 0\n"},
		{relay + "nonsense\n", nil, 0, "\nds4relay_configuration_valid 0\n"},
		{relay, []string{"--format", "json"}, exitUsage, "allowed are openmetrics and prometheus"},
		{relay, []string{"home"}, exitUsage, "takes no arguments"},
	} {
		if code, out := run(c.configuration, c.args...); code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%q: exit status %d, want %d\n%s\nwant %q", c.args, code, c.code, out, c.want)
		}
	}
	if code, out := run(relay, "--output", output); code != 0 || out != "" || !strings.HasSuffix(read(), "# EOF\n") {
		t.Errorf("--output: exit status %d, %s\n%s", code, out, read())
	}
	// Old figures would be wrong ones.
	path = filepath.Join(dir, "none", "config")
	os.Mkdir(filepath.Dir(path), 0o700)
	var out bytes.Buffer
	a := &app{stdout: &out, stderr: &out, env: func(string) string { return "" }}
	if code := a.main([]string{"-c", path, "metrics", "--output", output}); code != exitUsage {
		t.Errorf("without a configuration: exit status %d, %s", code, out.String())
	}
	if left, _ := filepath.Glob(output + "*"); len(left) > 0 {
		t.Errorf("after a failure there are %s", left)
	}
}

// TestMetricsPage: docs/metrics.md lists every metric and no other, with its labels; its alerts are valid, and they and
// the dashboard use metrics that exist.
func TestMetricsPage(t *testing.T) {
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(root, "docs", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	page, dashboard := read("metrics.md"), read("grafana.json")
	known := everyMetric().Text(false)
	var listed []string
	name := regexp.MustCompile("`(\\w+)`")
	for line := range strings.Lines(page) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || !strings.HasPrefix(cells[1], " `ds4relay_") {
			continue
		}
		var labels []string
		for _, m := range name.FindAllStringSubmatch(cells[2], -1) {
			labels = append(labels, m[1])
		}
		for _, m := range name.FindAllStringSubmatch(cells[1], -1) {
			listed = append(listed, m[1])
			sample := regexp.MustCompile(`(?m)^` + m[1] + `(?:\{(.*)\})? `).FindStringSubmatch(known)
			if sample == nil {
				continue
			}
			var has []string
			for _, label := range regexp.MustCompile(`(?:^|,)(\w+)="`).FindAllStringSubmatch(sample[1], -1) {
				has = append(has, label[1])
			}
			if !slices.Equal(has, labels) {
				t.Errorf("%s has the labels %q, the page says %q", m[1], has, labels)
			}
		}
	}
	slices.Sort(listed)
	if all := names(known); !slices.Equal(all, listed) || len(all) != strings.Count(metrics.Catalogue, "\n")+1 {
		t.Errorf("the page lists\n%q\nwant\n%q", listed, all)
	}

	var parsed struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
		Templating struct{ List []struct{ Name, Type string } }
	}
	if err := json.Unmarshal([]byte(dashboard), &parsed); err != nil || len(parsed.Panels) == 0 {
		t.Fatalf("grafana.json: %v, %d panels", err, len(parsed.Panels))
	}
	if first := parsed.Templating.List[0]; first.Type != "datasource" || first.Name != "datasource" {
		t.Errorf("grafana.json has no variable for its data source, but %v", first)
	}
	_, alerts, _ := strings.Cut(page, "\n## Alerts\n")
	alerts, _, _ = strings.Cut(alerts, "\n## ")
	for what, text := range map[string]string{"the dashboard": dashboard, "an alert": alerts} {
		for _, used := range regexp.MustCompile(`ds4relay_\w+`).FindAllString(text, -1) {
			if !slices.Contains(listed, used) {
				t.Errorf("%s uses %s, which does not exist", what, used)
			}
		}
	}
	rules := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(rules, []byte(strings.ReplaceAll(alerts, "\n    ", "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, ok := promtool(t, "", "check", "rules", rules); !ok || !strings.Contains(out, "6 rules found") {
		t.Errorf("promtool check rules: %s", out)
	}
	// Prometheus parses the dashboard's expressions too, with variables replaced by what they may be.
	var b strings.Builder
	b.WriteString("groups:\n  - name: dashboard\n    rules:\n")
	for _, panel := range parsed.Panels {
		for _, target := range panel.Targets {
			expr := strings.NewReplacer("$__rate_interval", "1m", "$instance", "x", "$relay",
				"home").Replace(target.Expr)
			fmt.Fprintf(&b, "      - {record: 'a:b', expr: '%s'}\n", expr)
		}
	}
	if err := os.WriteFile(rules, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, ok := promtool(t, "", "check", "rules", "--lint=none", rules); !ok {
		t.Errorf("the dashboard: promtool check rules: %s\n%s", out, b.String())
	}
}
