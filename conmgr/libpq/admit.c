/* SPDX-License-Identifier: Apache-2.0 */
#include <sys/socket.h>

#include "guard.h"
#include "lock.h"
#include "mark.h"

void guard_restart(struct guard *g)
{
	guard_release(g);
	g->patience = MARK_PATIENCE;
}

/* Whether the guard hears of the place's faults; the socket is watched then. */
static bool watch_socket(struct guard *g, const struct place *p, int fd)
{
	sigset_t before;
	bool bound;

	lock_take(&before);
	bound = g->state == GUARD_BOUND && g->at == p && own_is(&g->session_socket);
	if (bound)
		g->socket = own_of(fd);
	lock_give(&before);
	return bound;
}

/* Asks the place's conmgr whether that instance will do now, and binds to it. */
static bool bind_to(struct guard *g, const struct place *p)
{
	int64_t start = mark_clock();
	struct session s;
	struct own o;

	session_begin(&s, NULL, &p->address);
	o = mark_ask(p->port, &s, g->target, p->number, start + g->patience);
	g->patience -= mark_clock() - start;
	if (s.phase != SESSION_BOUND) {
		own_close(&o);
		return false;
	}
	guard_bind(g, p, o, &s);
	return true;
}

bool guard_admit(struct guard *g, int fd, const struct address *a)
{
	bool known = false;

	for (int i = 0; i < g->places; i++) {
		const struct place *p = &g->place[i];

		if (!address_equal(&p->address, a))
			continue;
		known = true;
		if (watch_socket(g, p, fd) || (bind_to(g, p) && watch_socket(g, p, fd)))
			return true;
	}
	return !known;
}

/* Whether a connected socket leads to the address. */
static bool leads_to(int fd, const struct address *a)
{
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);
	struct address at;

	return getpeername(fd, (struct sockaddr *)&peer, &len) == 0 &&
	       address_of(&at, (struct sockaddr *)&peer, len) && address_equal(&at, a);
}

/*
 * The socket may be another one than the one that was admitted last: a signal
 * handler that cancels a query connects inside somebody else's call, too.
 */
static bool adopt_locked(struct guard *g, int fd)
{
	struct own o = own_of(fd);

	if (g->state == GUARD_FREE)
		return false;
	if (o.cookie == g->socket.cookie && o.cookie != 0)
		return true;
	if (!leads_to(fd, &g->at->address))
		return false;
	g->socket = o;
	if (g->state == GUARD_LOST)
		own_shutdown(&g->socket);
	return true;
}

void guard_establish(struct guard *g, int fd)
{
	sigset_t before;
	bool adopted;

	lock_take(&before);
	adopted = adopt_locked(g, fd);
	lock_give(&before);
	if (!adopted)
		guard_release(g);
}
