package authorized

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func file(t *testing.T) File {
	t.Helper()
	return File{filepath.Join(t.TempDir(), ".ssh", "authorized_keys")}
}

func text(t *testing.T, f File) string {
	t.Helper()
	data, err := os.ReadFile(f.Path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func key(n byte) [32]byte { return [32]byte{n} }

func id(n byte) string { return line{key: encode(key(n))}.id() }

func public(n byte) string { return keyType + " " + encode(key(n)) }

// must fails the test if there is an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestInvitationBecomesUsed(t *testing.T) {
	f := file(t)
	expires := time.Now().Add(24 * time.Hour).Truncate(time.Minute)
	must(t, f.Invite("home", key(1), expires))
	want := fmt.Sprintf(`restrict,expiry-time="%s",command="/usr/sbin/ds4relay enroll --key %s home" %s `+
		"ds4relay-invitation home\n", expires.In(systemZone()).Format("200601021504"), id(1), public(1))
	if got := text(t, f); got != want {
		t.Errorf("an invitation is\n%swant\n%s", got, want)
	}
	if open, until, enrolled, err := f.State("home"); !open || !until.Equal(expires) || enrolled || err != nil {
		t.Errorf("State = %v, %v, %v, %v after an invitation", open, until, enrolled, err)
	}
	must(t, f.Enrol(id(1), "home", public(2)+" root@OpenWrt"))
	want = `restrict,command="/usr/sbin/ds4relay enroll --used --key ` + id(1) + ` home" ` + public(1) +
		" ds4relay-used home\n" + `restrict,command="/usr/sbin/ds4relay receive --key ` + id(2) + ` home" ` + public(2) +
		" ds4relay-home home\n"
	if got := text(t, f); got != want {
		t.Errorf("after enrolment there is\n%swant\n%s", got, want)
	}
	if open, _, enrolled, _ := f.State("home"); open || !enrolled {
		t.Errorf("State = %v, %v after enrolment", open, enrolled)
	}
	if err := f.Enrol(id(1), "home", public(3)); !errors.Is(err, ErrNoInvitation) {
		t.Errorf("a second enrolment with one invitation: %v", err)
	}
	if got := text(t, f); got != want {
		t.Errorf("a refused enrolment has changed the file:\n%s", got)
	}
	info, err := os.Stat(f.Path)
	must(t, err)
	if info.Mode().Perm() != 0o644 {
		t.Errorf("the file has mode %v; sshd reads it as another user", info.Mode())
	}
}

func TestNewInvitationReplacesTheOpenOne(t *testing.T) {
	f := file(t)
	later := time.Now().Add(time.Hour)
	must(t, f.Invite("home", key(1), later))
	must(t, f.Enrol(id(1), "home", public(2)))
	must(t, f.Invite("home", key(3), later))
	must(t, f.Invite("home", key(4), later))
	must(t, f.Invite("cabin", key(5), later))
	got := text(t, f)
	for n, want := range map[byte]bool{1: true, 2: true, 3: false, 4: true, 5: true} {
		if strings.Contains(got, encode(key(n))) != want {
			t.Errorf("key %d is there: %v, want %v:\n%s", n, !want, want, got)
		}
	}
	must(t, f.Enrol(id(4), "home", public(6)))
	got = text(t, f)
	for n, want := range map[byte]bool{1: false, 2: false, 4: true, 5: true, 6: true} {
		if strings.Contains(got, encode(key(n))) != want {
			t.Errorf("after a second enrolment key %d is there: %v, want %v:\n%s", n, !want, want, got)
		}
	}
	must(t, f.Forget("home"))
	if got := text(t, f); strings.Count(got, "\n") != 1 || !strings.Contains(got, encode(key(5))) {
		t.Errorf("after forgetting one relay there is\n%s", got)
	}
}

func TestExpiredInvitation(t *testing.T) {
	f := file(t)
	must(t, f.Invite("home", key(1), time.Now().Add(-time.Minute)))
	if open, _, _, _ := f.State("home"); open {
		t.Error("an invitation that is too old is open")
	}
	if good, err := f.Good(id(1), "home"); good || err != nil {
		t.Errorf("the key of an invitation that is too old is good: %v, %v", good, err)
	}
	if err := f.Enrol(id(1), "home", public(2)); !errors.Is(err, ErrNoInvitation) {
		t.Errorf("enrolment with an invitation that is too old: %v", err)
	}
}

// sshd reads the time in the zone of the system, whatever $TZ an administrator's shell has.
func TestZoneOfTheSystem(t *testing.T) {
	former, local := localTime, time.Local
	defer func() { localTime, time.Local = former, local }()
	time.Local = time.FixedZone("of a shell", -8*3600)
	expires := time.Date(2126, 7, 1, 22, 30, 0, 0, time.UTC)
	east := filepath.Join(t.TempDir(), "east")
	const part = "TZif2" + "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" + // RFC 9636
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x04" + // one type
		"\x00\x00\x1c\x20\x00\x00" + "+02\x00" // two hours east
	must(t, os.WriteFile(east, []byte(part+part+"\n<+02>-2\n"), 0o644))
	for path, want := range map[string]string{east: "212607020030", "none": "212607012230",
		"authorized_test.go": "212607012230"} {
		localTime = path
		f := file(t)
		must(t, f.Invite("home", key(1), expires))
		if got := text(t, f); !strings.Contains(got, `expiry-time="`+want+`"`) {
			t.Errorf("with the zone %s: %s", path, got)
		}
		if open, until, _, err := f.State("home"); !open || !until.Equal(expires) || err != nil {
			t.Errorf("with the zone %s: State = %v, %v, %v", path, open, until, err)
		}
	}
}

func TestLinesOfOthersStay(t *testing.T) {
	f := file(t)
	others := "# a comment\n\nssh-ed25519 AAAA somebody\n" +
		`restrict,command="/bin/sh" ` + public(9) + " ds4relay-home home\n" // by hand, and not as ours are
	must(t, os.MkdirAll(filepath.Dir(f.Path), 0o755))
	must(t, os.WriteFile(f.Path, []byte(others), 0o644))
	must(t, f.Invite("home", key(1), time.Now().Add(time.Hour)))
	must(t, f.Enrol(id(1), "home", public(2)))
	must(t, f.Forget("home"))
	if got := text(t, f); got != others {
		t.Errorf("lines of others have become\n%swant\n%s", got, others)
	}
}

func TestBadInput(t *testing.T) {
	f := file(t)
	must(t, f.Invite("home", key(1), time.Now().Add(time.Hour)))
	for _, bad := range []string{"", "ssh-ed25519", "ssh-rsa AAAA", "ssh-ed25519 AAAA", "ssh-ed25519 !!!!",
		"command=\"sh\" " + public(2), public(2)[:40], keyType + "\x00" + encode(key(2)),
		public(2) + strings.Repeat("x", maxKey)} {
		if err := f.Enrol(id(1), "home", bad); err == nil || errors.Is(err, ErrNoInvitation) {
			t.Errorf("enrolment with the key %.60q: %v", bad, err)
		}
	}
	must(t, f.Enrol(id(1), "home", public(2)+"\nssh-ed25519 AAAA another\n")) // what follows the key is a comment
	if got := text(t, f); strings.Count(got, "\n") != 2 || strings.Contains(got, "another") {
		t.Errorf("a line break in a key has made a line:\n%s", got)
	}
	for _, bad := range []string{"", "a b", "../x", "x\"\n", "Home", strings.Repeat("x", 12)} {
		if err := f.Invite(bad, key(1), time.Now()); err == nil {
			t.Errorf("an invitation for the relay %q", bad)
		}
	}
}

func TestKeyOfAnotherRelay(t *testing.T) {
	f := file(t)
	for n, relay := range []string{"home", "cabin"} {
		must(t, f.Invite(relay, key(byte(n)), time.Now().Add(time.Hour)))
	}
	must(t, f.Enrol(id(0), "home", public(7)))
	if err := f.Enrol(id(1), "cabin", public(7)); !errors.Is(err, ErrKnownKey) {
		t.Errorf("the key of one home for another relay: %v", err) // sshd would take the first line of the two
	}
}

func TestManyAtOnce(t *testing.T) {
	f := file(t)
	must(t, f.Invite("home", key(1), time.Now().Add(time.Hour)))
	var group sync.WaitGroup
	enrolled := make(chan byte, 100)
	for n := range 100 {
		group.Add(1)
		go func() {
			defer group.Done()
			if f.Enrol(id(1), "home", public(byte(n+2))) == nil {
				enrolled <- byte(n + 2)
			}
		}()
	}
	group.Wait()
	if len(enrolled) != 1 {
		t.Fatalf("%d of a hundred have enrolled with one invitation", len(enrolled))
	}
	if got := text(t, f); !strings.Contains(got, encode(key(<-enrolled))) || strings.Count(got, "\n") != 2 {
		t.Errorf("afterwards there is\n%s", got)
	}
}

// A session outlives the key that has opened it: what it asks for then is of a key that is not good any more.
func TestKeyThatWasTakenBack(t *testing.T) {
	f := file(t)
	good := func(n byte, want bool) {
		t.Helper()
		if is, err := f.Good(id(n), "home"); is != want || err != nil {
			t.Errorf("Good of key %d = %v, %v, want %v", n, is, err, want)
		}
	}
	later := time.Now().Add(time.Hour)
	must(t, f.Invite("home", key(1), later))
	good(1, true)
	must(t, f.Invite("home", key(2), later))
	good(1, false)
	if err := f.Enrol(id(1), "home", public(5)); !errors.Is(err, ErrNoInvitation) {
		t.Errorf("an old invitation enrols by the new one: %v", err)
	}
	must(t, f.Enrol(id(2), "home", public(6)))
	good(2, false) // used
	good(6, true)
	must(t, f.Invite("home", key(3), later))
	must(t, f.Enrol(id(3), "home", public(7)))
	good(6, false)
	if is, _ := f.Good(id(7), "cabin"); is {
		t.Error("a home's key is good for another relay")
	}
}
