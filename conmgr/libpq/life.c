/* SPDX-License-Identifier: Apache-2.0 */
/* The functions of libpq that go on with a connection, renew it, or end it. */
#include <errno.h>

#include "call.h"
#include "libpq-conmgr.h"
#include "scope.h"

/* The guard of a connection; inside another call there is no need to know. */
static struct guard *find(const PGconn *conn)
{
	int error = errno;
	struct guard *g = call_nested() ? NULL : guard_of(conn);

	errno = error;
	return g;
}

/* The guard of a connection that is to be made anew. */
static struct guard *find_anew(const PGconn *conn)
{
	int error = errno;
	struct guard *g = find(conn);

	if (g != NULL)
		guard_restart(g);
	errno = error;
	return g;
}

/* One step of an asynchronous connect. */
static PostgresPollingStatusType advance(const void *caller, PGconn *conn,
					 PostgresPollingStatusType (*real)(PGconn *))
{
	struct guard *g = find(conn);
	bool entered = call_enter(g);
	PostgresPollingStatusType result = real ? real(conn) : PGRES_POLLING_FAILED;

	call_leave(entered);
	if (g != NULL && (result == PGRES_POLLING_OK || result == PGRES_POLLING_FAILED))
		call_settle(caller, g, conn);
	return result;
}

EXPORT PostgresPollingStatusType PQconnectPoll(PGconn *conn)
{
	const void *caller = SCOPE_CALLER();

	return advance(caller, conn, SCOPE(caller, PQconnectPoll));
}

EXPORT PostgresPollingStatusType PQresetPoll(PGconn *conn)
{
	const void *caller = SCOPE_CALLER();

	return advance(caller, conn, SCOPE(caller, PQresetPoll));
}

EXPORT void PQreset(PGconn *conn)
{
	const void *caller = SCOPE_CALLER();
	__typeof__(&PQreset) real = SCOPE(caller, PQreset);
	struct guard *g = find_anew(conn);
	bool entered = call_enter(g);

	if (real)
		real(conn);
	call_leave(entered);
	call_settle(caller, g, conn);
}

EXPORT int PQresetStart(PGconn *conn)
{
	const void *caller = SCOPE_CALLER();
	__typeof__(&PQresetStart) real = SCOPE(caller, PQresetStart);
	struct guard *g = find_anew(conn);
	bool entered = call_enter(g);
	int started = real ? real(conn) : 0;

	call_leave(entered);
	call_begun(caller, g, conn);
	return started;
}

EXPORT void PQfinish(PGconn *conn)
{
	const void *caller = SCOPE_CALLER();
	__typeof__(&PQfinish) real = SCOPE(caller, PQfinish);
	int error = errno;
	struct guard *g = guard_of(conn);

	if (g != NULL) {
		call_forget(g);
		guard_free(g);
	}
	errno = error;
	if (real)
		real(conn);
}

EXPORT int PQcmSocket(const PGconn *conn)
{
	int error = errno;
	int fd = guard_notice(conn);

	errno = error;
	return fd;
}
