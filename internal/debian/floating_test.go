package debian

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	floatingScript = "../../files/debian/usr/share/ds4relay/floating-ip"
	// What is secret: the token in the file, and the one that netcup gives for it.
	fileToken   = "secret-KH3jd.9_x7"
	accessToken = "secret-access.eyJ.zz_1"
	thisServer  = 42
)

// account is an account at a provider, as its API shows it. Its address is assigned to the server has (0: to none).
type account struct {
	provider string
	mu       sync.Mutex
	has      int
	faults   map[string][]fault // the next answers to a request ("METHOD PATH"), before it works
	jobs     []string           // how the next jobs end: success or error, if not with success
	polls    int                // of the job that runs
	hold     chan struct{}      // if any, requests wait for its end
	assigned int                // how often the address was assigned to this server
	asked    []string
}

type fault struct {
	code       int
	body       string
	retryAfter string
}

func (a *account) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if a.hold != nil {
		<-a.hold
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	request := r.Method + " " + r.URL.Path
	a.asked = append(a.asked, request)
	if queue := a.faults[request]; len(queue) > 0 {
		a.faults[request] = queue[1:]
		if queue[0].retryAfter != "" {
			w.Header().Set("Retry-After", queue[0].retryAfter)
		}
		w.WriteHeader(queue[0].code)
		io.WriteString(w, queue[0].body)
		return
	}
	answer := map[string]func(*http.Request) (int, any){"hetzner": a.hetzner, "netcup": a.netcup}[a.provider]
	code, body := answer(r)
	// One prints its answers like this, the other on one line.
	text, _ := json.MarshalIndent(body, "", "  ")
	if a.provider == "netcup" {
		text, _ = json.Marshal(body)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	w.Write(text)
}

type object = map[string]any

func (a *account) hetzner(r *http.Request) (int, any) {
	if r.Header.Get("Authorization") != "Bearer "+fileToken {
		return 401, object{"error": object{"code": "unauthorized", "message": "unable to authenticate"}}
	}
	action := func(status string, problem any) object {
		return object{"action": object{"id": 1337, "command": "assign_floating_ip", "status": status, "progress": 0,
			"resources": []any{object{"id": thisServer, "type": "server"}}, "error": problem}}
	}
	switch r.Method + " " + r.URL.Path {
	case "GET /v1/servers":
		return 200, object{"servers": []any{object{"id": thisServer, "name": "one"}, object{"id": 43, "name": "two"}}}
	case "GET /v1/floating_ips":
		var server any
		if a.has > 0 {
			server = a.has
		}
		return 200, object{"floating_ips": []any{
			object{"id": 1, "ip": "2001:db8::/64", "server": thisServer},
			object{"id": 4711, "ip": "198.51.100.144", "server": server, "home_location": object{"id": 2}}}}
	case "POST /v1/floating_ips/4711/actions/assign":
		var body struct{ Server int }
		if json.NewDecoder(r.Body).Decode(&body) != nil || body.Server != thisServer {
			return 422, object{"error": object{"code": "invalid_input", "message": "no such server"}}
		}
		a.polls = 0
		return 201, action("running", nil)
	case "GET /v1/actions/1337":
		switch a.job() {
		case "":
			return 200, action("running", nil)
		case "success":
			return 200, action("success", nil)
		default:
			return 200, action("error", object{"code": "action_failed", "message": "the host is\nbusy"})
		}
	}
	return 404, object{"error": object{"code": "not_found", "message": "not found"}}
}

func (a *account) netcup(r *http.Request) (int, any) {
	const realm = "/realms/scp/protocol/openid-connect/"
	if r.URL.Path == realm+"token" {
		if r.FormValue("client_id") != "scp" || r.FormValue("grant_type") != "refresh_token" ||
			r.FormValue("refresh_token") != fileToken {
			return 400, object{"error": "invalid_grant", "error_description": "Invalid refresh token"}
		}
		return 200, object{"access_token": accessToken, "expires_in": 300, "refresh_token": fileToken}
	}
	if r.Header.Get("Authorization") != "Bearer "+accessToken {
		return 401, object{"message": "Authorization header missing."}
	}
	switch r.Method + " " + r.URL.Path {
	case "GET " + realm + "userinfo":
		return 200, object{"sub": "f:1:9", "id": "9", "preferred_username": "123456"}
	case "GET /scp-core/api/v1/servers":
		return 200, []any{object{"id": thisServer, "name": "v1", "nickname": "one"},
			object{"id": 43, "name": "v2", "nickname": nil}}
	case "GET /scp-core/api/v1/users/9/failoverips/v4":
		entry := object{"id": 7, "ip": "198.51.100.144", "cidrSuffix": 32, "server": nil}
		if a.has > 0 {
			entry["server"] = object{"id": a.has, "name": "v1"}
		}
		return 200, []any{entry}
	case "PATCH /scp-core/api/v1/users/9/failoverips/v4/7":
		var body struct{ ServerID int }
		if json.NewDecoder(r.Body).Decode(&body) != nil || body.ServerID != thisServer {
			return 400, object{"code": "x", "message": "no such server"}
		}
		a.polls = 0
		return 202, object{"uuid": "5c-1", "state": "PENDING"}
	case "GET /scp-core/api/v1/tasks/5c-1":
		states := object{"": "RUNNING", "success": "FINISHED", "error": "ERROR"}
		return 200, object{"uuid": "5c-1", "state": states[a.job()], "message": "the host is\nbusy"}
	}
	return 404, object{"message": "Not found"}
}

// job returns how the job that runs has ended, or "" at first.
func (a *account) job() string {
	a.polls++
	if a.polls < 3 {
		return ""
	}
	if len(a.jobs) > 0 {
		end := a.jobs[0]
		a.jobs = a.jobs[1:]
		if end != "success" {
			return end
		}
	}
	a.has = thisServer
	a.assigned++
	return "success"
}

// floating is a VPS on which the script runs. Programs that it calls are replaced where they would change the machine
// or wait; what curl and jq are given is recorded.
type floating struct {
	t   *testing.T
	dir string
	*account
	file string // the content of /etc/ds4relay/floating-ip
	mode os.FileMode
}

func newFloating(t *testing.T, provider string) *floating {
	t.Helper()
	f := &floating{t: t, dir: t.TempDir(), mode: 0o600,
		account: &account{provider: provider, has: 43, faults: map[string][]fault{}}}
	for _, program := range []string{"curl", "jq"} {
		path, err := exec.LookPath(program)
		if err != nil {
			t.Skip("needs curl and jq: ", err)
		}
		f.program(program, "printf '%s\\n' \"$*\" >>$dir/public; export -p >>$dir/public; exec "+path+` "$@"`)
	}
	f.program("logger", `printf '%s\n' "$*" >>$dir/log`)
	f.program("ip", `[ "$*" = "-4 -o addr show to 198.51.100.144/32" ] && [ -e $dir/master ] && echo "2: eth0"`)
	f.program("sleep", `[ "$1" = 10 ] || printf '%s\n' "$1" >>$dir/pauses; [ ! -e $dir/loses ] || rm $dir/master`)
	f.program("ds4relay", `printf '%s\n' "$*" >>$dir/told; [ ! -e $dir/down ] || { echo "no relay is up" >&2; exit 1; }`)
	f.write("master", "")
	server := httptest.NewServer(f.account)
	t.Cleanup(server.Close)
	api := server.URL
	if provider == "hetzner" {
		api += "/v1"
	}
	f.file = fmt.Sprintf("# of the project\nprovider=%s\naddress=198.51.100.144\nserver=%d\n\ntoken=%s\napi=%s\n",
		provider, thisServer, fileToken, api)
	return f
}

func (f *floating) program(name, script string) {
	f.t.Helper()
	if err := os.MkdirAll(filepath.Join(f.dir, "bin"), 0o755); err != nil {
		f.t.Fatal(err)
	}
	text := "#!/bin/sh\ndir='" + f.dir + "'\n" + script + "\n"
	if err := os.WriteFile(filepath.Join(f.dir, "bin", name), []byte(text), 0o755); err != nil {
		f.t.Fatal(err)
	}
}

func (f *floating) write(name, text string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// read returns the lines of a file of the test; none if it is not there.
func (f *floating) read(name string) []string {
	text, _ := os.ReadFile(filepath.Join(f.dir, name))
	return slices.DeleteFunc(strings.Split(string(text), "\n"), func(line string) bool { return line == "" })
}

// command returns the script's call.
func (f *floating) command(arguments ...string) (*exec.Cmd, *strings.Builder) {
	f.t.Helper()
	f.write("log", "")
	f.write("file", f.file)
	if err := os.Chmod(filepath.Join(f.dir, "file"), f.mode); err != nil {
		f.t.Fatal(err)
	}
	cmd := exec.Command("sh", append([]string{floatingScript, "-c", filepath.Join(f.dir, "file")}, arguments...)...)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(f.dir, "bin")+":"+os.Getenv("PATH"))
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	return cmd, &out
}

// run runs the script, and fails the test unless it ends with that status and its secrets have stayed with it.
func (f *floating) run(status int, arguments ...string) string {
	f.t.Helper()
	cmd, out := f.command(arguments...)
	cmd.Run()
	if got := cmd.ProcessState.ExitCode(); got != status {
		f.t.Errorf("exit status %d, want %d:\n%s", got, status, out)
	}
	f.kept(out.String())
	return out.String()
}

// kept fails the test if a secret has been seen where others may see it.
func (f *floating) kept(out string) {
	f.t.Helper()
	for name, text := range map[string]string{"the output": out, "the log": strings.Join(f.read("log"), "\n"),
		"arguments or environment": strings.Join(f.read("public"), "\n"),
		"ds4relay's arguments":     strings.Join(f.read("told"), "\n")} {
		for _, secret := range []string{fileToken, accessToken} {
			if strings.Contains(text, secret) {
				f.t.Errorf("%s: %s in %s", f.provider, secret, name)
			}
		}
	}
	for i, line := range f.read("log") {
		if !strings.Contains(out, strings.TrimPrefix(line, "-t ds4relay-floating-ip -p daemon.notice -- ")) {
			f.t.Errorf("line %d of the log is not in the output: %s", i+1, line)
		}
	}
}

// count returns how often the script has asked for that.
func (f *floating) count(pattern string) int {
	return len(slices.DeleteFunc(slices.Clone(f.asked), func(asked string) bool {
		return !regexp.MustCompile(pattern).MatchString(asked)
	}))
}

// says fails the test unless the output has all of these texts.
func says(t *testing.T, out string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(out, text) {
			t.Errorf("%q is not in:\n%s", text, out)
		}
	}
}

