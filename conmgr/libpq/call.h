/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What goes on inside a call of libpq: while the thread is in there for a guarded
 * connection, connect(2) asks the guard.
 */
#ifndef CM_CALL_H
#define CM_CALL_H

#include "guard.h"

/* Everything else is hidden. */
#define EXPORT __attribute__((visibility("default")))

/* Whether the thread is inside: libpq calls some of its own functions. */
bool call_nested(void);

/*
 * Enters libpq for a guard, or for a connection that has none (NULL). False inside
 * another call, where nothing changes.
 */
bool call_enter(struct guard *g);

/* Leaves libpq; takes what call_enter returned. */
void call_leave(bool entered);

/* Forgets a guard that is to be freed, where a call was left with siglongjmp. */
void call_forget(const struct guard *g);

/*
 * What became of a connection whose making has ended: an open one is guarded, of
 * another one conmgr need not know.
 */
void call_settle(const void *caller, struct guard *g, PGconn *conn);

/* The same for one that is only begun. */
void call_begun(const void *caller, struct guard *g, PGconn *conn);

#endif
