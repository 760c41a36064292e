/* SPDX-License-Identifier: Apache-2.0 */
/* The functions of libpq that make a connection, or only try to. */
#include <errno.h>
#include <string.h>

#include "call.h"
#include "route.h"
#include "scope.h"
#include "words.h"

/*
 * Keywords in place of a connection string. libpq takes one in dbname only when
 * it looks like one, so an empty string is no keyword at all, and one that libpq
 * calls an error stays with the function that was called.
 */
struct conninfo {
	const char *keywords[2], *values[2];
	struct words words;
};

/* Whether libpq would take a dbname for a connection string (fe-connect.c). */
static bool looks_like_conninfo(const char *text)
{
	return strncmp(text, "postgresql://", 13) == 0 || strncmp(text, "postgres://", 11) == 0 ||
	       strchr(text, '=') != NULL;
}

static bool conninfo_words(struct conninfo *c, const char *text)
{
	bool empty = text == NULL || text[strspn(text, " \t\n\v\f\r")] == '\0';

	memset(c, 0, sizeof(*c));
	c->words = (struct words){ c->keywords, c->values, 1 };
	if (empty)
		return true;
	c->keywords[0] = "dbname";
	c->values[0] = text;
	return looks_like_conninfo(text);
}

/* Step one; errno is as it was. */
static bool find(struct route *r, const void *caller, const struct words *w)
{
	int error = errno;
	bool found = !call_nested() && route_find(r, caller, w);

	errno = error;
	return found;
}

/* Ends a connect without conmgr. The address may be one that had a guard once. */
static PGconn *plain(PGconn *conn, bool entered)
{
	int error = errno;

	call_leave(entered);
	if (entered)
		guard_free(guard_of(conn));
	errno = error;
	return conn;
}

/* Joins the new connection with its guard, if libpq had memory for one. */
static struct guard *attach(struct route *r, PGconn *conn)
{
	int error = errno;

	route_free(r);
	if (conn != NULL) {
		guard_attach(r->guard, conn);
	} else {
		guard_free(r->guard);
		r->guard = NULL;
	}
	errno = error;
	return r->guard;
}

/* Step two, to its end. */
static PGconn *complete(struct route *r, const void *caller)
{
	bool entered = call_enter(r->guard);
	PGconn *conn = SCOPE(caller, PQconnectdbParams)(r->words.keywords, r->words.values, r->expand_dbname);

	call_leave(entered);
	call_settle(caller, attach(r, conn), conn);
	return conn;
}

/* Begins step two. */
static PGconn *start(struct route *r, const void *caller)
{
	bool entered = call_enter(r->guard);
	PGconn *conn = SCOPE(caller, PQconnectStartParams)(r->words.keywords, r->words.values, r->expand_dbname);

	call_leave(entered);
	call_begun(caller, attach(r, conn), conn);
	return conn;
}

/* Step two of a ping, which leaves no connection. */
static PGPing ping(struct route *r, const void *caller)
{
	bool entered = call_enter(r->guard);
	PGPing ping = SCOPE(caller, PQpingParams)(r->words.keywords, r->words.values, r->expand_dbname);

	call_leave(entered);
	attach(r, NULL);
	return ping;
}

EXPORT PGconn *PQconnectdb(const char *conninfo)
{
	const void *caller = SCOPE_CALLER();
	__typeof__(&PQconnectdb) real = SCOPE(caller, PQconnectdb);
	struct conninfo c;
	struct route r;
	bool entered;

	if (conninfo_words(&c, conninfo) && find(&r, caller, &c.words))
		return complete(&r, caller);
	entered = call_enter(NULL);
	return plain(real ? real(conninfo) : NULL, entered);
}

EXPORT PGconn *PQconnectdbParams(const char *const *keywords, const char *const *values, int expand_dbname)
{
	const void *caller = SCOPE_CALLER();
	__typeof__(&PQconnectdbParams) real = SCOPE(caller, PQconnectdbParams);
	struct words w = { keywords, values, expand_dbname };
	struct route r;
	bool entered;

	if (find(&r, caller, &w))
		return complete(&r, caller);
	entered = call_enter(NULL);
	return plain(real ? real(keywords, values, expand_dbname) : NULL, entered);
}

EXPORT PGconn *PQconnectStart(const char *conninfo)
{
	const void *caller = SCOPE_CALLER();
	__typeof__(&PQconnectStart) real = SCOPE(caller, PQconnectStart);
	struct conninfo c;
	struct route r;
	bool entered;

	if (conninfo_words(&c, conninfo) && find(&r, caller, &c.words))
		return start(&r, caller);
	entered = call_enter(NULL);
	return plain(real ? real(conninfo) : NULL, entered);
}

EXPORT PGconn *PQconnectStartParams(const char *const *keywords, const char *const *values, int expand_dbname)
{
	const void *caller = SCOPE_CALLER();
	__typeof__(&PQconnectStartParams) real = SCOPE(caller, PQconnectStartParams);
	struct words w = { keywords, values, expand_dbname };
	struct route r;
	bool entered;

	if (find(&r, caller, &w))
		return start(&r, caller);
	entered = call_enter(NULL);
	return plain(real ? real(keywords, values, expand_dbname) : NULL, entered);
}

EXPORT PGconn *PQsetdbLogin(const char *host, const char *port, const char *options, const char *tty,
			    const char *database, const char *user, const char *password)
{
	const void *caller = SCOPE_CALLER();
	__typeof__(&PQsetdbLogin) real = SCOPE(caller, PQsetdbLogin);
	/* libpq, too, lets the arguments win over a connection string in database. */
	const char *const keywords[] = { "dbname", "host", "port", "options", "user", "password", NULL };
	const char *const values[] = { database, host, port, options, user, password, NULL };
	struct words w = { keywords, values, 1 };
	struct route r;
	bool entered;

	if (find(&r, caller, &w))
		return complete(&r, caller);
	entered = call_enter(NULL);
	return plain(real ? real(host, port, options, tty, database, user, password) : NULL, entered);
}

EXPORT PGPing PQping(const char *conninfo)
{
	const void *caller = SCOPE_CALLER();
	__typeof__(&PQping) real = SCOPE(caller, PQping);
	struct conninfo c;
	struct route r;
	PGPing result;
	bool entered;

	if (conninfo_words(&c, conninfo) && find(&r, caller, &c.words))
		return ping(&r, caller);
	entered = call_enter(NULL);
	result = real ? real(conninfo) : PQPING_NO_ATTEMPT;
	call_leave(entered);
	return result;
}

EXPORT PGPing PQpingParams(const char *const *keywords, const char *const *values, int expand_dbname)
{
	const void *caller = SCOPE_CALLER();
	__typeof__(&PQpingParams) real = SCOPE(caller, PQpingParams);
	struct words w = { keywords, values, expand_dbname };
	struct route r;
	PGPing result;
	bool entered;

	if (find(&r, caller, &w))
		return ping(&r, caller);
	entered = call_enter(NULL);
	result = real ? real(keywords, values, expand_dbname) : PQPING_NO_ATTEMPT;
	call_leave(entered);
	return result;
}
