package invite

import (
	"encoding/base64"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

var now = time.Unix(1790000000, 0)

func example() Invitation {
	i := Invitation{Relay: "home", Hosts: []string{"2001:db8:6ef9::1", "198.51.100.144", "vps.example.net"}, SSHPort: 22,
		HostKey:   append([]byte("\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20"), make([]byte, 32)...),
		Transport: "wireguard", PublicKey: "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=", Port: 51846,
		IPAddr: netip.MustParseAddr("198.51.100.144"), Expires: now.Add(Good)}
	for n := range i.Key {
		i.Key[n] = byte(3 * n)
	}
	return i
}

// TestInvitation: what was encoded is decoded, also out of a mail that has broken the line, or a terminal that has.
func TestInvitation(t *testing.T) {
	plain := example()
	plain.Transport, plain.PublicKey, plain.Port = "ipip6", "", 0
	standby := example()
	standby.Standby = true
	for _, want := range []Invitation{example(), plain, standby} {
		text := Encode(want)
		if strings.ContainsAny(text, " \n'\"\\$=") || !strings.HasPrefix(text, "ds4relay1.") {
			t.Errorf("not one word for a shell: %s", text)
		}
		for _, in := range []string{text, " " + text + "\r\n", strings.Join(strings.SplitAfter(text, "e"), "\n  "),
			text[:40] + "\u00a0\t" + text[40:]} {
			got, err := Decode(in, now)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%v, %+v, want %+v", err, got, want)
			}
		}
	}
}

// TestAltered: every byte that is another one, is missing, or is there twice is found, and so is every text that was
// cut off. No error shows what is in the text.
func TestAltered(t *testing.T) {
	text := Encode(example())
	refused := func(altered string) {
		t.Helper()
		_, err := Decode(altered, now)
		switch err {
		case error(errNone), errAltered:
		default:
			t.Fatalf("%v for\n%s", err, altered)
		}
	}
	for i := range text {
		for c := range 256 {
			if byte(c) == text[i] || c == ' ' || c >= '\t' && c <= '\r' {
				continue
			}
			refused(text[:i] + string([]byte{byte(c)}) + text[i+1:])
		}
		refused(text[:i] + text[i+1:])
		refused(text[:i])
		refused(text[i+1:])
		if i > 0 && text[i] != text[i-1] {
			refused(text[:i-1] + text[i:i+1] + text[i-1:i] + text[i+1:])
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		altered := []byte(text)
		for range 2 + r.IntN(6) {
			altered[r.IntN(len(altered))] ^= byte(1 << r.IntN(7))
		}
		if string(altered) != text && !strings.ContainsAny(string(altered), " \t\n\v\f\r") {
			refused(string(altered))
		}
	}
	refused(text + "0")
	refused(text + text)
	refused(text + "." + text)
	refused("ds4relay1." + strings.Repeat("A", 1<<20) + ".00000000")
}

// sealed is a text with a right checksum.
func sealed(head, json string) string {
	text := head + base64.RawURLEncoding.EncodeToString([]byte(json))
	return text + "." + checksum(text)
}

func TestErrors(t *testing.T) {
	old := example()
	old.Expires = now
	body := func(former, other string) string {
		text, _ := base64.RawURLEncoding.DecodeString(strings.Split(Encode(example()), ".")[1])
		if !strings.Contains(string(text), former) {
			t.Fatalf("%s is not in %s", former, text)
		}
		return sealed("ds4relay1.", strings.Replace(string(text), former, other, 1))
	}
	const unknown = "the invitation says something that this version of ds4relay does not know; use the same version at " +
		"both ends"
	const none = "this is not an invitation, which begins with ds4relay1.; `ds4relay invite` on the VPS prints one"
	const altered = "the invitation is cut off or altered; copy all of it, from ds4relay1. to its last digit"
	const later = "the invitation is of a later version of ds4relay; update ds4relay here"
	for name, c := range map[string]struct{ text, want string }{
		"nothing":            {"", none},
		"something else":     {"ssh-ed25519 AAAA", none},
		"a version of 0":     {sealed("ds4relay0.", "{}"), none},
		"a version of 01":    {sealed("ds4relay01.", "{}"), none},
		"a sign":             {sealed("ds4relay+1.", "{}"), none},
		"the beginning only": {"ds4relay1.", altered},
		"without checksum":   {strings.Join(strings.Split(Encode(example()), ".")[:2], "."), altered},
		"later":              {sealed("ds4relay2.", "what comes then"), later},
		"later, cut off":     {"ds4relay2.abc.12345678", altered},
		"a later JSON":       {body(`"v":1`, `"v":2`), later},
		"no JSON":            {sealed("ds4relay1.", "x"), unknown},
		"a relay's name":     {body(`"home"`, `"../x"`), unknown},
		"a host":             {body(`"vps.example.net"`, `"-oProxyCommand=x"`), unknown},
		"a zone":             {body(`"2001:db8:6ef9::1"`, `"fe80::1%eth0"`), unknown},
		"no hosts":           {body(`"hosts":[`, `"hosts":[],"x":[`), unknown},
		"no port":            {body(`"ssh":22`, `"ssh":0`), unknown},
		"another transport":  {body(`"wireguard"`, `"gre"`), unknown},
		"no key":             {body(`"public_key":"h`, `"public_key":"`), unknown},
		"another host key":   {body(`"host_key":"AAAA`, `"host_key":"AAAB`), unknown},
		"a short key":        {body(`"key":"AAMG`, `"key":"`), unknown},
		"IPv6":               {body(`"ipaddr":"198.51.100.144"`, `"ipaddr":"2001:db8::1"`), unknown},
		"too old": {Encode(old), "the invitation is too old; `ds4relay invite` on the VPS prints a new " +
			"one"},
	} {
		if got, err := Decode(c.text, now); err == nil || err.Error() != c.want ||
			!reflect.DeepEqual(got, Invitation{}) {
			t.Errorf("%s: %v, %+v, want %s", name, err, got, c.want)
		}
	}
	if _, err := Decode(body(`"v":1`, `"new":[1],"v":1`), now); err != nil {
		t.Errorf("one more key: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(Encode(example()))
	f.Add("ds4relay1.e30.00000000")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := Decode(text, now)
		if err != nil {
			got, err = Decode(sealed("ds4relay1.", text), now)
		}
		if err != nil {
			return
		}
		again, err := Decode(Encode(got), now)
		if err != nil || !reflect.DeepEqual(got, again) {
			t.Errorf("%v, %+v, %+v", err, got, again)
		}
	})
}
