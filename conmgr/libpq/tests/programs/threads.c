/* SPDX-License-Identifier: Apache-2.0 */
/* Eight threads with a connection each; the line comes when the last one broke. */
#include <pthread.h>

#include "program.h"

#define THREADS 8

static char **mode;

static void *run(void *arg)
{
	PGconn *conn = arg;

	PQclear(PQexec(conn, statement(mode)));
	return PQstatus(conn) == CONNECTION_BAD ? NULL : conn;
}

int main(int argc, char **argv)
{
	PGconn *conn[THREADS];
	pthread_t thread[THREADS];
	void *open;
	int code = 0;

	(void)argc;
	mode = argv;
	for (int i = 0; i < THREADS; i++) {
		conn[i] = PQconnectdb("");
		prepare(conn[i], argv);
	}
	if (!is_mode(argv, "blocked"))
		await_line();
	for (int i = 0; i < THREADS; i++)
		if (pthread_create(&thread[i], NULL, run, conn[i]) != 0)
			give_up("thread", "pthread_create");
	for (int i = 0; i < THREADS; i++) {
		pthread_join(thread[i], &open);
		code |= open != NULL;
	}
	code |= report(conn[0], NULL);
	for (int i = 0; i < THREADS; i++)
		PQfinish(conn[i]);
	return code;
}
