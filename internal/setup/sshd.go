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

// ShutOut says why the ssh server would not let a home in, each with what to do. configuration is what `sshd -T -C
// user=ds4relay,…` prints (sshd(8)); "" is not known.
func ShutOut(configuration string) (reasons []*message.Text) {
	if configuration == "" {
		return nil
	}
	words := map[string][]string{}
	for line := range strings.Lines(configuration) {
		if fields := strings.Fields(line); len(fields) > 1 {
			key := strings.ToLower(fields[0])
			words[key] = append(words[key], fields[1:]...)
		}
	}
	matches := func(patterns []string) bool {
		return slices.ContainsFunc(patterns, func(pattern string) bool {
			user, _, _ := strings.Cut(pattern, "@")
			ok, err := path.Match(user, User)
			return ok && err == nil
		})
	}
	for _, allow := range []struct{ key, name string }{{"allowusers", "AllowUsers"}, {"allowgroups", "AllowGroups"}} {
		if list := words[allow.key]; len(list) > 0 && !matches(list) {
			reasons = append(reasons, message.New("%s of sshd_config leaves out %s: add it there, and systemctl reload ssh",
				allow.name, User))
		}
	}
	for _, deny := range []struct{ key, name string }{{"denyusers", "DenyUsers"}, {"denygroups", "DenyGroups"}} {
		if matches(words[deny.key]) {
			reasons = append(reasons, message.New("%s of sshd_config has %s: take it out there, and systemctl reload ssh",
				deny.name, User))
		}
	}
	if slices.Contains(words["pubkeyauthentication"], "no") {
		reasons = append(reasons, message.New("PubkeyAuthentication of sshd_config is no: allow keys for %s: Match User %s, "+
			"and below it PubkeyAuthentication yes", User, User))
	}
	files := words["authorizedkeysfile"]
	if len(files) > 0 && !slices.ContainsFunc(files, func(file string) bool {
		return strings.TrimPrefix(file, "%h/") == ".ssh/authorized_keys"
	}) {
		reasons = append(reasons, message.New("AuthorizedKeysFile of sshd_config has no .ssh/authorized_keys: set it for "+
			"%s: Match User %s, and below it AuthorizedKeysFile .ssh/authorized_keys", User, User))
	}
	methods := words["authenticationmethods"]
	if len(methods) > 0 && !slices.Contains(methods, "any") && !slices.Contains(methods, "publickey") {
		reasons = append(reasons, message.New("AuthenticationMethods of sshd_config wants more than a key: Match User %s, "+
			"and below it AuthenticationMethods publickey", User))
	}
	if keys := words["hostkey"]; len(keys) > 0 && !slices.ContainsFunc(keys, func(file string) bool {
		return strings.Contains(file, "ed25519")
	}) {
		reasons = append(reasons, message.New("HostKey of sshd_config has no ed25519 key, by which the home would know this "+
			"machine: add HostKey /etc/ssh/ssh_host_ed25519_key"))
	}
	return reasons
}
