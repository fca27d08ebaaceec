package openwrt

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/config"
)

// files is the directory of the files that are installed on a router.
const files = "../../files/openwrt"

// router is a directory in which the init script runs under busybox ash, with stand-ins that record their calls.
type router struct {
	t   *testing.T
	dir string
}

func newRouter(t *testing.T) router { return newRouterWith(t, "ds4relay") }

// newRouterWith uses the init script of that name.
func newRouterWith(t *testing.T, name string) router {
	r := router{t, t.TempDir()}
	script, err := os.ReadFile(filepath.Join(files, "etc/init.d", name))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("/usr/sbin/ds4relay", r.path("ds4relay"), "/var/run/ds4relay", r.dir,
		"/var/run/fw", r.path("fw"), "/etc/init.d/firewall", r.path("firewall"),
		"/etc/init.d/ds4relay enabled", r.path("service")+" enabled").Replace(string(script))
	r.write("init", text)
	r.write("ds4relay", `#!/bin/sh
echo "ds4relay $*" >>"$CALLS"
case "$*" in
"-q service "*)
	case "$FAILS" in
	2) echo "wrong file"; exit 2 ;;
	1) echo "a step fails"; exit 1 ;;
	4) echo "one is not up" ;;
	esac
	rules="json_add_array firewall; json_add_string '' rule; json_close_array"
	[ -z "$NO_RULES" ] || rules=
	[ "$(cat "$3" 2>/dev/null)" = "$rules" ] || printf %s "$rules" >"$3.new"
	[ "$FAILS" != 4 ] || exit 4 ;;
check*) [ -z "$FAILS" ] || { echo "wrong file"; exit 2; } ;;
esac
`)
	r.write("ubus", `#!/bin/sh
case "$*" in
*'"ds4relay"'*) [ -z "$REGISTERED" ] || echo '{ "ds4relay": {} }' ;;
*'"firewall","verbose":true'*) [ -z "$WATCHES" ] || echo '[ "service.data.update", … ]' ;;
*'"firewall"'*) echo '{ "firewall": {} }' ;; # procd shows triggers only if asked for
"list network.interface") [ -z "$NETIFD_AWAY" ] ;;
esac
`)
	r.write("firewall", "#!/bin/sh\n[ -e /proc/self/fd/1000 ] && echo \"with the lock of the service\" "+
		">>\"$CALLS\"\necho \"firewall $*\" >>\"$CALLS\"\n")
	// rc.common and procd.sh, as far as the script uses them.
	r.write("rc", `call() { echo "$*" >>"$CALLS"; }
logger() { read -r line; call logger "$*" "$line"; }
for f in procd_open_service procd_add_reload_trigger procd_add_interface_trigger procd_add_raw_trigger json_add_array \
	json_add_string json_close_array procd_open_instance procd_set_param procd_close_instance; do
	eval "$f() { call $f \"\$@\"; }"
done
procd_close_service() { service_triggers; service_data; call procd_close_service; }
config_load() { :; }
config_foreach() { for s in $RELAYS; do "$1" "$s"; done; }
config_get() {
	case "$2:$3" in
	first:tunlink) eval "$1=wan6" ;;
	*) eval "$1=" ;;
	esac
}
config_get_bool() { eval "$1=\${ENABLED:-1}"; }
initscript=/etc/init.d/ds4relay
exec 1000>"$DIR/lock"
service_data() { :; }
service_started() { :; }
restart() { stop; start; }
stop_service() { :; }
. "$DIR/init"
start() { procd_open_service ds4relay; start_service; procd_close_service; service_started; }
stop() { stop_service; call procd_kill; }
reload() { reload_service; }
"$@"
`)
	return r
}

func (r router) path(name string) string { return filepath.Join(r.dir, name) }

func (r router) write(name, text string) {
	r.t.Helper()
	if err := os.WriteFile(r.path(name), []byte(text), 0o755); err != nil {
		r.t.Fatal(err)
	}
}

// run calls an action of the script and returns its exit status and the calls.
func (r router) run(action string, env ...string) (status int, calls string) {
	r.t.Helper()
	cmd := exec.Command("busybox", "ash", r.path("rc"), action)
	cmd.Env = append([]string{"PATH=" + r.dir + ":" + os.Getenv("PATH"), "DIR=" + r.dir, "CALLS=" + r.path("calls"),
		"RELAYS=first second third"}, env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		status = cmd.ProcessState.ExitCode()
		r.t.Logf("%s: %v %s", action, err, out)
	}
	data, err := os.ReadFile(r.path("calls"))
	if err != nil && !os.IsNotExist(err) {
		r.t.Fatal(err)
	}
	os.Remove(r.path("calls"))
	return status, string(data)
}

const triggers = `procd_add_reload_trigger ds4relay firewall
procd_add_raw_trigger interface.* 1000 /etc/init.d/ds4relay reload
`

const rules = "json_add_array firewall\njson_add_string  rule\njson_close_array\n"

