// Package invite is what an invitation is: one line of text that a VPS prints and that lets a home enrol there once. It
// has what the home needs to find the VPS and to recognise it, and a key that is good for one enrolment.
package invite

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/sha256"
	"github.com/ds4relay/ds4relay/internal/transport"
)

// Good is how long an invitation is good for.
const Good = 24 * time.Hour

// An Invitation is what the line of text says.
type Invitation struct {
	Relay     string     // its name, at both ends
	Hosts     []string   // addresses or names of the VPS, for ssh and for the tunnel, IPv6 first
	SSHPort   uint16     // of the VPS
	HostKey   []byte     // ssh's ed25519 host key of the VPS, in the wire format of ssh (RFC 8709 section 4)
	Key       [64]byte   // the one-time ed25519 key: seed, then public half
	Transport string     // as option transport
	PublicKey string     // of the VPS, with wireguard
	Port      uint16     // UDP port of the VPS, with wireguard
	IPAddr    netip.Addr // the public IPv4 address
	Standby   bool       // another VPS has the public address by turns: the home joins both
	Expires   time.Time  // to the second
}

const (
	word    = "ds4relay"
	version = 1
	prefix  = word + "1."
	digits  = 8 // of the checksum, in hexadecimal

	maxText  = 4096 // bytes of an invitation
	maxHosts = 8
)

// wire is the JSON of an invitation; the names are the format's.
type wire struct {
	Version   int        `json:"v"`
	Relay     string     `json:"relay"`
	Hosts     []string   `json:"hosts"`
	SSHPort   uint16     `json:"ssh"`
	HostKey   []byte     `json:"host_key"`
	Key       []byte     `json:"key"`
	Transport string     `json:"transport"`
	PublicKey string     `json:"public_key,omitempty"`
	Port      uint16     `json:"port,omitempty"`
	IPAddr    netip.Addr `json:"ipaddr"`
	Standby   bool       `json:"standby,omitempty"` // former releases do not read it
	Expires   int64      `json:"expires"`
}

// checksum finds what is cut off or altered by accident. It is no signature.
func checksum(text string) string {
	sum := sha256.Sum([]byte(text))
	return hex.EncodeToString(sum[:digits/2])
}

// Encode writes an invitation as text.
func Encode(i Invitation) string {
	data, err := json.Marshal(wire{version, i.Relay, i.Hosts, i.SSHPort, i.HostKey, i.Key[:], i.Transport, i.PublicKey,
		i.Port, i.IPAddr, i.Standby, i.Expires.Unix()})
	if err != nil {
		panic(err) // strings, numbers and bytes only
	}
	text := prefix + base64.RawURLEncoding.EncodeToString(data)
	return text + "." + checksum(text)
}

// Why an invitation is refused.
var (
	errNone = message.New("this is not an invitation, which begins with %s; `ds4relay invite` on the VPS prints one",
		prefix)
	errAltered = message.New("the invitation is cut off or altered; copy all of it, from %s to its last digit", prefix)
	errLater   = message.New("the invitation is of a later version of ds4relay; update ds4relay here")
	errOld     = message.New("the invitation is too old; `ds4relay invite` on the VPS prints a new one")
)

// Decode reads an invitation. Blanks and line breaks in it do not count. No error shows any of it.
func Decode(text string, now time.Time) (Invitation, error) {
	text = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, text)
	rest, ok := strings.CutPrefix(text, word)
	number, rest, dot := strings.Cut(rest, ".")
	n, err := strconv.ParseUint(number, 10, 32)
	if !ok || !dot || err != nil || number != strconv.FormatUint(n, 10) || n < version {
		return Invitation{}, errNone
	}
	at := strings.LastIndexByte(text, '.')
	sum := text[at+1:]
	switch {
	case len(text) > maxText || !strings.Contains(rest, ".") || checksum(text[:at]) != sum:
		return Invitation{}, errAltered
	case n != version:
		return Invitation{}, errLater
	}
	data, err := base64.RawURLEncoding.Strict().DecodeString(text[len(prefix):at])
	if err != nil {
		return Invitation{}, errAltered
	}
	var w wire
	err = json.Unmarshal(data, &w)
	if err == nil && w.Version > version {
		return Invitation{}, errLater
	}
	if err != nil || !w.valid() {
		return Invitation{}, message.New("the invitation says something that this version of ds4relay does not know; " +
			"use the same version at both ends")
	}
	i := Invitation{w.Relay, w.Hosts, w.SSHPort, w.HostKey, [64]byte(w.Key), w.Transport, w.PublicKey, w.Port, w.IPAddr,
		w.Standby, time.Unix(w.Expires, 0)}
	if !now.Before(i.Expires) {
		return Invitation{}, errOld
	}
	return i, nil
}

// hostKeyHead is the beginning of an ed25519 key in ssh's wire format: its type, and the length of what follows.
var hostKeyHead = []byte("\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20")

const keySize = 32 // bytes of an ed25519 public key

// IsHostKey reports whether a key is ssh's ed25519 host key in the wire format, as Invitation has it.
func IsHostKey(key []byte) bool {
	return bytes.HasPrefix(key, hostKeyHead) && len(key) == len(hostKeyHead)+keySize
}

// valid refuses what could not be used, or could be something else in a file or on a command line.
func (w wire) valid() bool {
	if w.Version != version || !config.RelayName(w.Relay) || len(w.Hosts) == 0 || len(w.Hosts) > maxHosts ||
		w.SSHPort == 0 || !IsHostKey(w.HostKey) || len(w.Key) != len(Invitation{}.Key) || !w.IPAddr.Is4() {
		return false
	}
	for _, host := range w.Hosts {
		if !isHost(host) {
			return false
		}
	}
	switch config.Transport(w.Transport) {
	case config.IPIP6:
		return true
	case config.WireGuard:
		key, ok := transport.ParseKey(w.PublicKey)
		return ok && key.Valid() && w.Port != 0
	}
	return false
}

// isHost reports whether text is an address without a zone, or looks like a name of a machine.
func isHost(text string) bool {
	if addr, err := netip.ParseAddr(text); err == nil {
		return addr.Zone() == ""
	}
	other := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.'
	}
	return len(text) > 0 && len(text) <= 253 && text[0] != '-' && text[0] != '.' && !strings.ContainsFunc(text, other)
}
