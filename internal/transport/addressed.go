//go:build !openwrt

package transport

import (
	"crypto/hmac"

	"golang.org/x/crypto/blake2s"
)

// Addressed reports whether an initiation, a UDP payload, is made for the end with this public key: its field mac1 is a
// hash with the key of whom it is for. Other payloads count as if they were.
func (k Key) Addressed(payload []byte) bool {
	if len(payload) != initiationSize || payload[0] != Initiation {
		return true
	}
	key := blake2s.Sum256(append([]byte("mac1----"), k[:]...))
	mac, err := blake2s.New128(key[:])
	if err != nil {
		return true
	}
	mac.Write(payload[:mac1Offset])
	return hmac.Equal(mac.Sum(nil), payload[mac1Offset:mac1Offset+mac1Size])
}
