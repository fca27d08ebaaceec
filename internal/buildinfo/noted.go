//go:build !openwrt

package buildinfo

import "runtime/debug"

// unknown is said of a program that was built outside git.
const unknown = "commit unknown"

// noted is the commit that `go build` has noted in a git checkout, or the version that `go install` was given.
func noted() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return unknown
	}
	return describe(info)
}

// describe writes what Go has noted in the same form as scripts/common.sh.
func describe(info *debug.BuildInfo) string {
	vcs := map[string]string{}
	for _, s := range info.Settings {
		vcs[s.Key] = s.Value
	}
	commit := vcs["vcs.revision"]
	if commit == "" {
		if v := info.Main.Version; v != "" && v != "(devel)" {
			return "module " + v
		}
		return unknown
	}
	commit = commit[:min(12, len(commit))]
	if vcs["vcs.modified"] == "true" {
		commit += "-dirty"
	}
	day := vcs["vcs.time"] // RFC 3339, in UTC
	return "commit " + commit + ", " + day[:min(len("2006-01-02"), len(day))]
}
