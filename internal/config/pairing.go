//go:build !openwrt

package config

// pairing says whether this program can be a VPS that homes are paired with.
const pairing = true
