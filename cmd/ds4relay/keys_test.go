//go:build !openwrt && !lab

package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/kernel"
	"github.com/ds4relay/ds4relay/internal/kernel/fake"
	"github.com/ds4relay/ds4relay/internal/reconcile"
	"github.com/ds4relay/ds4relay/internal/state"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// TestKeysStay: no command prints a private or a preshared key, in whatever form, of a relay that is down or up.
func TestKeysStay(t *testing.T) {
	if !kernel.Admin() {
		t.Skip("plan needs root")
	}
	// The kernel in memory has these keys.
	private, preshared := transport.Secret{byte(len("home")), 1}, transport.Secret{2}
	var forms []string
	for _, secret := range []transport.Secret{private, private.Clamp(), preshared} {
		forms = append(forms, base64.StdEncoding.EncodeToString(secret[:]), hex.EncodeToString(secret[:]),
			strings.Trim(fmt.Sprint([32]byte(secret)), "[]"))
	}
	for _, c := range []struct{ role, more, export string }{
		{"router", "\toption peeraddr '198.51.100.144'\n", ""},
		{"vps", "", ""},
		{"vps", "\toption peer 'plain'\n", "--wireguard"},
	} {
		dir := t.TempDir()
		a := &app{path: filepath.Join(dir, "config"), run: filepath.Join(dir, "run"), env: func(string) string {
			return ""
		}}
		text := "config relay 'home'\n\toption role '" + c.role + "'\n\toption transport 'wireguard'\n\toption ipaddr " +
			"'198.51.100.144'\n\toption public_key '" + transport.Secret{7}.Public().String() + "'\n" + c.more +
			"\toption private_key_file '" + dir + "/key'\n\toption preshared_key_file '" + dir + "/psk'\n" +
			"config forward 'web'\n\toption src_dport '443'\n\toption dest_ip '192.168.1.210'\n"
		for file, secret := range map[string]transport.Secret{"/key": private, "/psk": preshared} {
			if err := writeSecret(dir+file, secret); err != nil {
				t.Fatal(err)
			}
		}
		if err := replace(a.path, text); err != nil {
			t.Fatal(err)
		}
		file, _, err := config.Load(a.path, config.Defaults{})
		if err != nil {
			t.Fatal(err)
		}
		k := fake.New("eth0", "br-lan")
		a.apply = func(reconcile.Kernel) reconcile.Kernel { return k }
		hides := func(what, text string) {
			t.Helper()
			for _, form := range forms {
				if strings.Contains(text, form) {
					t.Errorf("%s, %s: the key %s is in\n%s", c.role, what, form, text)
				}
			}
		}
		says := func(part string, args ...string) {
			t.Helper()
			var out bytes.Buffer
			a.stdout, a.stderr = &out, &out
			a.main(append([]string{"-c", a.path, "--run", a.run}, args...))
			if !strings.Contains(out.String(), part) {
				t.Errorf("%s, %v: no %q in\n%s", c.role, args, part, out.String())
			}
			hides(strings.Join(args, " "), out.String())
		}
		says("private-key "+dir+"/key ", "plan")
		says("preshared-key "+dir+"/psk ", "plan")
		says("wg set ", "status", "--json")
		end := &reconcile.End{Config: file, Kernel: k}
		show := func(step state.Step) { hides("a step", fmt.Sprintf("%v %+v %#v", step.Commands(), step, step)) }
		if _, err := end.Up(nil, nil, show, nil); err != nil {
			t.Fatal(err)
		}
		public := private.Public().String()
		says("relay home ", "status")
		says(public, "status", "--json")
		says("ip link del ", "plan", "--down")
		says("ds4relay_relay_up", "metrics")
		says("correct", "check", a.path)
		says(public, "pubkey", "home")
		says(public, strings.Fields("export "+c.export)...)
	}
}
