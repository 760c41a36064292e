/* SPDX-License-Identifier: Apache-2.0 */
/* Every way to connect, with and without a conmgr at the other end. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <unistd.h>

#include "../libpq-conmgr.h"
#include "rig.h"
#include "tap.h"

static struct rig rig;
static char service_file[] = "/tmp/test_forms.XXXXXX";

/* Texts that name localhost and a port. */
static char keywords[256], uri[256], port_text[8], service[64];

static PGconn *by_keywords(void)
{
	return PQconnectdb(keywords);
}

static PGconn *by_uri(void)
{
	return PQconnectdb(uri);
}

static PGconn *by_service(void)
{
	return PQconnectdb(service);
}

static PGconn *in_environment(PGconn *(*connect_it)(void))
{
	PGconn *conn;

	setenv("PGHOST", "localhost", 1);
	setenv("PGPORT", port_text, 1);
	setenv("PGUSER", "app", 1);
	setenv("PGSSLMODE", "disable", 1);
	conn = connect_it();
	unsetenv("PGHOST");
	unsetenv("PGPORT");
	unsetenv("PGUSER");
	unsetenv("PGSSLMODE");
	return conn;
}

static PGconn *with_nothing(void)
{
	return PQconnectdb(" ");
}

static PGconn *params_with_nothing(void)
{
	static const char *const none[] = { NULL };

	return PQconnectdbParams(none, none, 0);
}

static PGconn *by_environment(void)
{
	return in_environment(with_nothing);
}

static PGconn *by_environment_params(void)
{
	return in_environment(params_with_nothing);
}

static PGconn *by_params(void)
{
	const char *const k[] = { "host", "port", "user", "sslmode", "dbname", NULL };
	const char *const v[] = { "localhost", port_text, "app", "disable", "a=b", NULL };

	return PQconnectdbParams(k, v, 0);
}

static PGconn *by_expanded_params(void)
{
	const char *const k[] = { "hostaddr", "port", "dbname", "application_name", NULL };
	const char *const v[] = { "", "1", uri, "test", NULL };

	return PQconnectdbParams(k, v, 1);
}

static PGconn *by_login(void)
{
	return PQsetdbLogin("127.0.0.1", port_text, NULL, NULL, "app", "app", NULL);
}

static PGconn *by_login_expanded(void)
{
	return PQsetdbLogin(NULL, NULL, NULL, NULL, uri, "app", NULL);
}

static PGconn *by_start(void)
{
	PGconn *conn = PQconnectStart(keywords);

	poll_through(conn, PQconnectPoll);
	return conn;
}

static PGconn *by_start_params(void)
{
	const char *const k[] = { "host", "port", "user", "sslmode", NULL };
	const char *const v[] = { "::1", port_text, "app", "disable", NULL };
	PGconn *conn;

	if (rig.cm == NULL) /* the fake server has no IPv6 */
		return by_start();
	conn = PQconnectStartParams(k, v, 0);
	poll_through(conn, PQconnectPoll);
	return conn;
}

static const struct {
	const char *what;
	PGconn *(*connect)(void);
} forms[] = {
	{ "PQconnectdb, keywords", by_keywords },
	{ "PQconnectdb, URI", by_uri },
	{ "PQconnectdb, service file", by_service },
	{ "PQconnectdb, environment", by_environment },
	{ "PQconnectdbParams, environment", by_environment_params },
	{ "PQconnectdbParams", by_params },
	{ "PQconnectdbParams, expanded", by_expanded_params },
	{ "PQsetdbLogin", by_login },
	{ "PQsetdbLogin, expanded", by_login_expanded },
	{ "PQconnectStart", by_start },
	{ "PQconnectStartParams", by_start_params },
};

/* Writes the texts for a port. */
static void aim(int port)
{
	FILE *f = fopen(service_file, "w");

	snprintf(port_text, sizeof(port_text), "%d", port);
	snprintf(keywords, sizeof(keywords), "host=localhost port=%d user=app sslmode=disable", port);
	snprintf(uri, sizeof(uri), "postgresql://app@localhost:%d/app?sslmode=disable", port);
	snprintf(service, sizeof(service), "service=test");
	if (f == NULL)
		exit(2);
	fprintf(f, "[test]\nhost=localhost\nport=%d\nuser=app\nsslmode=disable\n", port);
	fclose(f);
	setenv("PGSERVICEFILE", service_file, 1);
}