var assigns = map[string]string{
	"hetzner": "POST /v1/floating_ips/4711/actions/assign",
	"netcup":  "PATCH /scp-core/api/v1/users/9/failoverips/v4/7",
}

// each runs a test for every provider.
func each(t *testing.T, test func(*testing.T, *floating)) {
	t.Helper()
	for _, provider := range []string{"hetzner", "netcup"} {
		t.Run(provider, func(t *testing.T) {
			t.Parallel()
			test(t, newFloating(t, provider))
		})
	}
}

// TestFloatingAssigns: the address gets to this server, wherever it was, and the homes are told once.
func TestFloatingAssigns(t *testing.T) {
	each(t, func(t *testing.T, f *floating) {
		for _, has := range []int{43, 0} {
			f.has = has
			says(t, f.run(0), "floating-ip: 198.51.100.144 is assigned to this VPS (server 42)\n")
			if f.has != thisServer {
				t.Errorf("the address is at server %d", f.has)
			}
		}
		if told := f.read("told"); !slices.Equal(told, []string{"announce", "announce"}) {
			t.Errorf("ds4relay: %q", told)
		}
		if lines := f.read("log"); len(lines) != 1 {
			t.Errorf("the log: %q", lines)
		}
		before := f.assigned
		if out := f.run(0); out != "" {
			t.Errorf("the address is here already, and the script says: %s", out)
		}
		if n := f.count("^(POST /v1|PATCH)"); n != 2 || f.assigned != before {
			t.Errorf("assigned %d times, though the address is here", n)
		}
		if told := f.read("told"); len(told) != 3 {
			t.Errorf("the homes are not told of an address that is here: %q", told)
		}
	})
}

