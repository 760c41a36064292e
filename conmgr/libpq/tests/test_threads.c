/* SPDX-License-Identifier: Apache-2.0 */
/* Many threads connect, query, reset and finish while instances come and go. */
#define _GNU_SOURCE
#include <stdlib.h>

#include "../libpq-conmgr.h"
#include "rig.h"
#include "tap.h"

#define THREADS 8

static struct rig rig;
static int rounds;
static int opened, broken, reset; /* atomic */

static void count(int *what)
{
	__atomic_add_fetch(what, 1, __ATOMIC_SEQ_CST);
}

static void use(PGconn *conn, int round)
{
	PGresult *result = PQexec(conn, round % 3 ? "SELECT" : "hang");

	PQclear(result);
	if (PQstatus(conn) == CONNECTION_OK)
		return;
	count(&broken);
	PQreset(conn);
	if (PQstatus(conn) == CONNECTION_OK)
		count(&reset);
}

static void *work(void *arg)
{
	(void)arg;
	for (int i = 0; i < rounds; i++) {
		PGconn *conn = PQconnectdb(rig.conninfo);

		if (PQstatus(conn) == CONNECTION_OK && PQcmSocket(conn) >= 0) {
			count(&opened);
			use(conn, i);
		}
		PQfinish(conn);
	}
	return NULL;
}

/* Takes the instances away in turn, until told to stop. */
static void *trouble(void *arg)
{
	int *stop = arg;

	for (int i = 0; !__atomic_load_n(stop, __ATOMIC_SEQ_CST); i++) {
		cm_offer(rig.cm, (i + 1) % 2, true);
		cm_fault(rig.cm, i % 2);
		if (i % 20 == 10) {
			cm_restart(rig.cm);
			cm_back(rig.cm);
		}
		wait_ms(5 + i * 7 % 100); /* some time for whoever is slow */
	}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t worker[THREADS], troubler;
	int stop = 0;

	rounds = argc > 1 ? atoi(argv[1]) : 60;
	rig_open(&rig);
	pthread_create(&troubler, NULL, trouble, &stop);
	for (int i = 0; i < THREADS; i++)
		pthread_create(&worker[i], NULL, work, NULL);
	for (int i = 0; i < THREADS; i++)
		pthread_join(worker[i], NULL);
	__atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
	pthread_join(troubler, NULL);
	ok(opened > THREADS, "%d connections were guarded", opened);
	ok(broken > 0, "%d were broken", broken);
	ok(reset > 0, "%d were reset", reset);
	rig_close(&rig);
	return tap_done();
}