/* With a conmgr, every form leads to the instance, once, and nowhere else. */
static void check_direct(const char *what, PGconn *(*connect_it)(void))
{
	int before = server_accepted(rig.db[0]), open = descriptors();
	PGconn *conn = connect_it();

	ok(is_at(conn, rig.db[0]), "%s: at the instance%s%s", what, PQstatus(conn) ? ": " : "",
	   PQstatus(conn) ? PQerrorMessage(conn) : "");
	same(PQhost(conn), "db0", "PQhost is the instance's");
	same(PQhostaddr(conn), "127.0.0.1", "PQhostaddr, too");
	ok(PQcmSocket(conn) >= 0 && !readable(PQcmSocket(conn), 0), "PQcmSocket is quiet");
	ok(EVENTUALLY(cm_bound(rig.cm, 0) == 1), "conmgr knows of it");
	ok(server_accepted(rig.db[0]) == before + 1, "one connect at the instance");
	PQfinish(conn);
	ok(PQcmSocket(conn) == -1, "nothing is left");
	ok(EVENTUALLY(cm_bound(rig.cm, 0) == 0), "conmgr knows that it has gone");
	/* The watcher's, which stay, are there from the first connection on. */
	ok(EVENTUALLY(descriptors() <= open + 2), "%d descriptors, %d before", descriptors(), open);
}

/* Without one, libpq connects once, and the library is not seen. */
static void check_plain(struct server *db, const char *what, PGconn *(*connect_it)(void))
{
	int before = server_accepted(db), open = descriptors();
	PGconn *conn = connect_it();

	ok(is_at(conn, db), "plain %s: %s", what, PQerrorMessage(conn));
	same(PQhost(conn), conn && strcmp(what, "PQsetdbLogin") == 0 ? "127.0.0.1" : "localhost", "PQhost as it was given");
	ok(PQcmSocket(conn) == -1, "no PQcmSocket");
	ok(server_accepted(db) == before + 1, "one connect");
	PQfinish(conn);
	ok(EVENTUALLY(descriptors() <= open), "%d descriptors, %d before", descriptors(), open);
}

static void check_pings(void)
{
	const char *const k[] = { "dbname", NULL };
	const char *const v[] = { uri, NULL };

	ok(PQping(keywords) == PQPING_OK, "PQping");
	ok(PQpingParams(k, v, 1) == PQPING_OK, "PQpingParams");
	cm_offer(rig.cm, 0, false);
	cm_offer(rig.cm, 1, true);
	ok(PQping(uri) == PQPING_OK && server_accepted(rig.db[1]) == 1, "PQping of the other instance");
	cm_offer(rig.cm, 0, true);
	cm_offer(rig.cm, 1, false);
	ok(EVENTUALLY(cm_bound(rig.cm, 0) + cm_bound(rig.cm, 1) == 0), "no session is left of a ping");
}

/* What libpq calls an error is one, in libpq's own words. */
static void check_errors(void)
{
	PGconn *conn = PQconnectdb("nonsense");

	ok(PQstatus(conn) == CONNECTION_BAD && strstr(PQerrorMessage(conn), "missing \"=\"") != NULL, "%s",
	   PQerrorMessage(conn));
	PQfinish(conn);
	conn = PQconnectdb("host=localhost port=1,2");
	ok(PQstatus(conn) == CONNECTION_BAD && strstr(PQerrorMessage(conn), "port") != NULL, "%s", PQerrorMessage(conn));
	PQfinish(conn);
	conn = PQconnectdb("host=localhost target_session_attrs=best");
	ok(PQstatus(conn) == CONNECTION_BAD && strstr(PQerrorMessage(conn), "target_session_attrs") != NULL, "%s",
	   PQerrorMessage(conn));
	PQfinish(conn);
	PQfinish(NULL);
	PQreset(NULL);
	ok(PQcmSocket(NULL) == -1 && PQresetStart(NULL) == 0 && PQconnectPoll(NULL) == PGRES_POLLING_FAILED, "NULL");
}

int main(void)
{
	struct server *db = server_start(0);
	size_t n = sizeof(forms) / sizeof(forms[0]);
	int fd = mkstemp(service_file);

	close(fd);
	aim(db->port);
	for (size_t i = 0; i < n; i++)
		check_plain(db, forms[i].what, forms[i].connect);
	check_errors();
	server_stop(db);

	rig_open(&rig);
	aim(rig.cm->port);
	for (size_t i = 0; i < n; i++)
		check_direct(forms[i].what, forms[i].connect);
	check_pings();
	ok(server_accepted(rig.cm->tcp) == 0, "nobody has come to conmgr's TCP port");
	rig_close(&rig);
	unlink(service_file);
	return tap_done();
}
