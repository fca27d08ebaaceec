package kernel

import "testing"

func TestMistakesTunnels(t *testing.T) {
	for release, want := range map[string]bool{
		"5.15.0-171-generic": false, "6.1.0-57-amd64": false, "6.12.117+deb13-amd64": false, "6.19.8": false,
		"7.0.0-44-generic": true, "7.2.13+deb14-amd64": true, "7.3.4+deb13-amd64": true, "10.1.0": true, "": false,
	} {
		if got := mistakesTunnels(release); got != want {
			t.Errorf("%s: %v, want %v", release, got, want)
		}
	}
}