// TestFloatingTriesAgain: what may be over in a moment does not end the script.
func TestFloatingTriesAgain(t *testing.T) {
	each(t, func(t *testing.T, f *floating) {
		codes := []fault{{code: 409, body: `{"error": {"code": "conflict", "message": "another action"}}`},
			{code: 423, body: `{"error": {"code": "locked", "message": "an action runs"}}`},
			{code: 429, retryAfter: "7", body: `{"error": {"code": "rate_limit_exceeded", "message": "slower"}}`},
			{code: 429, retryAfter: "99999"}, {code: 429, retryAfter: "Wed, 02 Dec 2026 09:00:00 GMT"},
			{code: 500, body: "<html>"}, {code: 200, body: "<html>maintenance</html>"}, {code: 201, body: "{}"}}
		if f.provider == "netcup" { // so it was moved a moment ago
			codes = append(codes, fault{code: 400, body: `{"code": "x", "message": "wait five minutes"}`})
		}
		f.faults[assigns[f.provider]] = codes
		f.jobs = []string{"error", "success"}
		out := f.run(0)
		says(t, out, "is assigned to this VPS", "the host is busy; trying again")
		if f.provider == "netcup" {
			says(t, out, "HTTP 400 wait five minutes; trying again")
		} else {
			says(t, out, "HTTP 423 an action runs; trying again", "HTTP 429 slower; trying again")
		}
		if n := f.count("^(POST /v1|PATCH)"); n != len(codes)+2 {
			t.Errorf("asked for %d assignments, want %d", n, len(codes)+2)
		}
		pauses := f.read("pauses")
		if i := slices.Index(pauses, "7"); i < 0 || pauses[i+1] != "300" {
			t.Errorf("pauses: %v", pauses)
		}
	})
}

