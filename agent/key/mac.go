// SPDX-License-Identifier: Apache-2.0

package key

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// raw is a key of HMAC-SHA-256, as long as its output (RFC 2104 section 3).
type raw [sha256.Size]byte

// block is what HMAC-SHA-256 (RFC 2104) hashes: the padded key and the message. It
// lives on the stack: crypto/hmac allocates half a kilobyte for each key, and a key
// per session and direction has to stay at 32 bytes.
type block [sha256.BlockSize + wire.MaxFrame]byte

// message returns where the message goes.
func (b *block) message() []byte { return b[sha256.BlockSize:] }

// sum returns the HMAC of the first n bytes of the message, which are lost.
func (b *block) sum(k *raw, n int) [sha256.Size]byte {
	b.pad(k, &ipad)
	inner := sha256.Sum256(b[:sha256.BlockSize+n])
	b.pad(k, &opad)
	copy(b.message(), inner[:])
	return sha256.Sum256(b[:sha256.BlockSize+sha256.Size])
}

// The pads of RFC 2104 section 2.
var (
	ipad = [sha256.BlockSize]byte(bytes.Repeat([]byte{0x36}, sha256.BlockSize))
	opad = [sha256.BlockSize]byte(bytes.Repeat([]byte{0x5c}, sha256.BlockSize))
)

// pad puts the key, filled up with zeros, xor a pad in front of the message.
func (b *block) pad(k *raw, with *[sha256.BlockSize]byte) {
	subtle.XORBytes(b[:], k[:], with[:])
	copy(b[len(k):sha256.BlockSize], with[:])
}

// frameMAC is the MAC of an encoded frame, whose own MAC field counts as zero.
func frameMAC(k *raw, frame []byte) [wire.MACSize]byte {
	var b block
	message := b.message()
	copy(message, frame)
	clear(message[wire.OffsetMAC:][:wire.MACSize])
	sum := b.sum(k, len(frame))
	return [wire.MACSize]byte(sum[:])
}

// seal puts the MAC and how it was made into an encoded frame.
func seal(k *raw, epoch byte, frame []byte) {
	if !isFrame(frame) {
		panic("key: seal of bytes that are not a frame")
	}
	frame[wire.OffsetAuth], frame[wire.OffsetEpoch] = wire.AuthHMAC, epoch
	sum := frameMAC(k, frame)
	copy(frame[wire.OffsetMAC:], sum[:])
}

// opens reports whether the MAC of frame was made with k. The comparison takes
// the same time wherever the two differ.
func opens(k *raw, epoch byte, frame []byte) bool {
	if !isFrame(frame) || frame[wire.OffsetAuth] != wire.AuthHMAC || frame[wire.OffsetEpoch] != epoch {
		return false
	}
	sum := frameMAC(k, frame)
	return subtle.ConstantTimeCompare(sum[:], frame[wire.OffsetMAC:][:wire.MACSize]) == 1
}

func isFrame(b []byte) bool { return len(b) >= wire.HeaderSize && len(b) <= wire.MaxFrame }

// typeOf returns the type of an encoded frame, 0 when it is too short for one.
func typeOf(frame []byte) wire.Type {
	if !isFrame(frame) {
		return 0
	}
	return wire.Type(frame[wire.OffsetType])
}

// extract makes the key that all others come from (HKDF-Extract, RFC 5869
// section 2.2).
func extract(secret []byte) raw {
	prk, err := hkdf.Extract(sha256.New, secret, []byte("pgconmgr heartbeat"))
	if err != nil {
		panic("key: " + err.Error()) // only for a secret shorter than 112 bits, in FIPS mode
	}
	return raw(prk)
}

// expand makes the key for one purpose (HKDF-Expand, RFC 5869 section 2.3).
func expand(prk *raw, info []byte) raw {
	k, err := hkdf.Expand(sha256.New, prk[:], string(info), len(raw{}))
	if err != nil {
		panic("key: " + err.Error()) // only for more than 255 blocks
	}
	return raw(k)
}
