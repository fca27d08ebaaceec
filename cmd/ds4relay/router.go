//go:build openwrt

package main

// hostCommands are those that a router does not have.
func (a *app) hostCommands() map[string]func([]string) error { return nil }
