/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The library's one lock. It is held for short work only, never while waiting or
 * calling libpq or the dynamic linker. Signals are put off meanwhile, so that a
 * handler may leave (siglongjmp) or call connect(2) at any time.
 *
 * A child that is forked in between gets it free, and knows nothing of the
 * parent's watcher (guard_after_fork).
 */
#ifndef CM_LOCK_H
#define CM_LOCK_H

#include <signal.h>

/* Takes the lock and notes what lock_give is to restore. */
void lock_take(sigset_t *before);

void lock_give(const sigset_t *before);

#endif
