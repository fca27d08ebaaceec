//go:build !openwrt

package cloud

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
)

// Service is where clouds have their metadata: a link-local address (RFC 3927), which no router passes on.
const Service = "http://169.254.169.254"

// Limit is how long one need wait: on a cloud, the service is next to the machine; elsewhere nobody answers.
const Limit = time.Second

// maxAnswer is how much of an answer is read, in bytes.
const maxAnswer = 16 << 10

// questions are asked as the clouds document it. Oracle's service does not know the public address.
var questions = []func(*asker) string{aws, google, azure, azureStandard}

// Public asks the metadata service for the machine's public IPv4 address. It is not valid if nobody answers before ctx
// is done, or with something else.
func Public(ctx context.Context, service string) netip.Addr {
	answers := make([]netip.Addr, len(questions))
	var wait sync.WaitGroup
	for i, question := range questions {
		wait.Add(1)
		go func() {
			defer wait.Done()
			addr, err := netip.ParseAddr(strings.TrimSpace(question(newAsker(ctx, service))))
			if err == nil && addr.Is4() && !config.Reserved(netip.PrefixFrom(addr, 32)) {
				answers[i] = addr
			}
		}()
	}
	wait.Wait()
	for _, addr := range answers {
		if addr.IsValid() {
			return addr
		}
	}
	return netip.Addr{}
}

// asker asks one service.
type asker struct {
	ctx     context.Context
	service string
	client  http.Client
}

func newAsker(ctx context.Context, service string) *asker {
	return &asker{ctx, service, http.Client{
		// Nobody else may hear the question: no proxy, and no other place.
		Transport:     &http.Transport{Proxy: nil, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// ask returns the answer with its headers, or "".
func (a *asker) ask(method, path string, header ...string) (string, http.Header) {
	request, err := http.NewRequestWithContext(a.ctx, method, a.service+path, nil)
	if err != nil {
		return "", nil
	}
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := a.client.Do(request)
	if err != nil {
		return "", nil
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil || response.StatusCode != http.StatusOK {
		return "", nil
	}
	return string(data), response.Header
}

// aws asks in two steps (IMDSv2), since the first version is often switched off.
func aws(a *asker) string {
	token, _ := a.ask(http.MethodPut, "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds", "60")
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return ""
	}
	answer, _ := a.ask(http.MethodGet, "/latest/meta-data/public-ipv4", "X-aws-ec2-metadata-token", token)
	return answer
}

func google(a *asker) string {
	answer, header := a.ask(http.MethodGet,
		"/computeMetadata/v1/instance/network-interfaces/0/access-configs/0/external-ip", "Metadata-Flavor", "Google")
	if header.Get("Metadata-Flavor") != "Google" {
		return ""
	}
	return answer
}

// azure knows addresses of the SKU Basic.
func azure(a *asker) string {
	answer, _ := a.ask(http.MethodGet, "/metadata/instance/network/interface/0/ipv4/ipAddress/0/publicIpAddress"+
		"?api-version=2021-02-01&format=text", "Metadata", "true")
	return answer
}

// azureStandard knows those of the SKU Standard.
func azureStandard(a *asker) string {
	answer, _ := a.ask(http.MethodGet, "/metadata/loadbalancer?api-version=2020-10-01", "Metadata", "true")
	var said struct {
		LoadBalancer struct {
			Addresses []struct {
				Public string `json:"frontendIpAddress"`
			} `json:"publicIpAddresses"`
		} `json:"loadbalancer"`
	}
	if json.Unmarshal([]byte(answer), &said) != nil || len(said.LoadBalancer.Addresses) == 0 {
		return ""
	}
	return said.LoadBalancer.Addresses[0].Public
}
