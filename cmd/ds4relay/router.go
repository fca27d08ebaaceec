//go:build openwrt

package main

import "github.com/ds4relay/ds4relay/internal/config"

// hostCommands are those that a router does not have.
func (a *app) hostCommands() map[string]func([]string) error { return nil }

// neighbours: OpenWrt's own parts are told what they have to know (package openwrt).
func (a *app) neighbours([]*config.Relay) []string { return nil }

// announce: ubus has no listeners for it.
func (a *app) announce() {}