// TestFloatingNoNetwork: without an answer the script tries for some time, with longer pauses, and then gives up.
func TestFloatingNoNetwork(t *testing.T) {
	t.Parallel()
	f := newFloating(t, "hetzner")
	server := httptest.NewServer(nil)
	f.file = regexp.MustCompile(`api=.*`).ReplaceAllString(f.file, "api="+server.URL)
	server.Close()
	out := f.run(1)
	says(t, out, "no answer from http://127.0.0.1:", "; trying again\n", "gives up: 198.51.100.144 is not assigned")
	if n := strings.Count(out, "\n"); n != 2 {
		t.Errorf("%d lines, want one for the reason, and one at the end:\n%s", n, out)
	}
	pauses := f.read("pauses")
	slow := func(pause string) bool { seconds, err := strconv.Atoi(pause); return err != nil || seconds > 60 }
	if !slices.Equal(pauses[:6], []string{"1", "2", "4", "8", "16", "32"}) || slices.ContainsFunc(pauses, slow) {
		t.Errorf("pauses: %v", pauses)
	}
	if told := f.read("told"); len(told) != 0 {
		t.Errorf("ds4relay: %q", told)
	}
}

// TestFloatingNotMaster: a VPS that has not, or no longer, the address on a device leaves it to the other one.
func TestFloatingNotMaster(t *testing.T) {
	each(t, func(t *testing.T, f *floating) {
		f.faults[assigns[f.provider]] = []fault{{code: 423}}
		f.write("loses", "")
		says(t, f.run(1), "no device of this VPS has 198.51.100.144")
		if f.assigned != 0 {
			t.Error("the address is assigned to a VPS that is not the master any more")
		}
		f.asked = nil
		says(t, f.run(1), "no device of this VPS has 198.51.100.144")
		if len(f.asked) != 0 {
			t.Errorf("asked: %v", f.asked)
		}
		if told := f.read("told"); len(told) != 0 {
			t.Errorf("ds4relay: %q", told)
		}
	})
}

// TestFloatingRefused: what the provider will not have at the next try either ends the script with one line.
func TestFloatingRefused(t *testing.T) {
	each(t, func(t *testing.T, f *floating) {
		good := f.file
		for _, c := range []struct{ from, to, want string }{
			{"token=.*", "token=secret-wrong", "(token in " + filepath.Join(f.dir, "file") + ")"},
			{"address=.*", "address=198.51.100.145", "the account of the token has no address 198.51.100.145 (address in "},
		} {
			f.file, f.asked = regexp.MustCompile(c.from).ReplaceAllString(good, c.to), nil
			f.program("ip", "echo yes")
			out := f.run(2)
			says(t, out, c.want)
			if strings.Count(out, "\n") != 1 || strings.Contains(out, "secret-wrong") || len(f.asked) > 3 {
				t.Errorf("asked %v, and said:\n%s", f.asked, out)
			}
		}
	})
}

// TestFloatingMany: of runs at the same time one assigns the address, at most one waits to look after that, and the
// others end at once.
func TestFloatingMany(t *testing.T) {
	each(t, func(t *testing.T, f *floating) {
		const runs = 6
		commands, outs := make([]*exec.Cmd, runs), make([]*strings.Builder, runs)
		for i := range runs {
			commands[i], outs[i] = f.command()
		}
		f.hold = make(chan struct{})
		release := sync.OnceFunc(func() { close(f.hold) })
		for _, cmd := range commands {
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
		}
		ended := make(chan error, runs)
		for _, cmd := range commands {
			go func() { ended <- cmd.Wait() }()
		}
		bound := time.After(2 * time.Minute)
		for i := range runs {
			if i == runs-2 { // one is held by the provider, one waits for it
				release()
			}
			select {
			case err := <-ended:
				if err != nil {
					t.Error(err)
				}
			case <-bound:
				t.Errorf("%d runs have ended", i)
				release()
				for range runs - i {
					<-ended
				}
				return
			}
		}
		if told := f.read("told"); f.assigned != 1 || len(told) < 1 || len(told) > 2 {
			t.Errorf("assigned %d times, told the homes %d times: %q", f.assigned, len(told), outs)
		}
	})
}

