package main

import (
	"time"

	"github.com/ds4relay/ds4relay/internal/probe"
	"github.com/ds4relay/ds4relay/internal/reconcile"
)

// measurePaths measures the paths to the other ends, and returns the relays whose tunnels should get another MTU.
func measurePaths(m *reconcile.End) ([]string, error) {
	paths, err := m.Paths()
	if err != nil || len(paths) == 0 {
		return nil, err
	}
	if err := probe.MeasurePaths(paths, time.Now()); err != nil {
		return nil, err
	}
	return m.NotePaths(paths)
}
