//go:build !openwrt

package setup

import (
	"path"
	"slices"
	"strings"

	"github.com/ds4relay/ds4relay/internal/message"
)

// User is who homes are on a VPS, and its group.
const User = "ds4relay"

// settings reads what `sshd -T` prints (sshd(8)): the words of each option, whose name is in small letters.
func settings(configuration string) map[string][]string {
	words := map[string][]string{}
	for line := range strings.Lines(configuration) {
		if fields := strings.Fields(line); len(fields) > 1 {
			key := strings.ToLower(fields[0])
			words[key] = append(words[key], fields[1:]...)
		}
	}
	return words
}

// ShutOut says why the ssh server would not let a home in, each with what to do. configuration is what `sshd -T -C
// user=ds4relay,…` prints; "" is not known.
func ShutOut(configuration string) (reasons []*message.Text) {
	if configuration == "" {
		return nil
	}
	words := settings(configuration)
	matches := func(patterns []string) bool {
		return slices.ContainsFunc(patterns, func(pattern string) bool {
			user, _, _ := strings.Cut(pattern, "@")
			ok, err := path.Match(user, User)
			return ok && err == nil
		})
	}
	for _, allow := range []struct{ key, name string }{{"allowusers", "AllowUsers"}, {"allowgroups", "AllowGroups"}} {
		if list := words[allow.key]; len(list) > 0 && !matches(list) {
			reasons = append(reasons, message.New("sshd_config: %s keeps the home out; add %s to it, then run: systemctl "+
				"reload ssh", allow.name, User))
		}
	}
	for _, deny := range []struct{ key, name string }{{"denyusers", "DenyUsers"}, {"denygroups", "DenyGroups"}} {
		if matches(words[deny.key]) {
			reasons = append(reasons, message.New("sshd_config: %s keeps the home out; change it so that it does not "+
				"match %s, then run: systemctl reload ssh", deny.name, User))
		}
	}
	// Of several Match blocks, the first that sets an option is taken.
	wants := func(option, value string) {
		reasons = append(reasons, message.New("sshd_config: %s keeps the home out; add the lines `Match User %s` and `%s "+
			"%s` before the first line `Match`, or at the end if there is none, then run: systemctl reload ssh", option,
			User, option, value))
	}
	if slices.Contains(words["pubkeyauthentication"], "no") {
		wants("PubkeyAuthentication", "yes")
	}
	files := words["authorizedkeysfile"]
	if len(files) > 0 && !slices.ContainsFunc(files, func(file string) bool {
		return strings.TrimPrefix(file, "%h/") == ".ssh/authorized_keys"
	}) {
		wants("AuthorizedKeysFile", ".ssh/authorized_keys")
	}
	methods := words["authenticationmethods"]
	if len(methods) > 0 && !slices.Contains(methods, "any") && !slices.Contains(methods, "publickey") {
		wants("AuthenticationMethods", "publickey")
	}
	// A home's key says what may run. ForceCommand runs something else; in a new root there is no ds4relay.
	for _, only := range []struct{ key, name string }{{"forcecommand", "ForceCommand"},
		{"chrootdirectory", "ChrootDirectory"}} {
		if value := words[only.key]; len(value) > 0 && !slices.Equal(value, []string{"none"}) {
			wants(only.name, "none")
		}
	}
	if !ed25519In(words["pubkeyacceptedalgorithms"]) {
		wants("PubkeyAcceptedAlgorithms", "+"+keyType)
	}
	if !ed25519In(words["hostkeyalgorithms"]) {
		reasons = append(reasons, message.New("sshd_config: HostKeyAlgorithms leaves out %s, so the home cannot recognise "+
			"this VPS; add it, then run: systemctl reload ssh", keyType))
	}
	if keys := words["hostkey"]; len(keys) > 0 && !slices.ContainsFunc(keys, func(file string) bool {
		return strings.Contains(file, "ed25519")
	}) {
		reasons = append(reasons, message.New("sshd_config: HostKey names no ed25519 key, so the home cannot recognise this "+
			"VPS; add the line `HostKey /etc/ssh/ssh_host_ed25519_key`, then run: systemctl reload ssh"))
	}
	return reasons
}

// keyType is the type of the keys that homes have, and of the host key that they know.
const keyType = "ssh-ed25519"

// ed25519In reports whether a list of algorithms has that of ds4relay's keys, or is not known.
func ed25519In(list []string) bool {
	return len(list) == 0 || slices.Contains(strings.Split(strings.Join(list, ","), ","), keyType)
}