// TestFloatingNotTold: the address is assigned even if no home can be told so.
func TestFloatingNotTold(t *testing.T) {
	t.Parallel()
	f := newFloating(t, "hetzner")
	f.write("down", "")
	says(t, f.run(0), "is assigned to this VPS", "the homes are not told: no relay is up\n")
}

// TestFloatingLooks: what an administrator asks before the first failover.
func TestFloatingLooks(t *testing.T) {
	each(t, func(t *testing.T, f *floating) {
		if out := f.run(0, "check"); out != "198.51.100.144 is assigned to 43\n" {
			t.Error(out)
		}
		f.has = 0
		if out := f.run(0, "check"); out != "198.51.100.144 is assigned to no server\n" {
			t.Error(out)
		}
		f.file = regexp.MustCompile("(?m)^(server|address)=.*\n").ReplaceAllString(f.file, "")
		names := map[string]string{"hetzner": "42 one\n43 two\n", "netcup": "42 one\n43 v2\n"}
		if out := f.run(0, "servers"); out != names[f.provider] {
			t.Error(out)
		}
		f.file = strings.Replace(f.file, fileToken, "wrong", 1)
		says(t, f.run(2, "check"), "address is missing")
		says(t, f.run(2, "servers"), "(token in ")
		if f.count("^(POST /v1|PATCH)") != 0 {
			t.Errorf("asked: %v", f.asked)
		}
	})
}

// TestFloatingFile: a file with a mistake, or one that others can read, is named with its line, and nobody is asked.
func TestFloatingFile(t *testing.T) {
	t.Parallel()
	f := newFloating(t, "hetzner")
	good := f.file
	for _, c := range []struct{ from, to, want string }{
		{"provider=hetzner", "provider=aws", "line 2: provider is aws: want hetzner or netcup"},
		{"provider=hetzner\n", "", "provider is missing"},
		{"198.51.100.144", "198.51.100.256", "line 3: address is 198.51.100.256: want an IPv4 address"},
		{"198.51.100.144", "198.51.100.144/32", "line 3: address is 198.51.100.144/32: want"},
		{"server=42", "server=one", "line 4: server is one: want a number"},
		{"server=42\n", "", "server is missing"},
		{"server=42", "server=42\nserver=43", "line 5: server is in the file twice"},
		{"server=42", "server 42", "line 4 is not OPTION=VALUE"},
		{"server=42", "servers=42", "line 4: there is no option servers: want provider, address, server, token or api"},
		{"server=42", "PATH=/tmp", "line 4: there is no option PATH"},
		{"server=42", "$(touch x)=1", "line 4: there is no option $(touch x)"},
		{"server=42", "server=" + strings.Repeat(fileToken, 3), "line 4: server is 51 characters long: want a number"},
		{"server=42", strings.Repeat(fileToken, 3) + "=", "line 4: there is no option 51 characters long"},
		{"token=", "token=\"", "line 6: token is wrong: want a token"},
		{"token=" + fileToken, "", "token is missing"},
		{"api=http:", "api=ftp:", "line 7: api is "},
		{"http://127.0.0.1", "http://192.0.2.1", "line 7: api is "},
	} {
		f.file = strings.Replace(good, c.from, c.to, 1)
		out := f.run(2)
		says(t, out, filepath.Join(f.dir, "file")+": "+c.want)
		if strings.Count(out, "\n") != 1 {
			t.Errorf("more than a line: %s", out)
		}
	}
	f.file = good
	for _, mode := range []os.FileMode{0o644, 0o640, 0o604, 0o620} {
		f.mode = mode
		says(t, f.run(2), "others than root may read or write it")
	}
	if len(f.asked) != 0 {
		t.Errorf("asked: %v", f.asked)
	}
	f.mode = 0o400
	f.file = strings.TrimSuffix(good, "\n") // no newline at the end
	f.run(0)
	for _, arguments := range [][]string{{"chek"}, {"check", "servers"}, {"-x"}} {
		says(t, f.run(2, arguments...), "usage: floating-ip [-c FILE] [check | servers]")
	}
}
