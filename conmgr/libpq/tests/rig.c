/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <dirent.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "listener.h"
#include "rig.h"

void rig_open(struct rig *r)
{
	r->cm = cm_start();
	for (int i = 0; i < 2; i++) {
		r->db[i] = server_start(0);
		cm_add(r->cm, i, r->db[i]->port, i == 0);
	}
	snprintf(r->conninfo, sizeof(r->conninfo),
		 "host=localhost port=%d user=app dbname=app sslmode=disable gssencmode=disable connect_timeout=10",
		 r->cm->port);
}

void rig_close(struct rig *r)
{
	cm_stop(r->cm);
	server_stop(r->db[0]);
	server_stop(r->db[1]);
}

bool is_at(PGconn *conn, const struct server *db)
{
	return PQstatus(conn) == CONNECTION_OK && atoi(PQport(conn)) == db->port;
}

bool readable(int fd, int milliseconds)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, milliseconds) == 1 && (p.revents & POLLIN);
}

int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void wait_ms(int milliseconds)
{
	poll(NULL, 0, milliseconds);
}

int descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	must(dir != NULL, "/proc/self/fd");
	while (readdir(dir) != NULL)
		n++;
	closedir(dir);
	return n;
}

static void *run(void *arg)
{
	struct statement *s = arg;
	PGresult *result = PQexec(s->conn, s->sql);

	s->status = PQresultStatus(result);
	PQclear(result);
	__atomic_store_n(&s->done, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

void statement_begin(struct statement *s, PGconn *conn, const char *sql)
{
	memset(s, 0, sizeof(*s));
	s->conn = conn;
	s->sql = sql;
	must(pthread_create(&s->thread, NULL, run, s) == 0, "pthread_create");
}

bool statement_ended(struct statement *s, int milliseconds)
{
	int64_t until = now_ms() + milliseconds;

	while (!__atomic_load_n(&s->done, __ATOMIC_SEQ_CST)) {
		if (now_ms() >= until)
			return false;
		wait_ms(1);
	}
	pthread_join(s->thread, NULL);
	return true;
}

PostgresPollingStatusType poll_through(PGconn *conn, PostgresPollingStatusType (*step)(PGconn *))
{
	PostgresPollingStatusType state = PGRES_POLLING_WRITING;
	int64_t until = now_ms() + 10000;

	while (state != PGRES_POLLING_OK && state != PGRES_POLLING_FAILED && now_ms() < until) {
		struct pollfd p = { .fd = PQsocket(conn), .events = state == PGRES_POLLING_READING ? POLLIN : POLLOUT };

		poll(&p, 1, 100);
		state = step(conn);
	}
	return state;
}