const (
	up     = "procd_open_service ds4relay\nds4relay -q service DIR/firewall.sh\n"
	failed = up + "logger -t ds4relay -p daemon.err wrong file\n"
	some   = up + "logger -t ds4relay -p daemon.err one is not up\n"
	step   = up + "logger -t ds4relay -p daemon.err a step fails\n"
	watch  = "procd_open_instance watch\nprocd_set_param command DIR/ds4relay -q watch --missing\nprocd_set_param " +
		"respawn 1 60 0\nprocd_set_param stderr 1\nprocd_close_instance\n"
	down = "ds4relay -q down\nds4relay -q netifd\nprocd_open_service ds4relay /etc/init.d/ds4relay\n"
)

func TestInitScript(t *testing.T) {
	r := newRouter(t)
	for _, step := range []struct {
		action string
		env    []string
		status int
		want   string
	}{
		// While a relay is enabled, a process that exits runs each minute.
		{"start", nil, 0, up + watch + triggers + rules + "procd_close_service\n"},
		{"start", []string{"ENABLED=0"}, 0, up + triggers + rules + "procd_close_service\n"},
		// A mistake in the file: the start fails, and what runs stays, with its rules. procd keeps the data of a
		// running service.
		{"start", []string{"FAILS=2"}, 2, failed + triggers + rules + "procd_close_service\n"},
		{"start", []string{"FAILS=2", "REGISTERED=1"}, 2, failed},
		{"start", []string{"FAILS=1", "REGISTERED=1"}, 1, step + watch + triggers + rules + "procd_close_service\n"},
		// A relay that cannot be brought up does not affect others, and is tried again.
		{"start", []string{"FAILS=4", "REGISTERED=1"}, 0, some + watch + triggers + rules + "procd_close_service\n"},
		// A restart takes nothing down.
		{"restart", []string{"REGISTERED=1"}, 0, up + watch + triggers + rules + "procd_close_service\n"},
		{"restart", []string{"FAILS=2", "REGISTERED=1"}, 2, failed},
		// An event after the stop, and one while netifd restarts, do nothing. Other events start the program once.
		{"reload", nil, 0, ""},
		{"reload", []string{"REGISTERED=1", "NETIFD_AWAY=1"}, 0, ""},
		{"reload", []string{"REGISTERED=1"}, 0, up + watch + triggers + rules + "procd_close_service\n"},
		{"reload", []string{"FAILS=2", "REGISTERED=1"}, 2, failed},
		// The firewall is notified of changed data, so the rules are removed before the service.
		{"stop", nil, 0, down + triggers + "procd_close_service\nprocd_kill\n"},
		// The very first start, with a mistake in the file.
		{"start", []string{"FAILS=2"}, 2, failed + triggers + "procd_close_service\n"},
	} {
		status, calls := r.run(step.action, step.env...)
		calls = strings.ReplaceAll(calls, r.dir, "DIR")
		if status != step.status || calls != step.want {
			t.Errorf("%s %v: exit status %d, want %d; calls\n%s\nwant\n%s", step.action, step.env, status, step.status,
				calls, step.want)
		}
	}
}

// TestKillSwitchScript: the kill switch starts before the network, unless the service is disabled.
func TestKillSwitchScript(t *testing.T) {
	r := newRouterWith(t, "ds4relay-killswitch")
	for enabled, want := range map[string]string{"true": "ds4relay -q killswitch\n", "false": ""} {
		r.write("service", "#!/bin/sh\n[ \"$1\" = enabled ] && "+enabled+"\n")
		if status, calls := r.run("boot"); status != 0 ||
			strings.ReplaceAll(calls, "logger -t ds4relay -p daemon.err \n", "") != want {
			t.Errorf("enabled: %s: exit status %d, calls %q, want %q", enabled, status, calls, want)
		}
	}
}

