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
		{usual + "allowusers root\nallowusers admin\n", "sshd_config: AllowUsers keeps the home out; add ds4relay"},
		{usual + "allowgroups ssh\n", "sshd_config: AllowGroups keeps"},
		{usual + "denyusers *\n", "sshd_config: DenyUsers keeps"},
		{usual + "denygroups games\n", ""},
		{strings.Replace(usual, "pubkeyauthentication yes", "pubkeyauthentication no", 1),
			"sshd_config: PubkeyAuthentication keeps the home out; add the lines `Match User ds4relay` and " +
				"`PubkeyAuthentication yes` before the first line `Match`"},
		{strings.Replace(usual, ".ssh/authorized_keys .ssh/authorized_keys2", "/etc/ssh/keys/%u", 1),
			"sshd_config: AuthorizedKeysFile keeps"},
		{strings.Replace(usual, ".ssh/authorized_keys .ssh/authorized_keys2", "%h/.ssh/authorized_keys", 1), ""},
		{strings.Replace(usual, "methods any", "methods publickey,keyboard-interactive", 1),
			"sshd_config: AuthenticationMethods keeps"},
		{strings.Replace(usual, "methods any", "methods publickey", 1), ""},
		{usual + "forcecommand none\nchrootdirectory none\n", ""},
		{usual + "forcecommand internal-sftp -l INFO\n", "sshd_config: ForceCommand keeps"},
		{usual + "chrootdirectory /srv/%u\n", "sshd_config: ChrootDirectory keeps"},
		{usual + "pubkeyacceptedalgorithms rsa-sha2-512,ssh-ed25519\nhostkeyalgorithms ssh-ed25519\n", ""},
		{usual + "pubkeyacceptedalgorithms rsa-sha2-512,ssh-ed25519-cert-v01@openssh.com\n",
			"sshd_config: PubkeyAcceptedAlgorithms keeps"},
		{usual + "hostkeyalgorithms rsa-sha2-512\n", "sshd_config: HostKeyAlgorithms leaves out ssh-ed25519"},
		{strings.Replace(usual, "ed25519", "ecdsa", 1), "sshd_config: HostKey names no ed25519 key"},
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
