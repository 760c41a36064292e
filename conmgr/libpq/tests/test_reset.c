/* SPDX-License-Identifier: Apache-2.0 */
/* The same PGconn again: PQreset, and conmgr's own restart. */
#define _GNU_SOURCE
#include "../libpq-conmgr.h"
#include "../watch.h"
#include "rig.h"
#include "tap.h"

static struct rig rig;

#define GENEROUS 10000

/* A connection whose instance was lost; the other one is offered. */
static PGconn *open_lost(void)
{
	PGconn *conn;

	cm_offer(rig.cm, 0, true);
	cm_offer(rig.cm, 1, false);
	conn = PQconnectdb(rig.conninfo);
	ok(is_at(conn, rig.db[0]), "at the first instance: %s", PQerrorMessage(conn));
	cm_offer(rig.cm, 1, true);
	cm_fault(rig.cm, 0);
	ok(readable(PQsocket(conn), GENEROUS) && readable(PQcmSocket(conn), GENEROUS), "which is lost");
	return conn;
}

static void expect_at_second(PGconn *conn, int first_accepted)
{
	ok(is_at(conn, rig.db[1]), "at the second instance: %s", PQerrorMessage(conn));
	same(PQhost(conn), "db1", "PQhost");
	ok(server_accepted(rig.db[0]) == first_accepted, "the lost one was not tried");
	ok(EVENTUALLY(cm_bound(rig.cm, 1) == 1) && !readable(PQcmSocket(conn), 0), "PQcmSocket is quiet again");
	cm_fault(rig.cm, 1);
	ok(readable(PQcmSocket(conn), GENEROUS) && readable(PQsocket(conn), GENEROUS), "a fault of the second tells");
}

static void check_reset(void)
{
	PGconn *conn = open_lost();
	int accepted = server_accepted(rig.db[0]), cm_socket = PQcmSocket(conn);

	PQreset(conn);
	ok(PQcmSocket(conn) == cm_socket, "PQcmSocket has the same number");
	expect_at_second(conn, accepted);
	PQfinish(conn);
}

static void check_reset_poll(void)
{
	PGconn *conn = open_lost();
	int accepted = server_accepted(rig.db[0]);

	ok(PQresetStart(conn) == 1, "PQresetStart");
	ok(poll_through(conn, PQresetPoll) == PGRES_POLLING_OK, "PQresetPoll");
	expect_at_second(conn, accepted);
	PQfinish(conn);
}

/* Whoever serves nothing any more is not connected to, and says so at once. */
static void check_nobody_left(void)
{
	PGconn *conn = open_lost();
	int first = server_accepted(rig.db[0]), second = server_accepted(rig.db[1]);

	cm_offer(rig.cm, 1, false);
	PQreset(conn);
	ok(PQstatus(conn) == CONNECTION_BAD && strstr(PQerrorMessage(conn), "Connection refused"), "%s",
	   PQerrorMessage(conn));
	ok(PQcmSocket(conn) == -1, "no PQcmSocket");
	cm_offer(rig.cm, 1, true);
	cm_die(rig.cm);
	PQreset(conn);
	ok(PQstatus(conn) == CONNECTION_BAD && strstr(PQerrorMessage(conn), "Connection refused"),
	   "without a conmgr: %s", PQerrorMessage(conn));
	ok(server_accepted(rig.db[0]) == first && server_accepted(rig.db[1]) == second, "no instance was tried");
	cm_back(rig.cm);
	PQreset(conn);
	expect_at_second(conn, first);
	PQfinish(conn);
}

static void select_ok(PGconn *conn)
{
	PGresult *result = PQexec(conn, "SELECT");

	ok(PQresultStatus(result) == PGRES_COMMAND_OK, "the connection works: %s", PQerrorMessage(conn));
	PQclear(result);
}

static PGconn *open_first(void)
{
	PGconn *conn;

	cm_offer(rig.cm, 0, true);
	cm_offer(rig.cm, 1, false);
	conn = PQconnectdb(rig.conninfo);
	ok(is_at(conn, rig.db[0]), "at the first instance: %s", PQerrorMessage(conn));
	return conn;
}

/* A conmgr that says restart and comes back is not missed. */
static void check_restart(void)
{
	PGconn *conn = open_first();
	int asked = cm_asked(rig.cm);
	int64_t start = now_ms();

	cm_restart(rig.cm);
	ok(!readable(PQsocket(conn), 500) && !readable(PQcmSocket(conn), 0), "untouched while conmgr is away");
	select_ok(conn);
	cm_offer(rig.cm, 0, false); /* not heard of yet */
	cm_back(rig.cm);
	ok(!readable(PQsocket(conn), 200), "untouched while conmgr knows nothing");
	asked = cm_asked(rig.cm) - asked;
	ok(asked > 0 && asked <= (now_ms() - start) / 20 + 1, "asked now and then: %d times", asked);
	cm_offer(rig.cm, 0, true);
	ok(EVENTUALLY(cm_bound(rig.cm, 0) == 1), "conmgr knows of it again");
	select_ok(conn);
	cm_fault(rig.cm, 0);
	ok(readable(PQcmSocket(conn), GENEROUS) && readable(PQsocket(conn), GENEROUS), "a fault tells");
	PQfinish(conn);
}

/* One that comes back with another configuration knows no instance of ours. */
static void check_changed(void)
{
	PGconn *conn = open_first();
	uint16_t port = rig.db[0]->port;

	cm_restart(rig.cm);
	cm_move(rig.cm, 0, rig.db[1]->port);
	cm_back(rig.cm);
	ok(readable(PQcmSocket(conn), 2 * GENEROUS) && readable(PQsocket(conn), GENEROUS), "broken in the end");
	PQreset(conn);
	ok(PQstatus(conn) == CONNECTION_BAD, "an instance that conmgr does not know is not connected to");
	cm_move(rig.cm, 0, port);
	PQfinish(conn);
}

/* One that does not come back in time is missed. */
static void check_no_return(void)
{
	PGconn *conn = open_first();
	int64_t start = now_ms();

	cm_restart(rig.cm);
	ok(readable(PQcmSocket(conn), 2 * GENEROUS) && readable(PQsocket(conn), GENEROUS), "broken in the end");
	ok(now_ms() - start >= WATCH_RETURN, "after %lld ms", (long long)(now_ms() - start));
	cm_back(rig.cm);
	PQfinish(conn);
}

int main(void)
{
	rig_open(&rig);
	check_reset();
	check_reset_poll();
	check_nobody_left();
	check_restart();
	check_changed();
	check_no_return();
	rig_close(&rig);
	return tap_done();
}
