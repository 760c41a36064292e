/* SPDX-License-Identifier: Apache-2.0 */
/* Several destinations: conmgrs and postmasters in any order (the guide's 3.3.1). */
#define _GNU_SOURCE
#include <stdlib.h>

#include "../libpq-conmgr.h"
#include "rig.h"
#include "tap.h"

static struct rig rig;
static struct cm *other; /* knows the second instance only */
static struct server *postmaster;
static uint16_t nobody; /* a port where nothing listens */

/* Connects to loopback ports in their order. */
static PGconn *open_ports(const int *port, int n, const char *more)
{
	char text[512] = "host=", ports[128] = "";

	for (int i = 0; i < n; i++) {
		strcat(text, i ? ",localhost" : "localhost");
		sprintf(ports + strlen(ports), "%s%d", i ? "," : "", port[i]);
	}
	snprintf(text + strlen(text), sizeof(text) - strlen(text),
		 " port=%s user=app sslmode=disable gssencmode=disable connect_timeout=10 %s", ports, more);
	return PQconnectdb(text);
}

#define OPEN(more, ...) \
	open_ports((const int[]){ __VA_ARGS__ }, (int)(sizeof((const int[]){ __VA_ARGS__ }) / sizeof(int)), more)

static void expect(const char *what, PGconn *conn, const struct server *at, bool guarded)
{
	ok(is_at(conn, at), "%s: at port %d, want %d: %s", what, PQport(conn) ? atoi(PQport(conn)) : 0, at->port,
	   PQerrorMessage(conn));
	ok((PQcmSocket(conn) >= 0) == guarded, "%s PQcmSocket", guarded ? "a" : "no");
	PQfinish(conn);
}

static void check_order(void)
{
	int before;

	expect("conmgr first", OPEN("", rig.cm->port, postmaster->port), rig.db[0], true);
	before = server_accepted(rig.db[0]);
	expect("postmaster first", OPEN("", postmaster->port, rig.cm->port), postmaster, false);
	ok(server_accepted(rig.db[0]) == before, "the instance is not connected to");
	ok(EVENTUALLY(cm_bound(rig.cm, 0) == 0), "conmgr knows that nobody came");
	expect("a dead postmaster first", OPEN("", nobody, rig.cm->port), rig.db[0], true);
	expect("a dead conmgr first", OPEN("", nobody, other->port, postmaster->port), rig.db[1], true);
	expect("two conmgrs", OPEN("", other->port, rig.cm->port), rig.db[1], true);
}

static void check_no_instance(void)
{
	cm_offer(rig.cm, 0, false);
	expect("a conmgr without instance, a postmaster", OPEN("", rig.cm->port, postmaster->port), postmaster, false);
	expect("a conmgr without instance, another conmgr", OPEN("", rig.cm->port, other->port), rig.db[1], true);
	/* Nobody is left: conmgr itself says why, on its port. */
	expect("a conmgr without instance", OPEN("", rig.cm->port), rig.cm->tcp, false);
	expect("the console", OPEN("dbname=conmgr", other->port), other->tcp, false);
	cm_offer(rig.cm, 0, true);
	expect("the console of an instance", OPEN("dbname=conmgr", rig.cm->port), rig.cm->tcp, false);
}

/* An instance of a list that is offered by one conmgr and not by another. */
static void check_shared(void)
{
	PGconn *conn;

	cm_offer(rig.cm, 0, false);
	conn = OPEN("", rig.cm->port, other->port);
	ok(is_at(conn, rig.db[1]) && EVENTUALLY(cm_bound(other, 1) == 1 && cm_bound(rig.cm, 1) == 0), "bound to who offers it");
	cm_fault(other, 1);
	ok(readable(PQsocket(conn), 10000), "whose fault tells");
	PQfinish(conn);
	cm_offer(other, 1, true);
	cm_offer(rig.cm, 0, true);
}

static void check_targets(void)
{
	PGconn *conn;

	expect("prefer-read", OPEN("target_session_attrs=prefer-read", rig.cm->port), rig.db[0], true);
	rig.db[0]->standby = true;
	expect("standby", OPEN("target_session_attrs=standby", rig.cm->port), rig.db[0], true);
	/* libpq looks, too: what conmgr said may be over. */
	conn = OPEN("target_session_attrs=primary", rig.cm->port);
	ok(PQstatus(conn) == CONNECTION_BAD && strstr(PQerrorMessage(conn), "hot standby"), "a wrong role: %s",
	   PQerrorMessage(conn));
	PQfinish(conn);
	rig.db[0]->standby = false;
}

static void check_hostaddr(void)
{
	char text[256];
	PGconn *conn;

	snprintf(text, sizeof(text), "host=a,b hostaddr=127.0.0.1,127.0.0.1 port=%d,%d user=app sslmode=disable",
		 nobody, rig.cm->port);
	conn = PQconnectdb(text);
	same(PQhost(conn), "db0", "conmgr by its address, by any name");
	expect("hostaddr", conn, rig.db[0], true);
}

int main(void)
{
	rig_open(&rig);
	other = cm_start();
	cm_add(other, 1, rig.db[1]->port, true);
	postmaster = server_start(0);
	nobody = postmaster->port;
	server_stop(postmaster);
	postmaster = server_start(0);

	check_order();
	check_no_instance();
	check_shared();
	check_targets();
	check_hostaddr();
	server_stop(postmaster);
	cm_stop(other);
	rig_close(&rig);
	return tap_done();
}
