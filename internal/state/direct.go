//go:build !openwrt

package state

// Direct reports whether this program gives nft's sets their elements itself, in a transaction after nft's, which takes
// much longer for many.
const Direct = true
