package main

import (
	"bytes"
	"testing"

	"github.com/ds4relay/ds4relay/internal/proxyd/proxydtest"
)

func TestForeignText(t *testing.T) {
	call := func(args []string, out *bytes.Buffer) int { return run(args, out, out) }
	proxydtest.ForeignText(t, call, []string{"--status"}, []string{"--status"})
}
