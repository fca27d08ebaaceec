//go:build !openwrt

package traffic

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ds4relay/ds4relay/internal/config"
)

// TestService: it replaces the socket of a process that is gone, says why it has no totals, and there is only one.
func TestService(t *testing.T) {
	run := t.TempDir()
	if totals, err := Ask(run); totals != nil || err != nil {
		t.Errorf("without a service: %v %v", totals, err)
	}
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(run, SocketName), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	left.Close()
	if totals, err := Ask(run); totals != nil || err != nil {
		t.Errorf("after one that was killed: %v %v", totals, err)
	}

	ctx, stop := context.WithCancel(t.Context())
	options := Options{Run: run, File: filepath.Join(run, "config"), Say: func(text string) { t.Error(text) },
		Load: func() ([]*config.Relay, error) { return nil, errors.New("there is no file") }}
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, options) }()
	for deadline := time.Now().Add(time.Minute); err == nil; time.Sleep(time.Millisecond) {
		if _, err = Ask(run); time.Now().After(deadline) {
			t.Fatal("the service does not answer")
		}
	}
	if !strings.Contains(err.Error(), "there is no file") {
		t.Errorf("without a configuration: %v", err)
	}
	if err := Run(ctx, options); err == nil || !strings.Contains(err.Error(), "another process does it") {
		t.Errorf("a second service: %v", err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if totals, err := Ask(run); totals != nil || err != nil {
		t.Errorf("after its end: %v %v", totals, err)
	}
}
