//go:build !openwrt

package setup

import (
	"strings"
	"testing"
)

// TestShutOut: what sshd -T says on servers that people have made stricter.
func TestShutOut(t *testing.T) {
	const usual = "port 22\npubkeyauthentication yes\nauthorizedkeysfile .ssh/authorized_keys .ssh/authorized_keys2\n" +
		"hostkey /etc/ssh/ssh_host_rsa_key\nhostkey /etc/ssh/ssh_host_ed25519_key\nauthenticationmethods any\n"
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{usual, ""},
		{usual + "allowusers root\nallowusers ds4relay\n", ""},
		{usual + "allowusers root\nallowusers ds4*@2001:db8::/32\n", ""},
		{usual + "allowusers root\nallowusers admin\n", "AllowUsers of sshd_config leaves out ds4relay: add it"},
		{usual + "allowgroups ssh\n", "AllowGroups of sshd_config leaves out ds4relay"},
		{usual + "denyusers *\n", "DenyUsers of sshd_config has ds4relay"},
		{usual + "denygroups games\n", ""},
		{strings.Replace(usual, "pubkeyauthentication yes", "pubkeyauthentication no", 1), "PubkeyAuthentication of"},
		{strings.Replace(usual, ".ssh/authorized_keys .ssh/authorized_keys2", "/etc/ssh/keys/%u", 1),
			"AuthorizedKeysFile of"},
		{strings.Replace(usual, ".ssh/authorized_keys .ssh/authorized_keys2", "%h/.ssh/authorized_keys", 1), ""},
		{strings.Replace(usual, "methods any", "methods publickey,keyboard-interactive", 1), "AuthenticationMethods of"},
		{strings.Replace(usual, "methods any", "methods publickey", 1), ""},
		{strings.Replace(usual, "ed25519", "ecdsa", 1), "HostKey of sshd_config has no ed25519 key"},
	} {
		var said []string
		for _, reason := range ShutOut(c.text) {
			said = append(said, reason.Error())
		}
		got := strings.Join(said, "\n")
		if c.want == "" && got != "" || !strings.HasPrefix(got, c.want) || len(said) > 1 {
			t.Errorf("%q: %q, want %q", c.text, got, c.want)
		}
	}
}
