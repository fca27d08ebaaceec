package pairing

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/config"
)

// TestRead: what a VPS may answer, and what a hostile one may.
func TestRead(t *testing.T) {
	relay := &config.Relay{Forwards: []*config.Forward{{Section: "forward[0]"}, {Section: "web"}}}
	refused := func(problems string) string {
		return `{"version":1,"state":"refused","problems":[` + problems + `]}`
	}
	for _, c := range []struct{ answer, want string }{
		{`{"version":1,"state":"ok"}` + "\n", ""},
		{refused(`{"code":"port %d of %s","args":[22,"x"],"section":"forward \"web\"","option":"src_dport","value":"22"}`),
			`forward "web": option src_dport "22": port 22 of x`},
		{refused(`{"code":"no","section":"forward \"forward_0\""}`), `forward "forward[0]": no`},
		{refused(`{"code":"%s: %q","args":[{"code":"inner %d","args":[7]},"a\nb"]}`), `inner 7: "a\nb"`},
		{refused(``), "the VPS gives no reason"},
		{refused(`{"code":"\u001b[31m%s","args":["\u001b[0m"]}`), `\u001b[31m\u001b[0m`},
		{refused(`{"code":"%999999999d","args":[1]}`), "%999999999d"},
		{refused(`{"code":"%s"}`), "%s"},
		{refused(`{"code":"%[1]s%[1]s","args":["x"]}`), "%[1]s%[1]s"},
		{refused(`{"code":"100%","args":[]}`), "100%"},
		{refused(`{"code":"%v","args":[[1,2]]}`), "[1,2]"},
	} {
		problems, err := Read(c.answer, relay)
		if err != nil {
			t.Errorf("%s: %v", c.answer, err)
			continue
		}
		text := ""
		for i := range problems {
			text += problems[i].Error()
		}
		if text != c.want {
			t.Errorf("%s:\n%s\nwanted\n%s", c.answer, text, c.want)
		}
	}
	for _, answer := range []string{"", "hello", `{"version":2,"state":"ok"}`, `{"version":1,"state":"maybe"}`,
		`{"version":1,"state":"ok"`, strings.Repeat("[", 16<<10)} {
		if problems, err := Read(answer, nil); err == nil || len(err.Error()) > 400 {
			t.Errorf("%.40q: %v, %v", answer, problems, err)
		}
	}
	// Whatever a VPS says in 16 KiB, little of it is kept.
	deep := strings.Repeat(`{"code":"%s","args":[`, 300) + `"x"` + strings.Repeat("]}", 300)
	many := strings.Repeat(`{"code":"x"},`, 1200) + `{"code":"x"}`
	long := fmt.Sprintf(`{"code":"%s","args":[%s"x"]}`, strings.Repeat("%q", 15), strings.Repeat(`"`+
		strings.Repeat(`\u0001`, 100)+`",`, 14))
	for _, answer := range []string{refused(deep), refused(many), refused(long)} {
		problems, err := Read(answer, nil)
		size := 0
		for _, p := range problems {
			size += len(p.Error())
		}
		if err != nil || len(problems) > maxProblems || size > 64<<10 {
			t.Errorf("%d problems, %d bytes, %v", len(problems), size, err)
		}
	}
}

// TestVPS: what an invitation says of the VPS is nothing but addresses on a command line.
func TestVPS(t *testing.T) {
	good := VPS{Version: 1, Hosts: []string{"2001:db8::1", "vps.example.org", "198.51.100.144"}, Port: 22,
		HostKey: append([]byte("\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20"), make([]byte, 32)...)}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for _, host := range []string{"", "-oProxyCommand=x", "a/22", "a,b", "root@a", "a b", "a\nb", "a%b", "$(x)"} {
		v := good
		v.Hosts = []string{"2001:db8::1", host}
		if v.Check() == nil {
			t.Errorf("%q is taken", host)
		}
	}
	for name, change := range map[string]func(*VPS){
		"version": func(v *VPS) { v.Version = 2 }, "no host": func(v *VPS) { v.Hosts = nil },
		"port": func(v *VPS) { v.Port = 0 }, "short key": func(v *VPS) { v.HostKey = v.HostKey[:40] },
		"other key": func(v *VPS) { v.HostKey = append([]byte("\x00\x00\x00\x07ssh-rsa"), make([]byte, 40)...) },
	} {
		v := good
		if change(&v); v.Check() == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
