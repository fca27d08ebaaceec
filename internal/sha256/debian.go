//go:build !openwrt

package sha256

import "crypto/sha256"

// Sum is the checksum of data.
func Sum(data []byte) [32]byte { return sha256.Sum256(data) }
