/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sends its query and waits in a loop of its own, on PQsocket and on PQcmSocket, as
 * the guide's 3.3.3 has it. It is linked with the library.
 */
#include <poll.h>

#include <libpq-conmgr.h>

#include "program.h"

/* Takes what there is; false when the connection is broken. */
static bool consume(PGconn *conn)
{
	PGresult *result;

	if (!PQconsumeInput(conn))
		return false;
	while (!PQisBusy(conn) && (result = PQgetResult(conn)) != NULL)
		PQclear(result);
	return PQstatus(conn) == CONNECTION_OK;
}

int main(int argc, char **argv)
{
	PGconn *conn = PQconnectdb("");
	struct pollfd both[2] = { { .events = POLLIN }, { .events = POLLIN } };
	int code;

	(void)argc;
	prepare(conn, argv);
	PQsetnonblocking(conn, 1);
	if (is_mode(argv, "blocked") && (!PQsendQuery(conn, statement(argv)) || PQflush(conn) != 0))
		give_up("query", PQerrorMessage(conn));
	if (PQcmSocket(conn) < 0)
		give_up("PQcmSocket", "the connection does not come from conmgr");
	both[0].fd = PQsocket(conn);
	both[1].fd = PQcmSocket(conn);
	do
		poll(both, 2, -1);
	while (consume(conn));
	code = report(conn, NULL);
	/* It is readable a moment later at most, and stays so. */
	code |= poll(&both[1], 1, 10000) != 1 || poll(&both[1], 1, 0) != 1;
	PQfinish(conn);
	return code;
}
