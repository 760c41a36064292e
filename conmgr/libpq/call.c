/* SPDX-License-Identifier: Apache-2.0 */
/* Without _GNU_SOURCE, for the plain prototype of connect(2). */
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#include "call.h"
#include "scope.h"

/* Stands for a connection without a guard. */
static struct guard nobody;

/* In static storage: reading it is safe in a signal handler. */
static _Thread_local struct guard *inside __attribute__((tls_model("initial-exec")));

bool call_nested(void)
{
	return inside != NULL;
}

bool call_enter(struct guard *g)
{
	if (inside != NULL)
		return false;
	inside = g ? g : &nobody;
	return true;
}

void call_leave(bool entered)
{
	if (entered)
		inside = NULL;
}

void call_forget(const struct guard *g)
{
	if (inside == g)
		inside = NULL;
}

void call_settle(const void *caller, struct guard *g, PGconn *conn)
{
	int error = errno;
	__typeof__(&PQstatus) status = SCOPE(caller, PQstatus);
	__typeof__(&PQsocket) socket_of = SCOPE(caller, PQsocket);

	if (g == NULL)
		return;
	if (status && socket_of && status(conn) == CONNECTION_OK)
		guard_establish(g, socket_of(conn));
	else
		guard_release(g);
	errno = error;
}

void call_begun(const void *caller, struct guard *g, PGconn *conn)
{
	int error = errno;
	__typeof__(&PQstatus) status = SCOPE(caller, PQstatus);

	if (g != NULL && (status == NULL || status(conn) == CONNECTION_BAD))
		guard_release(g);
	errno = error;
}

/* Decides on a connect(2) of libpq, without being asked itself meanwhile. */
static bool admit(struct guard *g, int fd, const struct sockaddr *addr, socklen_t len)
{
	struct address a;
	int error = errno;
	bool admitted;

	inside = NULL;
	admitted = !address_of(&a, addr, len) || guard_admit(g, fd, &a);
	inside = g;
	errno = error;
	return admitted;
}

EXPORT int connect(int fd, const struct sockaddr *addr, socklen_t len)
{
	struct guard *g = inside;

	if (g != NULL && g != &nobody && addr != NULL && !admit(g, fd, addr, len)) {
		errno = ECONNREFUSED;
		return -1;
	}
	return scope_connect(fd, addr, len);
}
