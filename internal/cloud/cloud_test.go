//go:build !openwrt

package cloud

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestPublic: each cloud's service as it is documented, with what it refuses. No proxy of the environment is asked.
func TestPublic(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("a proxy was asked for %s", r.URL)
	}))
	defer proxy.Close()
	for _, name := range []string{"http_proxy", "HTTP_PROXY"} {
		t.Setenv(name, proxy.URL)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	silent, hush := context.WithCancel(ctx)
	defer hush()
	needs := func(method, path, name, value, answer string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Method != method || r.URL.RequestURI() != path || r.Header.Get(name) != value {
				http.Error(w, "no", http.StatusUnauthorized)
				return
			}
			if name == "Metadata-Flavor" {
				w.Header().Set("Metadata-Flavor", "Google")
			}
			_, _ = w.Write([]byte(answer))
		}
	}
	awsService := func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			needs("PUT", "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds", "60", "AQAE-token==")(w, r)
			return
		}
		needs("GET", "/latest/meta-data/public-ipv4", "X-aws-ec2-metadata-token", "AQAE-token==",
			"198.51.100.20")(w, r)
	}
	everything := func(answer string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Metadata-Flavor", "Google")
			_, _ = w.Write([]byte(answer))
		}
	}
	for name, c := range map[string]struct {
		service http.HandlerFunc
		want    string
	}{
		"AWS": {awsService, "198.51.100.20"},
		"Google": {needs("GET", "/computeMetadata/v1/instance/network-interfaces/0/access-configs/0/external-ip",
			"Metadata-Flavor", "Google", "198.51.100.21\n"), "198.51.100.21"},
		"Azure": {needs("GET", "/metadata/instance/network/interface/0/ipv4/ipAddress/0/publicIpAddress"+
			"?api-version=2021-02-01&format=text", "Metadata", "true", "198.51.100.22"), "198.51.100.22"},
		"Azure, SKU Standard": {needs("GET", "/metadata/loadbalancer?api-version=2020-10-01", "Metadata", "true",
			`{"loadbalancer":{"publicIpAddresses":[{"frontendIpAddress":"198.51.100.23","privateIpAddress":"10.0.0.4"}],`+
				`"inboundRules":[]}}`), "198.51.100.23"},
		"Oracle": {needs("GET", "/opc/v2/vnics/", "Authorization", "Bearer Oracle", `[{"privateIp":"10.0.0.5"}]`),
			""},
		"somebody else, who knows everything": {everything("<html>hello</html>"), ""},
		"a private address":                   {everything("10.0.0.5"), ""},
		"an IPv6 address":                     {everything("2001:db8::1"), ""},
		"without end": {func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = w.Write([]byte(strings.Repeat("1", 4096)))
			}
		}, ""},
		"silent": {func(_ http.ResponseWriter, r *http.Request) {
			hush() // the time is over
			<-r.Context().Done()
		}, ""},
		"elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/x" {
				_, _ = w.Write([]byte("198.51.100.99"))
				return
			}
			http.Redirect(w, r, "/x", http.StatusTemporaryRedirect)
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(c.service)
			defer server.Close()
			ctx := ctx
			if name == "silent" {
				ctx = silent
			}
			// It is 127.0.0.1 to the kernel, but to package net/http an address for which it would ask a proxy.
			service := strings.Replace(server.URL, "127.0.0.1", "0.0.0.0", 1)
			got := Public(ctx, service)
			if want, _ := netip.ParseAddr(c.want); got != want {
				t.Errorf("%v, want %v", got, want)
			}
		})
	}
	if got := Public(ctx, "http://127.0.0.1:1"); got.IsValid() {
		t.Error("nobody has said", got)
	}
}
