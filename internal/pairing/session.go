package pairing

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/plain"
	"github.com/ds4relay/ds4relay/internal/program"
)

const (
	// Limit is how long the VPS may take, from the first packet to the end of its answer.
	Limit = 20 * time.Second
	// maxAnswer limits what the VPS may say, in bytes.
	maxAnswer = 16 << 10
	// maxSaid limits what is shown of what a program says, in bytes.
	maxSaid = 400
)

// user is the VPS's user for homes.
var user = "ds4relay"

// A Session is one run of the ssh client: an input for the VPS, and its answer. What is done there depends on the key
// alone.
type Session struct {
	VPS     VPS
	Key     string     // file with this home's key; "" with OneTime
	OneTime *[64]byte  // the invitation's key
	From    netip.Addr // this end's address; not valid for any
	Input   string
	Run     string        // folder for short-lived files
	Limit   time.Duration // for all of it

	Answered string // the address that has answered; set by Do
}

// The reasons for a session that did not come about.
var (
	ErrHostKey = message.New("who answers there is not the VPS of the invitation: its ssh host key is another one; " +
		"after the VPS was installed anew, make an invitation there: ds4relay invite")
	ErrDenied = message.New("the VPS does not accept this key: it was taken back there, or another invitation has " +
		"taken its place, or it is too old; make an invitation on the VPS: ds4relay invite")
	ErrSilent = message.New("the VPS has not answered in time")
)

// Do asks the VPS. It tries its addresses one after the other until one answers. The answer is what has been printed
// there, at most 16 KiB of it.
func (s *Session) Do() (answer string, err error) {
	if err := s.VPS.Check(); err != nil {
		return "", err
	}
	// The one-time key is never on a disk that keeps it, and known_hosts has this one VPS only.
	home := filepath.Join(s.Run, fmt.Sprint("ssh-", os.Getpid()))
	err = os.RemoveAll(home) // of a process that was killed
	if err == nil {
		err = os.MkdirAll(s.Run, 0o755)
	}
	if err == nil {
		err = os.MkdirAll(filepath.Join(home, ".ssh"), 0o700)
	}
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(home)
	var c client
	key := s.Key
	if s.OneTime != nil {
		if c, err = newClient(); err == nil {
			key = filepath.Join(home, "key")
			err = writeFile(key, c.oneTime(*s.OneTime))
		}
	} else {
		c, err = clientOf(key)
	}
	if err != nil {
		return "", err
	}
	known := filepath.Join(home, ".ssh", "known_hosts")
	hosts := s.hosts()
	if err := writeFile(known, s.known(hosts)); err != nil {
		return "", err
	}
	end := time.Now().Add(s.Limit)
	for i, host := range hosts {
		// One of several addresses may be without a path, and dbclient would wait for minutes.
		limit := time.Until(end)
		if i+1 < len(hosts) {
			limit /= 2
		}
		var said string
		answer, said, err = program.Command{Name: c.ssh, Args: c.args(s, host, key, known), Input: s.Input,
			Limit: limit, Apart: true, Most: maxAnswer, EndWithUs: true,
			Env: []string{"HOME=" + home, "LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}}.Run()
		if answer != "" {
			s.Answered = host
			return answer, nil
		}
		if err = reason(c, said, err); errors.Is(err, ErrHostKey) || errors.Is(err, ErrDenied) || err == nil {
			return "", err
		}
		err = message.New("%s: %v", host, err)
	}
	return "", err
}

// hosts are the VPS's addresses that can be reached from this end's.
func (s *Session) hosts() []string {
	if !s.From.Is6() {
		return s.VPS.Hosts
	}
	var fitting []string
	for _, host := range s.VPS.Hosts {
		if addr, err := netip.ParseAddr(host); err != nil || addr.Is6() {
			fitting = append(fitting, host)
		}
	}
	if fitting == nil {
		return s.VPS.Hosts
	}
	return fitting
}

// known is a known_hosts with the VPS. dbclient looks for a host without its port, OpenSSH for this name.
func (s *Session) known(hosts []string) []byte {
	var b strings.Builder
	for _, host := range append([]string{alias}, hosts...) {
		fmt.Fprintf(&b, "%s %s %s\n", host, keyType, base64.StdEncoding.EncodeToString(s.VPS.HostKey))
	}
	return []byte(b.String())
}

const alias = "ds4relay-vps"

// args are a client's arguments. dbclient has no way to ask without a terminal but one: it takes a first "y" of the
// input for a yes. No input here begins so.
func (c client) args(s *Session, host, key, known string) []string {
	port := fmt.Sprint(s.VPS.Port)
	if c.dropbear {
		args := []string{"-T", "-l", user, "-p", port, "-i", key}
		if s.From.IsValid() {
			args = append(args, "-b", bracketed(s.From))
		}
		return append(args, host, user)
	}
	args := append(strings.Fields(opensshArgs), "-l", user, "-p", port, "-i", key, "-oUserKnownHostsFile="+known)
	if s.From.IsValid() {
		args = append(args, "-b", s.From.String())
	}
	return append(args, "--", host, user)
}

const opensshArgs = "-T -F /dev/null -oBatchMode=yes -oStrictHostKeyChecking=yes -oHostKeyAlgorithms=" + keyType +
	" -oHostKeyAlias=" + alias + " -oGlobalKnownHostsFile=/dev/null -oUpdateHostKeys=no -oCheckHostIP=no " +
	"-oVerifyHostKeyDNS=no -oIdentitiesOnly=yes -oIdentityAgent=none -oPreferredAuthentications=publickey " +
	"-oConnectTimeout=10"

func bracketed(addr netip.Addr) string {
	if addr.Is6() {
		return "[" + addr.String() + "]"
	}
	return addr.String()
}

// reason is why a client has brought no answer, by what it has said in English.
func reason(c client, said string, err error) error {
	low := strings.ToLower(said)
	has := func(texts ...string) bool {
		for _, text := range texts {
			if strings.Contains(low, text) {
				return true
			}
		}
		return false
	}
	var limit *program.LimitError
	switch {
	case has("host key verification failed", "host key mismatch", "trusted hosts", "no matching host key type"):
		return ErrHostKey
	case has("permission denied", "no auth methods", "'s password:"): // dbclient asks for one where the server takes it
		return ErrDenied
	case errors.As(err, &limit):
		return ErrSilent
	case err == nil:
		return message.New("the VPS has answered nothing")
	case said == "":
		return message.New("%s: %v", c.ssh, err)
	}
	return message.Plain(escaped(strings.Join(strings.Fields(said), " "), maxSaid))
}

// escaped is text from elsewhere as it may be shown.
func escaped(text string, most int) string {
	return cut(string(plain.Escape([]byte(text))), most)
}
