// Package resolve looks up DNS names.
package resolve

import "time"

// limit bounds one look-up.
const limit = 10 * time.Second
