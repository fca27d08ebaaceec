//go:build openwrt

package state

// Direct reports whether this program gives nft's sets their elements itself. On OpenWrt nft does, in the transaction
// of the rules: a smaller program is worth more there.
const Direct = false
