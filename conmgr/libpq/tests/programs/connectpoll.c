/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connects without blocking, asking for PQsocket anew before each poll(2) as the
 * guide's 3.3.2 has it, and then waits for PQsocket alone.
 */
#include <poll.h>

#include "program.h"

static PGconn *connect_slowly(void)
{
	PGconn *conn = PQconnectStart("");
	PostgresPollingStatusType state = PGRES_POLLING_WRITING;

	if (conn == NULL || PQstatus(conn) == CONNECTION_BAD)
		return conn;
	while (state != PGRES_POLLING_OK && state != PGRES_POLLING_FAILED) {
		struct pollfd p = { .fd = PQsocket(conn), .events = state == PGRES_POLLING_READING ? POLLIN : POLLOUT };

		poll(&p, 1, -1);
		state = PQconnectPoll(conn);
	}
	return conn;
}

int main(int argc, char **argv)
{
	PGconn *conn = connect_slowly();
	struct pollfd p = { .events = POLLIN };
	int code;

	(void)argc;
	prepare(conn, argv);
	if (is_mode(argv, "blocked") && !PQsendQuery(conn, statement(argv)))
		give_up("query", PQerrorMessage(conn));
	p.fd = PQsocket(conn);
	do
		poll(&p, 1, -1);
	while (PQconsumeInput(conn));
	code = report(conn, NULL);
	PQfinish(conn);
	return code;
}
