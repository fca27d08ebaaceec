package proxyd

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/proxy"
	"github.com/ds4relay/ds4relay/internal/units"
)

// Report is the status of a running service.
type Report struct {
	PID     int            `json:"pid"`
	Version string         `json:"version"`
	Proxies []proxy.Status `json:"proxies"`
	Former  []Report       `json:"former,omitempty"` // earlier processes whose sessions are still open
}

// Entry is a proxy that is in the configuration or still has sessions.
type Entry struct {
	proxy.Status
	Running bool   `json:"running"`
	Stale   bool   `json:"stale,omitempty"` // it runs with other settings than in the configuration
	PID     int    `json:"pid,omitempty"`
	Version string `json:"version,omitempty"`
}

// Entries compares the running proxies with the configuration; report is nil if the service does not run.
func Entries(report *Report, proxies []*config.Proxy) []Entry {
	entries := []Entry{}
	wanted := map[string]string{}
	for _, p := range proxies {
		wanted[p.Section] = p.String()
	}
	var all []Report
	if report != nil {
		all = append([]Report{*report}, report.Former...)
	}
	for _, r := range all {
		for _, s := range r.Proxies {
			e := Entry{Status: s, Running: true, PID: r.PID, Version: r.Version}
			if !s.Draining {
				e.Stale = wanted[s.Name] != s.Proxy
				delete(wanted, s.Name)
			}
			entries = append(entries, e)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		entries = append(entries, Entry{Status: proxy.Status{Name: name, Proxy: wanted[name], Targets: []string{}}})
	}
	return entries
}

// OK reports whether the proxies are as the configuration says.
func OK(entries []Entry) bool {
	return !slices.ContainsFunc(entries, func(e Entry) bool { return !e.Running || e.Stale })
}

// Print writes proxies as text.
func Print(w io.Writer, entries []Entry) {
	for i, e := range entries {
		if i > 0 {
			fmt.Fprintln(w)
		}
		condition := "running"
		switch {
		case !e.Running:
			condition = "not running"
		case e.Draining:
			condition = fmt.Sprintf("draining (process %d, version %s)", e.PID, e.Version)
		case e.Stale:
			condition = "running otherwise than the configuration says, until a reload"
		}
		fmt.Fprintf(w, "proxy %s: %s\n", e.Name, condition)
		fmt.Fprintf(w, "  from and to     %s\n", e.Proxy)
		if !e.Running {
			continue
		}
		fmt.Fprintf(w, "  sessions        %d open, %d in all\n", e.Sessions, e.Total)
		fmt.Fprintf(w, "  traffic         %s to the target, %s to clients\n", units.Bytes(e.BytesUp),
			units.Bytes(e.BytesDown))
		var refused []string
		for _, reason := range slices.Sorted(maps.Keys(e.Refused)) {
			refused = append(refused, fmt.Sprintf("%d (%s)", e.Refused[reason], reason))
		}
		if e.Evicted > 0 {
			refused = append(refused, fmt.Sprintf("%d sessions made room", e.Evicted))
		}
		if e.Dropped > 0 {
			refused = append(refused, fmt.Sprintf("%d datagrams dropped", e.Dropped))
		}
		if len(refused) > 0 {
			fmt.Fprintf(w, "  refused         %s\n", strings.Join(refused, ", "))
		}
		if e.ErrorTime != nil {
			fmt.Fprintf(w, "  last error      %s: %s\n", e.ErrorTime.Format(time.DateTime), e.LastError)
		}
	}
}
