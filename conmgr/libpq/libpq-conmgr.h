/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libconmgr: direct mode of conmgr for programs that use libpq or ECPG.
 *
 * A program that connects to conmgr's port on localhost lands on the instance
 * that conmgr names, without a hop between, and its connection breaks at once
 * when conmgr says that the instance is lost. No program needs this header for
 * that; it is for those that want to watch conmgr's word by themselves.
 *
 *     LD_PRELOAD=libconmgr.so program      any program with a shared libpq
 *     cc program.c -lconmgr -lpq           in this order
 *
 *   program        PQconnectdb("host=localhost port=27546")      PQexec ...
 *      |                                                            ^
 *   libconmgr  --1. TARGET, SHOW INSTANCES--> conmgr's mark         | 5. error
 *      |       <--db2; db1, db2------------   \0pgconmgr:27546      |
 *      |  2. host=db2,db1 hostaddr=... port=...   |                 |
 *      v                                          | 4. lost         |
 *   libpq ----3. connect(2), TLS, password------- | ----------------+--> db2
 *                                                 v                 |
 *   watcher thread <-- session of conmgr ---- conmgr_fault          |
 *      +-- shutdown(2) of libpq's socket ---------------------------+
 *
 * (1) asks each conmgr of the host list over its abstract Unix socket; (2) is libpq
 * with its own parameters and the instances in the place of their conmgr, so names,
 * certificates, passwords and PQreset are libpq's own affair. (3) Each connect(2)
 * to an instance asks conmgr whether it offers that one now and binds the session to
 * it; if not, libpq sees ECONNREFUSED and goes on. (4, 5) wake whoever is blocked
 * in libpq or polls a socket; libpq says that the server closed the connection.
 *
 *   connect.c life.c   what stands before libpq      scope.c   the real functions
 *   call.c admit.c     connect(2) inside libpq       route.c   step one
 *   guard.c watch.c    the session and the watcher   mark.c session.c request.c
 *   names.c words.c    host lists and parameters               the console's protocol
 *   own.c lock.c       sockets, signals, fork        instance.c addresses
 *
 * What the names of a connection mean with the library:
 *
 *   host, hostaddr, port  localhost (or a loopback address) and conmgr's port.
 *                         Lists of several conmgrs and of postmasters are tried
 *                         in their order. Unix sockets are never conmgr's.
 *   dbname                conmgr is conmgr's own console; any other is the
 *                         database of the instance
 *   target_session_attrs  what the instance has to be; prefer-read, the older
 *                         spelling of prefer-standby, is taken too
 *
 * conmgr must run as the same user as the program, as root, or as the user that
 * the environment variable PGCONMGR_USER names; the answer of anybody else is
 * not asked for. Where conmgr cannot be asked within 200 ms, or the connection
 * names none, libpq does what it does without the library.
 *
 * Functions of libpq that the library stands before: PQconnectdb,
 * PQconnectdbParams, PQconnectStart, PQconnectStartParams, PQsetdbLogin,
 * PQconnectPoll, PQreset, PQresetStart, PQresetPoll, PQping, PQpingParams and
 * PQfinish. A connection that a forked child has inherited is watched as long as
 * the parent lives; one that the child opens by itself is watched in the child.
 */
#ifndef LIBPQ_CONMGR_H
#define LIBPQ_CONMGR_H

#include <libpq-fe.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * A further value of PQstatus() for source code that waits for it. It is never
 * returned: conmgr is asked inside PQconnectStart, within 200 ms.
 */
enum { CONNECTION_AWAITING_CMRESPONSE = 0x636d };

/*
 * Returns a socket that becomes readable when conmgr says that the instance of
 * the connection is lost, or when conmgr itself is gone; it stays readable until
 * PQfinish or PQreset. Returns -1 when conn does not come from conmgr. The socket
 * is the library's: wait for it with poll(2) or the like, but neither read from it
 * nor close it. Then go on as with a readable PQsocket(): PQconsumeInput or
 * PQgetResult report that the connection is broken. PQsocket() itself becomes
 * readable at the same time.
 */
extern int PQcmSocket(const PGconn *conn);

#ifdef __cplusplus
}
#endif

#endif
