//go:build openwrt

package kernel

import (
	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/message"
)

// Unheard returns nil: a router has no room for it, and the check routed of the doctor says whether answers arrive.
func Unheard(*config.Relay, string) *message.Text { return nil }

// Active is for a VPS.
func Active(*config.Relay) *bool { return nil }

func standbyDevice(*config.Relay) string { return "" }
