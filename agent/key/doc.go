// SPDX-License-Identifier: Apache-2.0

// Package key proves who sent a heartbeat frame: the keys of a key file, the keys
// of a session that are derived from them, the window against replay, and the
// cookie against forged addresses on UDP. It is pure: it reads no file, clock or
// random source (see agent/key/keyfile), and nothing that a peer sends makes it
// panic, allocate or keep anything.
//
// # Key file
//
//	# a comment; blank lines do not count
//	id  secret  [client ...]
//
// The id is 1 to 16 characters of A-Z a-z 0-9 . _ -, and is no secret. The secret
// is 64 to 256 hex digits (32 to 128 bytes) and has to be random: there is no
// defence against guessing a password from one recorded HELLO. The clients are
// addresses and CIDR blocks; with any, a watchdog takes the key only from conmgrs
// at those, so that a stolen file arms only the addresses of its host. Without,
// from everywhere. At most 64 keys and 64 KiB. The same file serves both ends; a
// conmgr uses its first line and ignores the clients.
//
// A key is shared: who holds it can play both ends of the sessions that use it. Give
// each group of client hosts a key of its own, and bind it to their addresses.
//
// # Which key authenticates which frame
//
//	prk      = HKDF-Extract("pgconmgr heartbeat", secret)                 RFC 5869
//	info     = length of label (1) · label · protocol version (1) · key id (16)
//	session  = info · conmgr id (16) · watchdog id (16) · HELLO's nonce (16) ·
//	           WELCOME's nonce (16) · session id (8)
//	key      = HKDF-Expand(prk, info or session, 32)
//
//	frame                 label                 derived from
//	HELLO                 HELLO                 info
//	REFUSE                REFUSE                info
//	BEAT BYE REGISTER     conmgr to watchdog    session
//	WELCOME BEAT BYE      watchdog to conmgr    session
//	COOKIE                none: auth is 0
//
// The MAC is HMAC-SHA-256 over the whole frame with its MAC field zero, cut to 16
// bytes. Auth is 1 and epoch 0 in every sealed frame; Seal sets both.
//
//   - HELLO proves the secret, and covers the timers and the cookie. A recorded one
//     that is sent again gets no further than a WELCOME: without the session's key
//     nobody arms it.
//   - WELCOME is the first frame under the session's key. Its own nonce is in it, so
//     conmgr derives the keys from it and then verifies it. Only who knows the
//     secret and has seen this very HELLO can have made it.
//   - REFUSE is sealed when the watchdog has verified the HELLO, and holds the
//     HELLO's nonce, so that an old one fits nowhere. It is not sealed when the two
//     have no key in common. An unsealed REFUSE is a hint for the log of a conmgr
//     that has a key: it must not end the attempt, or anybody could.
//   - REFUSE with CodeSession answers a BEAT of a session that the watchdog does not
//     have, or not any more: it has no keys to seal it with. It holds the session id
//     and the number of the BEAT, and a conmgr that hears the watchdog ignores it.
//     The worst that one who reads the path reaches with it is that a conmgr that
//     has heard nothing for 1.25 intervals dials anew; no deadline moves.
//   - COOKIE comes before the watchdog has spent anything on the sender, so nobody
//     can authenticate it. It holds the HELLO's nonce; the worst that one who reads
//     the path reaches with it is another HELLO.
//   - The two directions have different keys: a frame sent back to its sender does
//     not verify.
//   - No downgrade: with a key, a frame with auth 0 other than COOKIE and REFUSE is
//     dropped on both transports.
//
// # Receiving
//
// The watchdog, for a HELLO on UDP: [Cookies.Check] first (no memory, no search),
// then [Ring.OpenHello], then its other bounds, then [NewSession]. A HELLO on TCP
// has proven its address by the handshake. What the errors mean for the answer:
//
//	ErrMissing, ErrOwnNone, ErrUnknown, ErrSecret   REFUSE, CodeKey, not sealed
//	ErrAddress                                      REFUSE, CodeAddress, sealed
//
// The watchdog's log tells the four of CodeKey apart; the stranger cannot, so that
// he cannot try out ids. conmgr says what it can know by itself: CodeKey means "a key
// is required" when it has none, and "the watchdog does not accept key X, its log
// says why" when it has one; a WELCOME with auth 0 to a conmgr with a key means "the
// watchdog has no key file".
//
// conmgr, for a WELCOME: compare Echo with its nonce and Key with its key's id
// first, which costs nothing; then [NewSession] and [Session.Accept]; keep the
// Session only when that succeeds. All other frames of both ends: [Session.Accept],
// and only then is the frame given to the machine. A HELLO that is repeated because
// the WELCOME was lost is opened with the same key and answered under the same
// session keys, with the same nonce.
//
// Accept looks up the sequence number, verifies the MAC, and marks the number, in
// this order. It takes frames up to 127 behind the highest, each once.
//
// # Changing a key without losing a session
//
// A reload makes a new [Ring]. A session goes on with its keys as long as
// [Ring.Renew] finds its key id with the same secret (and, on the watchdog,
// [Key.Allows] its address); else it must end. So:
//
//  1. On each database host, add the new key as a further line and reload
//     pgwatchdog. Both keys are accepted; nothing else changes.
//  2. On each client host, put the new key's line first, keep the old one below it,
//     and have conmgr load the file. Where it is loaded by cm_ctl restart, that
//     begins all sessions anew with the new key while the watchdogs wait. Where it
//     is loaded by a running conmgr, running sessions go on with the old key and
//     new ones use the new key: there, cm_ctl restart later, at leisure.
//  3. Check on the watchdogs that no session uses the old key. Remove its line on
//     the database hosts and reload, then on the client hosts. Had a session still
//     used it, it would end now.
//
// The first two must not change places: a watchdog refuses a key that it does not
// know yet. A conmgr that is forgotten in step 2 goes on with the old key, which is
// still accepted, until step 3.
//
// Reusing an id for another secret is removing the old key at once: step 2 would be
// too late for its sessions. A new key has a new id.
package key
