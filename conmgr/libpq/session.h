/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One session of conmgr's console, seen from the client. Pure: bytes in, phases
 * out; no socket, no clock, no memory of its own. The protocol is PostgreSQL's,
 * version 3.0; commands and payloads stand in the package comment of conmgr.
 *
 *   GREETING --ready--> TARGETING --+-- a row, ready --> [LISTING] --> BOUND
 *      |                    |       |                                    |
 *      |                    |       +-- 58C01, ready --> [LISTING] --> REFUSED
 *      |                    |                                            |
 *      +--------------------+-- error, nonsense, end of stream ----------+--> ENDED
 *
 * LISTING only when a list is wanted. In BOUND an error, or the end of the stream,
 * says that the instance or conmgr is lost; restart tells that conmgr will be back.
 */
#ifndef CM_SESSION_H
#define CM_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "instance.h"

enum session_phase {
	SESSION_GREETING,
	SESSION_TARGETING,
	SESSION_LISTING,
	SESSION_BOUND,
	SESSION_REFUSED,
	SESSION_ENDED,
};

/* How much of a message is kept: the rows and errors of conmgr fit by far. */
#define SESSION_BODY_SIZE 1024

struct session {
	enum session_phase phase;
	bool restart;               /* conmgr said that it restarts */
	bool served;                /* a row of TARGET came */
	bool refused;               /* no instance, or not this one, has the attribute */
	struct instance_list *list; /* NULL: not wanted; the caller's */
	const struct address *want; /* NULL: any; the caller's */

	/* The message being received. */
	unsigned char head[5]; /* type and length */
	unsigned head_len;
	uint32_t left; /* of the body */
	uint32_t kept;
	char body[SESSION_BODY_SIZE + 1];
};

/* The longest request of session_request. */
#define SESSION_REQUEST_SIZE 256

/*
 * Writes what opens a session and asks for an instance with the attribute target:
 * all instances as a list, or only the one with the number when that is not
 * negative. Returns the length, 0 when target is no word.
 */
size_t session_request(char buf[SESSION_REQUEST_SIZE], const char *target, int number);

/*
 * Begins a session. With a list, every instance ends up there; that is for a request
 * without a number. With an address, an instance elsewhere is not taken: conmgr may
 * have another configuration by now.
 */
void session_begin(struct session *s, struct instance_list *list, const struct address *want);

/* Takes what was received. */
void session_feed(struct session *s, const char *bytes, size_t len);

/* Takes the end of the stream. */
void session_end(struct session *s);

/* Whether there is nothing more to wait for before the answer is known. */
bool session_answered(const struct session *s);

#endif
