/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The watcher: one thread for all guards of the process, started with the first
 * of them, all signals blocked. It waits for the sessions of conmgr and breaks the
 * connections of those that tell of a fault: shutdown(2) wakes whoever is blocked
 * in libpq or polls the socket, in whatever state it is.
 *
 * When conmgr restarts, it asks it again for each guard until conmgr is back, at
 * most WATCH_RETURN milliseconds.
 */
#ifndef CM_WATCH_H
#define CM_WATCH_H

#include <stdbool.h>

#define WATCH_RETURN 5000

/* Starts the thread when there is none; false when that cannot be. */
bool watch_start(void);

/* Under the lock: tells the watcher that sessions came or went. */
void watch_changed_locked(void);

/* In a forked child, under the lock: there is no thread here. */
void watch_after_fork(void);

#endif
