/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mark of a conmgr: the abstract Unix socket \0pgconmgr:PORT beside its TCP
 * port. One system call tells that a port is no conmgr's, and the kernel says
 * who made the socket, so that nobody who grabs the port can hand out instances.
 */
#ifndef CM_MARK_H
#define CM_MARK_H

#include <stdint.h>

#include "own.h"
#include "session.h"

/*
 * Milliseconds that one connect may spend on conmgr, all questions together. The
 * tests are built with more: a sanitizer makes a slow machine of a busy one.
 */
#ifndef MARK_PATIENCE
#define MARK_PATIENCE 200
#endif

/* The monotonic clock, in milliseconds. */
int64_t mark_clock(void);

/*
 * Connects to the mark of a port; own_none when there is none, its owner is not
 * trusted, or its queue is full until the deadline (mark_clock()).
 */
struct own mark_open(uint16_t port, int64_t deadline);

/* Sends a request. It fits the buffer of a new socket; false on trouble. */
bool mark_send(const struct own *o, const char *target, int number);

/*
 * Takes what has come, up to a bound, without waiting. The end of the stream and
 * errors end the session.
 */
void mark_receive(const struct own *o, struct session *s);

/*
 * Opens a session that has begun (session_begin), asks, and waits for the answer until
 * the deadline. The session is BOUND or REFUSED then and the socket open; or it is
 * ENDED and there is none.
 */
struct own mark_ask(uint16_t port, struct session *s, const char *target, int number, int64_t deadline);

#endif
