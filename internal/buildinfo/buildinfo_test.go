//go:build !openwrt

package buildinfo

import (
	"regexp"
	"runtime/debug"
	"testing"
)

func TestLine(t *testing.T) {
	want := regexp.MustCompile(`^ds4relay 1\.2\.3 \(commit 1a2b3c4d5e6f, 2026-11-30\), go\S+( X:\S+)? linux/[a-z0-9]+$`)
	if got := Line("ds4relay", "1.2.3", "1a2b3c4d5e6f, 2026-11-30"); !want.MatchString(got) {
		t.Errorf("%q", got)
	}
	want = regexp.MustCompile(`^ds4relay dev \((commit|module) [^()]+\), go`)
	if got := Line("ds4relay", "dev", ""); !want.MatchString(got) {
		t.Errorf("%q", got)
	}
}

func TestDescribe(t *testing.T) {
	build := func(version string, settings ...string) *debug.BuildInfo {
		info := &debug.BuildInfo{Main: debug.Module{Version: version}}
		for i := 0; i < len(settings); i += 2 {
			info.Settings = append(info.Settings, debug.BuildSetting{Key: settings[i], Value: settings[i+1]})
		}
		return info
	}
	const revision, time = "1a2b3c4d5e6f708192a3b4c5d6e7f80912a3b4c5", "2026-11-30T12:00:00Z"
	for _, c := range []struct {
		info *debug.BuildInfo
		want string
	}{
		{build("(devel)"), "commit unknown"},
		{build(""), "commit unknown"},
		{build("v1.2.3"), "module v1.2.3"},
		{build("v1.2.4-0.20261130120000-1a2b3c4d5e6f", "vcs.revision", revision, "vcs.time", time, "vcs.modified",
			"false"), "commit 1a2b3c4d5e6f, 2026-11-30"},
		{build("(devel)", "vcs.revision", revision, "vcs.time", time, "vcs.modified", "true"),
			"commit 1a2b3c4d5e6f-dirty, 2026-11-30"},
	} {
		if got := describe(c.info); got != c.want {
			t.Errorf("%+v: %q, want %q", c.info, got, c.want)
		}
	}
}
