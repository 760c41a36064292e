// SPDX-License-Identifier: Apache-2.0

// Package wire is the codec of the heartbeat between conmgr and pgwatchdog. It
// appends frames to and parses them from byte slices and does nothing else: no
// socket, no clock, no key. Both transports carry the same frames: UDP one per
// datagram, TCP each behind its length as two bytes (see [AppendPrefixed]).
//
// All numbers are big-endian. Every frame starts with the header:
//
//	 0               1               2               3
//	+-------+-------+-------+-------+
//	| magic 0x4342  | ver=1 | type  |   0
//	+-------+-------+-------+-------+
//	| flags         | auth  | epoch |   4   auth: 0 none, 1 HMAC-SHA-256/128
//	+-------+-------+-------+-------+       epoch: which of the session's keys
//	| session id (8)                |   8   chosen by the watchdog, 0 in HELLO
//	+-------------------------------+
//	| sequence number (8)           |  16   per sender and session, from 1
//	+-------------------------------+
//	| MAC (16)                      |  24   zero when auth is 0; covers the whole
//	+-------------------------------+       frame with these bytes zero
//	| body                          |  40
//
// Bodies, with the offset inside the body and the size in bytes:
//
//	HELLO     conmgr id 0/16 · nonce 16/16 · interval ms 32/4 · timeout ms 36/4 ·
//	          incarnation 40/8 · resumed session 48/8 · key id 56/16 · cookie 72/32
//	WELCOME   watchdog id 0/16 · nonce 16/16 · interval ms 32/4 · timeout ms 36/4 ·
//	          incarnation 40/8 · key id 48/16 · HELLO's nonce 64/16
//	BEAT      ack 0/8 · ack delay µs 8/4 · lost 12/4 · received 16/4 · state 20/1 ·
//	          reason 21/1 · reserved 22/2 [· instance 24/48 when flag State is set]
//	BYE       kind 0/1 · reserved 1/3
//	REFUSE    code 0/2 · reserved 2/2 · limit 4/4 · nonce of the HELLO 8/16, or
//	          session id and sequence number of a BEAT of no session (UDP only)
//	COOKIE    cookie 0/32 · nonce of the HELLO 32/16               (UDP only)
//	REGISTER  count 0/2 · reserved 2/2 · entries of port 2, reserved 2, pid 4
//
//	instance  attribute 0/1 · status 1/1 · bits 2/1 (1 read-only default, 2 kills
//	          paused, 4 dry run) · reserved 3/1 · timeline 4/4 · WAL position 8/8 ·
//	          system identifier 16/8 · port 24/2 · reserved 26/6 ·
//	          postmaster start, µs since the Unix epoch 32/8 · generation 40/8
//
// Rules that keep old and new versions talking: reserved bytes are sent as zero
// and ignored; bytes behind the known body are ignored; an unknown type is
// [ErrType] and is skipped by the caller; another version is [ErrVersion] and is
// answered with REFUSE. Nothing that a peer sends makes this package panic or
// allocate.
package wire