// TestProxyScript: there is an instance while a proxy is enabled; a new program gets a new instance name.
func TestProxyScript(t *testing.T) {
	r := newRouterWith(t, "ds4relay-proxy")
	const open = "procd_open_service ds4relay\n"
	const rest = "procd_add_reload_trigger ds4relay\nprocd_close_service\n"
	r.write("ds4relay-proxy", "#!/bin/sh\necho \"proxy $*\" >>\"$CALLS\"\n[ -z \"$FAILS\" ] || { echo wrong file; "+
		"exit 2; }\n")
	instance := func() string {
		t.Helper()
		status, calls := r.run("start")
		name, _, ok := strings.Cut(strings.TrimPrefix(calls, open+"procd_open_instance "), "\n")
		if !ok || status != 0 ||
			!strings.Contains(calls, "procd_set_param command "+r.path("ds4relay-proxy")+
				" --take-over --successor 5\n") || !strings.HasSuffix(calls, "procd_close_instance\n"+rest) {
			t.Errorf("start: exit status %d, calls %s", status, calls)
		}
		return name
	}
	first := instance()
	if again := instance(); again != first {
		t.Errorf("the same program is the instance %s, then %s", first, again)
	}
	if _, calls := r.run("start", "ENABLED=0"); calls != open+rest {
		t.Errorf("without an enabled proxy: %s", calls)
	}
	for env, said := range map[string]string{"FAILS=": "proxy --reload\n", "FAILS=1": "proxy --reload\nlogger -t " +
		"ds4relay-proxy -p daemon.err wrong file\n"} {
		if _, calls := r.run("reload", env); !strings.HasSuffix(calls, rest+said) {
			t.Errorf("reload, %s: %s", env, calls)
		}
	}
	const stopped = "procd_kill\n"
	if status, calls := r.run("restart"); status != 0 ||
		!strings.HasPrefix(calls, "ds4relay check /etc/config/ds4relay\n"+stopped+open) {
		t.Errorf("restart: exit status %d, calls %s", status, calls)
	}
	status, calls := r.run("restart", "FAILS=1")
	if status != 2 || strings.Contains(calls, stopped) || !strings.Contains(calls, "daemon.err wrong file") {
		t.Errorf("restart with a mistake: exit status %d, calls %s", status, calls)
	}
	r.write("ds4relay-proxy", "#!/bin/sh\n# the next version\n")
	if next := instance(); next == first {
		t.Errorf("the next version has the name of the former one: %s", next)
	}
}

// TestFirewallTold: a firewall that runs and does not watch the data of services is reloaded when the rules change,
// and only then.
func TestFirewallTold(t *testing.T) {
	for _, state := range []string{"fw3.state", "fw4.state"} {
		r := newRouter(t)
		reloads := func(action string, env ...string) int {
			t.Helper()
			_, calls := r.run(action, env...)
			if strings.Contains(calls, "with the lock") {
				t.Errorf("%s: the firewall's script has the lock of this service", state)
			}
			return strings.Count(calls, "firewall reload\n")
		}
		if n := reloads("start"); n != 0 {
			t.Errorf("there is no firewall: reloaded %d times", n)
		}
		r.write(state, "")
		if n := reloads("restart"); n != 0 {
			t.Errorf("%s: a restart with rules as before: reloaded %d times", state, n)
		}
		if n := reloads("start"); n != 0 {
			t.Errorf("%s: rules as before: reloaded %d times", state, n)
		}
		if n := reloads("stop"); n != 1 {
			t.Errorf("%s: stop: reloaded %d times, want 1", state, n)
		}
		if n := reloads("start"); n != 1 {
			t.Errorf("%s: start: reloaded %d times, want 1", state, n)
		}
		if n := reloads("stop", "WATCHES=1"); n != 0 {
			t.Errorf("%s: a firewall that watches: reloaded %d times", state, n)
		}
	}
}

// TestStatus: `service ds4relay status` prints the relays' status, or inactive.
func TestStatus(t *testing.T) {
	r := newRouter(t)
	if status, calls := r.run("status_service"); status != 3 || calls != "" {
		t.Errorf("stopped: exit status %d, calls %q", status, calls)
	}
	if status, calls := r.run("status_service", "REGISTERED=1"); status != 0 || calls != "ds4relay status\n" {
		t.Errorf("started: exit status %d, calls %q", status, calls)
	}
}

// TestExample: the installed configuration is correct, and disabled.
func TestExample(t *testing.T) {
	c, warnings, err := config.Load(filepath.Join(files, "etc/config/ds4relay"), config.Defaults{Role: config.Router})
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0].Message, "no relay is enabled") {
		t.Fatal(err, warnings)
	}
	if len(c.Relays) != 1 || c.Relays[0].Enabled || len(c.Relays[0].Forwards) != 1 {
		t.Errorf("%+v", c.Relays[0])
	}
}

// TestInstalled: packages built with and without an SDK have the same files, which do not affect the owner's other
// files; the ACL is JSON.
func TestInstalled(t *testing.T) {
	read := func(path string) string {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	makefile := read("../../openwrt/ds4relay/Makefile")
	without := read("../../openwrt/ds4relay.yaml") + read("../../openwrt/ds4relay-proxy.yaml") +
		read("../../openwrt/prometheus-node-exporter-lua-ds4relay.yaml")
	contents := map[string]string{"Makefile": makefile}
	err := filepath.WalkDir(files, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(files, path)
		contents[name] = read(path)
		source, installed := "$(PKG_BUILD_DIR)/files/openwrt/"+name+" ", "dst: /"+name+"\n"
		if !strings.Contains(makefile, source) || !strings.Contains(without, installed) {
			t.Errorf("%s is not in both packages", name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range problems("ds4relay", contents) {
		t.Error(problem)
	}
	acl := read("../../luci-app/luci-app-ds4relay/root/usr/share/rpcd/acl.d/luci-app-ds4relay.json")
	if !json.Valid([]byte(acl)) || strings.Contains(acl, `"file"`) || strings.Contains(acl, "/etc/ds4relay") {
		t.Error("the ACL is no JSON, or gives rights to files: there are keys")
	}
}
