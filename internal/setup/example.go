//go:build !openwrt

package setup

import (
	"strings"

	"github.com/ds4relay/ds4relay/internal/uci"
)

// example is what the file says that the package installs; comments do not count. Nobody has written it, so setup
// begins anew.
const example = `config relay 'home'
	option enabled '0'
	option role 'vps'
	option ipaddr '198.51.100.144'
	option ip6addr '2001:db8:6ef9::/64'
	option peeraddr '2001:db8:fdd2::/64'
	list keep 'tcp:22'

config forward 'web'
	option relay 'home'
	option name 'Web server'
	option proto 'tcp'
	option src_dport '443'
	option dest_ip '192.168.1.210'
`

// header begins a file that setup writes.
const header = `# Written by ` + "`ds4relay setup`" + `; you may change it. All options: man 5 ds4relay.
# The home sends its forwards to this VPS by itself. ` + "`ds4relay check`" + ` reports every mistake in this file.
`

// said is what a file says, without lines, for comparison.
func said(file *uci.File) string {
	var b strings.Builder
	for _, s := range file.Sections {
		b.WriteString(s.Type + " " + s.Name + "\n")
		for _, o := range s.Options {
			for _, v := range o.Values {
				b.WriteString("\t" + o.Name + " " + v.Text + "\n")
			}
		}
	}
	return b.String()
}

// untouched reports whether a file is the package's, or says nothing.
func untouched(file *uci.File) bool {
	packaged, err := uci.Parse("example", []byte(example))
	return err == nil && (len(file.Sections) == 0 || said(file) == said(packaged))
}
