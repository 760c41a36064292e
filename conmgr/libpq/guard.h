/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guard stands by one PGconn that came from a conmgr: it knows the instances
 * that the connection may go to, holds the session by which conmgr tells of a
 * fault, and which socket to break then.
 *
 *          +------ released: failed, or led to no instance of conmgr <-----+
 *          v                                                               |
 *   GUARD_FREE --admitted to an instance--> GUARD_BOUND --fault--> GUARD_LOST
 *                                            |      ^                 ^    |
 *                              conmgr restarts      back in time    late   admitted
 *                                            v      |                 |    again
 *                                         GUARD_AWAITING -------------+    v
 *                                                                     GUARD_BOUND
 *
 * The thread that is inside a call of libpq for the connection owns the guard;
 * the watcher touches only what is under the lock.
 */
#ifndef CM_GUARD_H
#define CM_GUARD_H

#include <stdbool.h>
#include <stdint.h>

#include <libpq-fe.h>

#include "instance.h"
#include "own.h"
#include "session.h"

enum guard_state { GUARD_FREE, GUARD_BOUND, GUARD_AWAITING, GUARD_LOST };

/* An instance and the conmgr that knows it. */
struct place {
	struct address address;
	uint16_t port; /* of the conmgr */
	int number;
};

struct guard {
	/* Fixed when the guard is made. */
	char target[32];
	int places;
	struct place *place;

	int64_t patience; /* left for questions while connecting, ms; the owner's */

	/* Guarded by the lock. */
	struct guard *next, **link; /* list of all guards */
	PGconn *conn;               /* NULL until libpq has made it */
	enum guard_state state;
	const struct place *at;     /* where it is bound to */
	struct own session_socket;
	struct session session;
	struct own socket;          /* libpq's, to break */
	struct own notice;          /* PQcmSocket: shut down at a fault */
	bool notice_used;           /* shut down, or a parent's: not for a new session */
	int64_t until;              /* AWAITING: when conmgr must be back; mark_clock() */
	int64_t retry;              /* AWAITING: not asked again before */
};

/* Every guard; guarded by the lock. */
extern struct guard *guard_all;

/*
 * Makes a guard and starts the watcher; NULL when that does not work. It takes
 * the places over, also when it fails.
 */
struct guard *guard_new(const char *target, struct place *place, int places);

/* Ends a guard and all it holds. */
void guard_free(struct guard *g);

/* Gives a session of mark_ask, that is BOUND to the place, to the guard. */
void guard_bind(struct guard *g, const struct place *at, struct own session_socket, const struct session *s);

/* Lets conmgr go: the connection is broken, or is none of its own. */
void guard_release(struct guard *g);

/* Joins the guard with its PGconn; one that had the same address before is gone. */
void guard_attach(struct guard *g, PGconn *conn);

/* The guard of a connection, NULL when it has none. */
struct guard *guard_of(const PGconn *conn);

/* The number that PQcmSocket returns. */
int guard_notice(const PGconn *conn);

/* Begins a new attempt to connect; what was before is over. */
void guard_restart(struct guard *g);

/*
 * Decides whether the socket fd may be connected to an address, and binds the
 * guard to the instance there: false when conmgr does not offer that instance now,
 * or cannot be asked within the patience left. An address that is no instance's is
 * let through unguarded. Allocates nothing.
 */
bool guard_admit(struct guard *g, int fd, const struct address *a);

/*
 * Makes the socket of an established connection the one to break; when it leads
 * to no instance of conmgr, the guard is released.
 */
void guard_establish(struct guard *g, int fd);

/* What the watcher does with a guard under the lock. */
void guard_lose_locked(struct guard *g);
void guard_drop_session_locked(struct guard *g);
void guard_release_locked(struct guard *g);

/* In a forked child, under the lock: the parent's sessions are its own. */
void guard_after_fork(void);

#endif
