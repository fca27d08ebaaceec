//go:build lab && debian && bench

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/lab"
)

// setupStep is a command that a person gives while setting something up. Editing a file is a command too.
type setupStep struct {
	home   bool // on the home's end, otherwise on the VPS
	script string
	typed  int // values that the person chooses or looks up, and types
	pasted int // values that come from another place, such as a key
}

// setupWay is a way to make a home server reachable, with the steps of its own documentation. Its programs are
// installed already, unless a step installs them.
type setupWay struct {
	name   string
	files  map[string]string // programs of this computer that the VPS gets, by their path there
	before string            // a shell script on the VPS that stands for their installation
	steps  []setupStep
}

// setupWays returns the compared ways. frp's are in the README of its repository (Example Usage), WireGuard's in its
// quick start and in wg-quick(8); the NAT is what most pages about port forwarding have.
func setupWays() []setupWay {
	ways := []setupWay{{
		name:  "ds4relay",
		files: map[string]string{os.Getenv("DS4RELAY_DEB"): "/root/ds4relay.deb"},
		steps: []setupStep{
			{script: "apt-get install -y /root/ds4relay.deb"},
			{script: "ds4relay setup --yes"},
			{home: true, script: "echo INVITATION | ds4relay join --yes --host " + home4 + " --port tcp:80", typed: 2,
				pasted: 1},
		},
	}, {
		name: "WireGuard by hand",
		files: map[string]string{"/usr/bin/wg": "/usr/bin/wg", "/usr/bin/wg-quick": "/usr/bin/wg-quick",
			"/usr/lib/systemd/system/wg-quick@.service": "/etc/systemd/system/wg-quick@.service"},
		before: "chmod 755 /usr/bin/wg /usr/bin/wg-quick; mkdir -p /etc/wireguard; systemctl daemon-reload",
		steps: []setupStep{
			{script: "cd /etc/wireguard; umask 077; wg genkey >private; wg pubkey <private"},
			{home: true, script: "cd /etc/wireguard; umask 077; wg genkey >private; wg pubkey <private"},
			{script: `umask 077; cat >/etc/wireguard/wg0.conf <<END
[Interface]
Address = 10.8.0.1/24
ListenPort = 51820
PrivateKey = $(cat /etc/wireguard/private)
PostUp = iptables -t nat -A PREROUTING -i ens3 -p tcp --dport 80 -j DNAT --to-destination ` + home4 + `
PostUp = iptables -t nat -A POSTROUTING -o wg0 -j MASQUERADE
PostDown = iptables -t nat -D PREROUTING -i ens3 -p tcp --dport 80 -j DNAT --to-destination ` + home4 + `
PostDown = iptables -t nat -D POSTROUTING -o wg0 -j MASQUERADE
[Peer]
PublicKey = KEY OF THE HOME
AllowedIPs = 10.8.0.2/32, ` + home4 + `/32
END`, typed: 6, pasted: 2},
			{script: "echo net.ipv4.ip_forward=1 >/etc/sysctl.d/99-forward.conf; sysctl -q --system"},
			{script: "systemctl enable --now wg-quick@wg0"},
			{home: true, script: `umask 077; cat >/etc/wireguard/wg0.conf <<END
[Interface]
Address = 10.8.0.2/24
PrivateKey = $(cat /etc/wireguard/private)
[Peer]
PublicKey = KEY OF THE VPS
Endpoint = ` + public + `:51820
AllowedIPs = 10.8.0.1/32
PersistentKeepalive = 25
END`, typed: 4, pasted: 2},
			{home: true, script: "wg-quick up wg0"}, // a namespace has no systemd that could start it at each boot
		},
	}}
	if frp := os.Getenv("DS4RELAY_FRP"); frp != "" {
		ways = append(ways, setupWay{
			name:   "frp",
			files:  map[string]string{filepath.Join(frp, "frps"): "/root/frps"},
			before: "chmod 755 /root/frps",
			steps: []setupStep{
				{script: "echo 'bindPort = 7000' >frps.toml", typed: 1},
				// ./frps -c ./frps.toml, in a terminal that stays open, until it says that it has started
				{script: "systemd-run -q --working-directory=/root ./frps -c ./frps.toml; for i in $(seq 300); do ss -Htln | " +
					"grep -q :7000 && exit; sleep 0.1; done; exit 1"},
				{home: true, script: `cat >/run/frpc.toml <<END
serverAddr = "` + public + `"
serverPort = 7000
[[proxies]]
name = "web"
type = "tcp"
localIP = "` + home4 + `"
localPort = 80
remotePort = 80
END`, typed: 6},
				{home: true, script: "setsid " + filepath.Join(frp, "frpc") + " -c /run/frpc.toml </dev/null " +
					">/run/frpc.log 2>&1 &"},
			},
		})
	}
	return ways
}

// TestBenchSetup follows the steps of each way on a fresh Debian as VPS and a home behind carrier NAT, and counts
// commands, values and seconds until a client is answered. Each way has a machine of its own: run its subtests one by
// one.
func TestBenchSetup(t *testing.T) {
	for _, w := range setupWays() {
		t.Run(strings.Fields(w.name)[0], func(t *testing.T) {
			d := newDebianLab(t, lab.Options{VPSVM: true})
			serveTCP(t, d.Host, 80)
			if err := installed(); err != nil {
				t.Fatal(err)
			}
			home := newRoom(t, d.Router, "mkdir -p /etc/wireguard; mount -t tmpfs room /etc/wireguard; cd /run")
			for from, to := range w.files {
				data, err := os.ReadFile(from)
				if err != nil {
					t.Fatal(err)
				}
				d.server.write(to, string(data))
			}
			d.do("systemctl start ssh; cd /root; " + w.before)
			fmt.Println(w.follow(t, d, home))
		})
	}
}

// follow gives the commands, and returns a row of the table.
func (w setupWay) follow(t *testing.T, d *debianRelayLab, home *room) string {
	var took time.Duration
	var typed, pasted int
	pastes := map[string]string{}
	for _, step := range w.steps {
		script := step.script
		for name, value := range pastes {
			script = strings.ReplaceAll(script, name, value)
		}
		start := time.Now()
		var out string
		if step.home {
			out = home.do(t, script, "")
		} else {
			out = d.do("cd /root; " + script)
		}
		took += time.Since(start)
		t.Logf("%.1f s: %.60s", time.Since(start).Seconds(), step.script)
		typed, pasted = typed+step.typed, pasted+step.pasted
		if found := regexp.MustCompile(`ds4relay1\.\S+`).FindString(out); found != "" {
			pastes["INVITATION"] = found
		}
		if key := regexp.MustCompile(`^[A-Za-z0-9+/]{43}=\n$`).FindString(out); key != "" && step.home {
			pastes["KEY OF THE HOME"] = strings.TrimSpace(key)
		} else if key != "" {
			pastes["KEY OF THE VPS"] = strings.TrimSpace(key)
		}
	}
	sees := "no"
	start := time.Now()
	for end := start.Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if seen, conn, err := askTCP(d.Client, public+":80"); err == nil {
			conn.Close()
			if seen == client4 {
				sees = "yes"
			}
			break
		} else if time.Now().After(end) {
			t.Fatalf("%s: no answer: %v; %s", w.name, err, home.do(t, "cat /run/*.log", ""))
		}
	}
	took += time.Since(start)
	return fmt.Sprintf("| %s | %d | %d | %d | %.0f s | %s |", w.name, len(w.steps), typed, pasted, took.Seconds(), sees)
}
