/* SPDX-License-Identifier: Apache-2.0 */
/* What a program notices of a fault, whatever it is doing. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../libpq-conmgr.h"
#include "rig.h"
#include "tap.h"

static struct rig rig;

/* How long a fault may take to be noticed on a machine in trouble. */
#define GENEROUS 10000

static PGconn *open_at(int number)
{
	PGconn *conn = PQconnectdb(rig.conninfo);

	ok(is_at(conn, rig.db[number]), "at instance %d: %s", number, PQerrorMessage(conn));
	return conn;
}

/* Ends a check: the instance is there again. */
static void end(PGconn *conn)
{
	PQfinish(conn);
	cm_offer(rig.cm, 0, true);
}

static void run(PGconn *conn, const char *sql, ExecStatusType want)
{
	PGresult *result = PQexec(conn, sql);
	ExecStatusType status = PQresultStatus(result);

	ok(status == want, "%s: %s", sql, PQresStatus(status));
	PQclear(result);
}

static void expect_broken(PGconn *conn)
{
	const char *error = PQerrorMessage(conn);

	ok(PQstatus(conn) == CONNECTION_BAD, "broken: %s", error);
	ok(strstr(error, "server closed the connection unexpectedly") != NULL, "in libpq's usual words");
	ok(readable(PQcmSocket(conn), GENEROUS) && readable(PQcmSocket(conn), 0), "PQcmSocket stays readable");
}

static void check_blocked(void)
{
	struct statement s;
	PGconn *conn = open_at(0);

	statement_begin(&s, conn, "hang");
	ok(!statement_ended(&s, 50), "the statement hangs");
	cm_fault(rig.cm, 0);
	if (!ok(statement_ended(&s, GENEROUS), "the statement ends"))
		exit(1);
	ok(s.status == PGRES_FATAL_ERROR, "with an error: %s", PQresStatus(s.status));
	expect_broken(conn);
	end(conn);
}

static void check_idle(void)
{
	PGconn *conn = open_at(0);

	cm_fault(rig.cm, 0);
	ok(readable(PQcmSocket(conn), GENEROUS), "PQcmSocket becomes readable");
	ok(readable(PQsocket(conn), GENEROUS), "PQsocket, too");
	run(conn, "SELECT", PGRES_FATAL_ERROR);
	expect_broken(conn);
	end(conn);
}

static void check_transaction(void)
{
	PGconn *conn = open_at(0);

	run(conn, "BEGIN", PGRES_COMMAND_OK);
	ok(PQtransactionStatus(conn) == PQTRANS_INTRANS, "in a transaction");
	cm_fault(rig.cm, 0);
	ok(readable(PQsocket(conn), GENEROUS), "PQsocket becomes readable");
	run(conn, "COMMIT", PGRES_FATAL_ERROR);
	expect_broken(conn);
	end(conn);
}

/* A program with its own loop on both sockets. */
static void check_asynchronous(void)
{
	PGconn *conn = open_at(0);
	struct pollfd both[2] = { { .fd = PQsocket(conn), .events = POLLIN },
				  { .fd = PQcmSocket(conn), .events = POLLIN } };

	PQsetnonblocking(conn, 1);
	ok(PQsendQuery(conn, "hang") && PQflush(conn) == 0, "sent");
	ok(poll(both, 2, 50) == 0, "both sockets are quiet");
	cm_fault(rig.cm, 0);
	ok(EVENTUALLY(poll(both, 2, 100) == 2), "both sockets tell");
	PQconsumeInput(conn);
	ok(!PQisBusy(conn), "there is a result");
	for (PGresult *result; (result = PQgetResult(conn)) != NULL; PQclear(result))
		ok(PQresultStatus(result) == PGRES_FATAL_ERROR, "which is an error");
	expect_broken(conn);
	end(conn);
}

/* Begins a connect and goes on until it hangs. */
static PGconn *begin_hanging(void)
{
	PGconn *conn = PQconnectStart(rig.conninfo);
	PostgresPollingStatusType state = PGRES_POLLING_WRITING;
	struct pollfd p = { .fd = PQsocket(conn), .events = POLLOUT };

	while (poll(&p, 1, 100) == 1) {
		state = PQconnectPoll(conn);
		p.events = state == PGRES_POLLING_READING ? POLLIN : POLLOUT;
	}
	ok(PQstatus(conn) != CONNECTION_BAD && PQstatus(conn) != CONNECTION_OK, "the connect hangs: %s",
	   PQerrorMessage(conn));
	ok(PQcmSocket(conn) >= 0, "and has a PQcmSocket already");
	return conn;
}

/*
 * The instance is lost while it does not answer a startup packet: libpq takes that
 * for an error, not for a reason to go on to another one.
 */
static void check_starting(void)
{
	PostgresPollingStatusType state;
	int64_t start;
	PGconn *conn;

	__atomic_store_n(&rig.db[0]->mute, true, __ATOMIC_SEQ_CST);
	conn = begin_hanging();
	cm_fault(rig.cm, 0);
	start = now_ms();
	ok(readable(PQcmSocket(conn), GENEROUS), "PQcmSocket tells");
	state = poll_through(conn, PQconnectPoll);
	ok(state == PGRES_POLLING_FAILED, "the connect fails: %s", PQerrorMessage(conn));
	ok(now_ms() - start < 5000, "and does not wait for the timeout");
	ok(PQcmSocket(conn) == -1, "no PQcmSocket any more");
	__atomic_store_n(&rig.db[0]->mute, false, __ATOMIC_SEQ_CST);
	end(conn);
}

