/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the programs for the end-to-end tests have in common. Each takes its
 * connection from the environment and its mode as argument, gets into that mode,
 * and prints a line when its connection breaks:
 *
 *   blocked   a statement goes on for ten minutes
 *   idle      nothing goes on
 *   intrans   nothing goes on, in a transaction
 *
 * A program that looks at its connection only when it needs it waits for a line on
 * stdin in the latter two.
 */
#ifndef PROGRAM_H
#define PROGRAM_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libpq-fe.h>

static inline bool is_mode(char **argv, const char *mode)
{
	return argv[1] != NULL && strcmp(argv[1], mode) == 0;
}

/* Ends the program, which could not begin. */
static inline void give_up(const char *what, const char *why)
{
	printf("no %s: %s\n", what, why);
	exit(2);
}

/* Gets an open connection into its mode. */
static inline void prepare(PGconn *conn, char **argv)
{
	if (PQstatus(conn) != CONNECTION_OK)
		give_up("connection", PQerrorMessage(conn));
	if (is_mode(argv, "intrans"))
		PQclear(PQexec(conn, "BEGIN"));
}

/* Waits for a line. */
static inline void await_line(void)
{
	char line[16];

	if (fgets(line, sizeof(line), stdin) == NULL)
		give_up("line", "end of input");
}

/* The statement in which the error is to come. */
static inline const char *statement(char **argv)
{
	return is_mode(argv, "blocked") ? "SELECT pg_sleep(600)" : "SELECT 1";
}

/* Prints the line; a connection that is not broken is a failure. */
static inline int report(PGconn *conn, const char *sqlstate)
{
	char *text = strdup(PQerrorMessage(conn));
	bool broken = PQstatus(conn) == CONNECTION_BAD;

	text[strcspn(text, "\n")] = '\0';
	printf("%s: SQLSTATE %s: %s\n", broken ? "broken" : "still open", sqlstate ? sqlstate : "NULL", text);
	free(text);
	return !broken;
}

/* The whole of a program that blocks in libpq. */
static inline int run_blocking(PGconn *conn, char **argv)
{
	PGresult *result;
	int code;

	prepare(conn, argv);
	if (!is_mode(argv, "blocked"))
		await_line();
	result = PQexec(conn, statement(argv));
	code = report(conn, PQresultErrorField(result, PG_DIAG_SQLSTATE));
	PQclear(result);
	PQfinish(conn);
	return code;
}

#endif
