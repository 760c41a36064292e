/* SPDX-License-Identifier: Apache-2.0 */
/* A forked child and its parent do not break each other's connections. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../libpq-conmgr.h"
#include "rig.h"
#include "tap.h"

static struct rig rig;

/* Runs a check in a child: its exit code is 0 when all is well. */
static void in_child(const char *what, int (*check)(PGconn *), PGconn *inherited)
{
	int status = -1;
	pid_t child = fork();

	if (child == 0)
		_exit(check(inherited));
	waitpid(child, &status, 0);
	ok(status == 0, "%s: %x", what, status);
}

static bool works(PGconn *conn)
{
	PGresult *result = PQexec(conn, "SELECT");
	bool is = PQresultStatus(result) == PGRES_COMMAND_OK;

	PQclear(result);
	return is;
}

static int do_nothing(PGconn *inherited)
{
	return PQcmSocket(inherited) < 0;
}

/* A connection of the child's own is guarded, with a watcher of its own. */
static int open_own(PGconn *inherited)
{
	PGconn *conn = PQconnectdb(rig.conninfo);
	int errors = !is_at(conn, rig.db[0]) || PQcmSocket(conn) < 0 || PQcmSocket(conn) == PQcmSocket(inherited);

	PQfinish(conn);
	return errors;
}

/* Closes every descriptor but the connection's, as some daemons do. */
static int close_all(PGconn *inherited)
{
	int keep;
	PGconn *conn = PQconnectdb(rig.conninfo);
	int pipes[2];

	(void)inherited;
	keep = PQsocket(conn);
	for (int fd = 3; fd < 200; fd++)
		if (fd != keep)
			close(fd);
	if (pipe(pipes) != 0) /* takes numbers that were the library's */
		return 2;
	wait_ms(100);
	if (write(pipes[1], "x", 1) != 1 || !readable(pipes[0], 1000))
		return 3;
	if (!works(conn))
		return 4;
	PQfinish(conn);
	return write(pipes[1], "x", 1) == 1 ? 0 : 5;
}

/* Says when it is connected, and ends well when the connection breaks. */
static int await_fault(int say)
{
	PGconn *conn = PQconnectdb(rig.conninfo);

	if (!is_at(conn, rig.db[0]) || readable(PQcmSocket(conn), 0))
		return 1;
	if (write(say, "x", 1) != 1 || !readable(PQsocket(conn), 10000))
		return 2;
	return works(conn) ? 3 : 0;
}

static void check_child_fault(PGconn *mine)
{
	int said[2], status = pipe(said);
	pid_t child = fork();

	if (child == 0)
		_exit(await_fault(said[1]));
	ok(readable(said[0], 10000) && EVENTUALLY(cm_bound(rig.cm, 0) == 2), "parent and child are bound");
	cm_fault(rig.cm, 0);
	waitpid(child, &status, 0);
	ok(status == 0, "the child hears of the fault: %x", status);
	ok(readable(PQsocket(mine), 10000) && readable(PQcmSocket(mine), 10000), "the parent, too");
	cm_offer(rig.cm, 0, true);
	close(said[0]);
	close(said[1]);
}

/* A reset in the child makes a connection of its own. */
static int reset_inherited(PGconn *inherited)
{
	PQreset(inherited);
	if (!is_at(inherited, rig.db[0]) || readable(PQcmSocket(inherited), 0) || !works(inherited))
		return 1;
	PQfinish(inherited);
	return 0;
}

int main(void)
{
	PGconn *conn;

	rig_open(&rig);
	/* The library is loaded, and nothing has begun. */
	in_child("fork before any connection", open_own, NULL);

	conn = PQconnectdb(rig.conninfo);
	ok(is_at(conn, rig.db[0]), "the parent's connection");
	in_child("a child that does nothing", do_nothing, conn);
	in_child("a child with a connection of its own", open_own, conn);
	in_child("a child that closes everything", close_all, conn);
	ok(works(conn) && !readable(PQcmSocket(conn), 100) && EVENTUALLY(cm_bound(rig.cm, 0) == 1), "the parent's lives on");
	check_child_fault(conn);
	PQreset(conn);
	ok(is_at(conn, rig.db[0]) && works(conn), "the parent's reset");
	in_child("a child that resets what it inherited", reset_inherited, conn);
	/* libpq's reset has said goodbye on the socket that both had; the rest stays. */
	ok(!readable(PQcmSocket(conn), 100), "no fault is seen in the parent");
	PQreset(conn);
	ok(is_at(conn, rig.db[0]) && works(conn) && !readable(PQcmSocket(conn), 0), "and a reset works");
	PQfinish(conn);
	rig_close(&rig);
	return tap_done();
}
