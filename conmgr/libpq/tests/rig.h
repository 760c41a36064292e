/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the whole library share: a conmgr, two instances, waiting. */
#ifndef RIG_H
#define RIG_H

#include <libpq-fe.h>

#include "fake.h"

struct rig {
	struct cm *cm;
	struct server *db[2]; /* number 0 is offered, 1 is not */
	char conninfo[128];   /* names the conmgr */
};

void rig_open(struct rig *r);
void rig_close(struct rig *r);

/* Whether the connection is open and leads to an instance. */
bool is_at(PGconn *conn, const struct server *db);

/* Whether a descriptor is readable within the time. */
bool readable(int fd, int milliseconds);

/* The monotonic clock, milliseconds. */
int64_t now_ms(void);

/* Waits until a fact is there; false after ten seconds. */
#define EVENTUALLY(fact) \
	({ \
		int64_t until_ = now_ms() + 10000; \
		bool is_; \
		while (!(is_ = (fact)) && now_ms() < until_) \
			wait_ms(2); \
		is_; \
	})

void wait_ms(int milliseconds);

/* How many descriptors the process has open. */
int descriptors(void);

/* A statement that runs on a thread of its own. */
struct statement {
	PGconn *conn;
	const char *sql;
	pthread_t thread;
	int done; /* atomic */
	ExecStatusType status;
};

void statement_begin(struct statement *s, PGconn *conn, const char *sql);

/* Whether it has ended within the time; then it is joined. */
bool statement_ended(struct statement *s, int milliseconds);

/* Goes through an asynchronous connect or reset to its end. */
PostgresPollingStatusType poll_through(PGconn *conn, PostgresPollingStatusType (*step)(PGconn *));

#endif
