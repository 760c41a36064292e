/* SPDX-License-Identifier: Apache-2.0 */
/* Forks when everything is loaded; parent and child have a connection each. */
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "program.h"

int main(int argc, char **argv)
{
	PGconn *conn = PQconnectdb("application_name=parent");
	int status = 1;
	pid_t child;

	(void)argc;
	child = fork();
	if (child == 0) {
		int code = run_blocking(PQconnectdb(""), argv);

		fflush(stdout);
		_exit(code); /* the parent's connection is none of ours to end */
	}
	waitpid(child, &status, 0);
	/* The parent's breaks as well; which of them first is the processors' choice. */
	if (poll(&(struct pollfd){ .fd = PQsocket(conn), .events = POLLIN }, 1, 20000) != 1)
		return 1;
	PQclear(PQexec(conn, "SELECT 1"));
	if (PQstatus(conn) != CONNECTION_BAD)
		return 1;
	PQfinish(conn);
	return status != 0;
}
