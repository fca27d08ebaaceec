package transport

import "filippo.io/edwards25519/field"

// Clamp makes a private key of 32 random bytes (RFC 7748 §5, decodeScalar25519).
func (s Secret) Clamp() Secret {
	s[0] &= 248
	s[31] = s[31]&127 | 64
	return s
}

// basePoint is the u-coordinate of Curve25519's base point (RFC 7748 §4.1), and a24 of its formulas (§5).
const (
	basePoint = 9
	a24       = 121665
)

// Public returns the public key of a private one (RFC 7748 §5, X25519). crypto/ecdh would do the same, and make a
// router's program larger by 160 kB.
func (s Secret) Public() Key {
	var base [32]byte
	base[0] = basePoint
	scalar := s.Clamp()
	var x1, x2, z2, x3, z3 field.Element
	// 32 bytes cannot be refused.
	_, _ = x1.SetBytes(base[:])
	x2.One()
	x3.Set(&x1)
	z3.One()
	swapped := 0
	for i := 254; i >= 0; i-- {
		bit := int(scalar[i/8]>>(i%8)) & 1
		x2.Swap(&x3, swapped^bit)
		z2.Swap(&z3, swapped^bit)
		swapped = bit
		var a, aa, b, bb, e, c, d, da, cb field.Element
		a.Add(&x2, &z2)
		aa.Square(&a)
		b.Subtract(&x2, &z2)
		bb.Square(&b)
		e.Subtract(&aa, &bb)
		c.Add(&x3, &z3)
		d.Subtract(&x3, &z3)
		da.Multiply(&d, &a)
		cb.Multiply(&c, &b)
		x3.Square(x3.Add(&da, &cb))
		z3.Multiply(&x1, z3.Square(z3.Subtract(&da, &cb)))
		x2.Multiply(&aa, &bb)
		z2.Multiply(&e, z2.Add(&aa, z2.Mult32(&e, a24)))
	}
	x2.Swap(&x3, swapped)
	z2.Swap(&z3, swapped)
	var public field.Element
	public.Multiply(&x2, z2.Invert(&z2))
	return Key(public.Bytes())
}