/* A socket of which the kernel takes no more connects, as that of a dead host. */
static uint16_t bind_full(int fds[4])
{
	struct sockaddr_in sin = { .sin_family = AF_INET };
	socklen_t len = sizeof(sin);

	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	for (int i = 0; i < 4; i++)
		fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	bind(fds[0], (struct sockaddr *)&sin, sizeof(sin));
	listen(fds[0], 0);
	getsockname(fds[0], (struct sockaddr *)&sin, &len);
	for (int i = 1; i < 4; i++)
		connect(fds[i], (struct sockaddr *)&sin, len);
	return ntohs(sin.sin_port);
}

/* The instance is lost while it does not answer a SYN: libpq takes the next one. */
static void check_connecting(void)
{
	PostgresPollingStatusType state;
	int fds[4];
	int64_t start;
	PGconn *conn;

	cm_offer(rig.cm, 0, false);
	cm_add(rig.cm, 7, bind_full(fds), true);
	conn = begin_hanging();
	cm_offer(rig.cm, 1, true);
	cm_fault(rig.cm, 7);
	start = now_ms();
	/* It stands behind the one that is offered no more, which is not tried. */
	state = poll_through(conn, PQconnectPoll);
	ok(state == PGRES_POLLING_OK && is_at(conn, rig.db[1]), "goes on to another instance: %s",
	   PQerrorMessage(conn));
	ok(now_ms() - start < 5000, "and does not wait for the timeout");
	ok(EVENTUALLY(cm_bound(rig.cm, 1) == 1), "whose faults it hears of");
	cm_fault(rig.cm, 1);
	ok(readable(PQsocket(conn), GENEROUS), "as of this one");
	for (int i = 0; i < 4; i++)
		close(fds[i]);
	end(conn);
}

/* An instance that refuses: the next one is taken, and its faults count. */
static void check_second(void)
{
	uint16_t port = rig.db[0]->port;
	PGconn *conn;

	server_stop(rig.db[0]);
	cm_offer(rig.cm, 1, true);
	conn = open_at(1);
	same(PQhost(conn), "db1", "PQhost");
	ok(EVENTUALLY(cm_bound(rig.cm, 0) == 0 && cm_bound(rig.cm, 1) == 1), "bound to the second");
	cm_fault(rig.cm, 0);
	ok(!readable(PQsocket(conn), 100) && !readable(PQcmSocket(conn), 0), "the first is none of its business");
	run(conn, "SELECT", PGRES_COMMAND_OK);
	cm_fault(rig.cm, 1);
	ok(readable(PQsocket(conn), GENEROUS), "the second is");
	rig.db[0] = server_start(port);
	end(conn);
}

/* A fault of one connection's instance is none of another one's. */
static void check_others(void)
{
	PGconn *first = open_at(0), *second;

	cm_offer(rig.cm, 0, false);
	cm_offer(rig.cm, 1, true);
	second = open_at(1);
	cm_fault(rig.cm, 0);
	ok(readable(PQsocket(first), GENEROUS), "the one is broken");
	ok(!readable(PQsocket(second), 100), "the other is not");
	run(second, "SELECT", PGRES_COMMAND_OK);
	PQfinish(second);
	cm_offer(rig.cm, 1, false);
	end(first);
}

static void check_death(void)
{
	PGconn *conn = open_at(0);

	cm_die(rig.cm);
	ok(readable(PQsocket(conn), GENEROUS), "conmgr's death is a fault");
	run(conn, "SELECT", PGRES_FATAL_ERROR);
	expect_broken(conn);
	cm_back(rig.cm);
	end(conn);
}

/* The library's own doings are not seen in errno. */
static void check_errno(void)
{
	PGconn *conn = open_at(0);

	errno = 4711;
	ok(PQcmSocket(conn) >= 0 && errno == 4711, "PQcmSocket leaves errno alone");
	ok(PQconnectPoll(conn) == PGRES_POLLING_OK && errno == 4711, "PQconnectPoll, too: %d", errno);
	end(conn);
	errno = 4711;
	PQfinish(NULL);
	ok(errno == 4711, "and PQfinish: %d", errno);
}

/* connect(2) of the program itself, to an instance that is lost. */
static void check_own_connect(void)
{
	PGconn *conn = open_at(0);
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	getpeername(PQsocket(conn), (struct sockaddr *)&peer, &len);
	cm_fault(rig.cm, 0);
	ok(connect(fd, (struct sockaddr *)&peer, len) == 0, "is not the library's business");
	close(fd);
	end(conn);
}

int main(void)
{
	rig_open(&rig);
	check_blocked();
	check_idle();
	check_transaction();
	check_asynchronous();
	check_starting();
	check_connecting();
	check_second();
	check_others();
	check_death();
	check_errno();
	check_own_connect();
	ok(server_accepted(rig.cm->tcp) == 0, "nobody has come to conmgr's TCP port");
	rig_close(&rig);
	return tap_done();
}
