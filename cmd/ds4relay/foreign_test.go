//go:build !openwrt && !lab

package main

import (
	"bytes"
	"testing"

	"github.com/ds4relay/ds4relay/internal/proxyd/proxydtest"
)

func TestForeignText(t *testing.T) {
	run := func(args []string, out *bytes.Buffer) int { return newApp(out, out).main(args) }
	proxydtest.ForeignText(t, run, []string{"proxy", "--status"}, []string{"check"})
}
