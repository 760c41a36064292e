/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The real functions of libpq, each as the caller would have found it without
 * the library: a process may hold several copies of libpq, and the next object of
 * the search order may know none of them.
 *
 *   caller                            where its libpq is found
 *   main program                      behind the library (RTLD_NEXT)
 *   a module, loaded RTLD_LOCAL       among the module's own dependencies:
 *                                     psycopg2, DBD::Pg, a bundled libpq
 *   libpq itself                      in itself
 *
 * What was found is kept per calling object; the libpq that was found stays
 * loaded. Needs the dladdr1 of glibc.
 */
#ifndef CM_SCOPE_H
#define CM_SCOPE_H

#include <sys/socket.h>

#include <libpq-fe.h>

/* Every function of libpq that the library stands before or calls. */
#define SCOPE_FUNCTIONS(X) \
	X(PQconnectdb) \
	X(PQconnectdbParams) \
	X(PQconnectStart) \
	X(PQconnectStartParams) \
	X(PQsetdbLogin) \
	X(PQconnectPoll) \
	X(PQreset) \
	X(PQresetStart) \
	X(PQresetPoll) \
	X(PQping) \
	X(PQpingParams) \
	X(PQfinish) \
	X(PQconninfo) \
	X(PQconninfoFree) \
	X(PQlibVersion) \
	X(PQsocket) \
	X(PQstatus)

#define SCOPE_ENUM(name) SCOPE_##name,
enum scope_function { SCOPE_FUNCTIONS(SCOPE_ENUM) SCOPE_COUNT };
#undef SCOPE_ENUM

/*
 * Returns a function as the object that holds the instruction at caller finds
 * it, NULL when there is none. Keeps errno.
 */
void *scope_find(const void *caller, enum scope_function which);

/* The same with the function's own type. */
#define SCOPE(caller, name) ((__typeof__(&name))scope_find(caller, SCOPE_##name))

/* Where a function was called from. */
#define SCOPE_CALLER() __builtin_return_address(0)

/* connect(2) as it is without the library. Safe in signal handlers. */
int scope_connect(int fd, const struct sockaddr *addr, socklen_t len);

#endif
