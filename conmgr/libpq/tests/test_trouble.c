/* SPDX-License-Identifier: Apache-2.0 */
/* A mark that behaves badly: libpq goes on as without the library, and soon. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../libpq-conmgr.h"
#include "../mark.h"
#include "rig.h"
#include "tap.h"

static struct rig rig;

/* Where a connect ends up that has nothing from conmgr. */
static void expect_plain(const char *what)
{
	int64_t start = now_ms();
	int before = server_accepted(rig.cm->tcp);
	PGconn *conn = PQconnectdb(rig.conninfo);

	ok(is_at(conn, rig.cm->tcp) && PQcmSocket(conn) == -1, "%s: at conmgr's own port: %s", what,
	   PQerrorMessage(conn));
	ok(server_accepted(rig.cm->tcp) == before + 1, "once");
	ok(now_ms() - start < MARK_PATIENCE + 5000, "after %lld ms", (long long)(now_ms() - start));
	PQfinish(conn);
}

static void check_moods(void)
{
	static const struct {
		enum mood mood;
		const char *what;
	} moods[] = {
		{ MOOD_SILENT, "silent" }, { MOOD_GARBAGE, "garbage" }, { MOOD_SLOW, "a byte now and then" },
		{ MOOD_CLOSING, "closing" }, { MOOD_FLOOD, "endless notices" },
	};

	for (size_t i = 0; i < sizeof(moods) / sizeof(moods[0]); i++) {
		cm_mood(rig.cm, moods[i].mood);
		expect_plain(moods[i].what);
	}
	cm_mood(rig.cm, MOOD_WELL);
}

/* One question after the other: all together have the patience of one. */
static void check_patience(void)
{
	struct instance_list *list = calloc(1, sizeof(*list));
	struct session s;
	int64_t start = now_ms();
	struct own o;

	cm_mood(rig.cm, MOOD_SILENT);
	session_begin(&s, list, NULL);
	o = mark_ask(rig.cm->port, &s, "any", -1, mark_clock() + MARK_PATIENCE);
	ok(o.fd < 0 && s.phase == SESSION_ENDED, "no answer");
	ok(now_ms() - start >= MARK_PATIENCE - 1, "not before the patience is over: %lld ms", (long long)(now_ms() - start));
	start = now_ms();
	session_begin(&s, list, NULL);
	o = mark_ask(rig.cm->port, &s, "any", -1, mark_clock() - 1);
	ok(o.fd < 0 && now_ms() - start < MARK_PATIENCE, "none is left");
	cm_mood(rig.cm, MOOD_WELL);
	free(list);
}

/* A conmgr that goes silent between step one and a further instance. */
static void check_silence_between(void)
{
	uint16_t port = rig.db[0]->port;
	int64_t start;
	PGconn *conn;

	server_stop(rig.db[0]);
	cm_offer(rig.cm, 1, true);
	conn = PQconnectStart(rig.conninfo);
	cm_mood(rig.cm, MOOD_SILENT);
	start = now_ms();
	poll_through(conn, PQconnectPoll);
	ok(PQstatus(conn) == CONNECTION_BAD, "the second is not tried unguarded: %s", PQerrorMessage(conn));
	ok(now_ms() - start < MARK_PATIENCE + 5000, "after %lld ms", (long long)(now_ms() - start));
	PQfinish(conn);
	cm_mood(rig.cm, MOOD_WELL);
	cm_offer(rig.cm, 1, false);
	rig.db[0] = server_start(port);
}

/* A mark that a user nobody holds, seen by root. */
static void check_foreign_mark(void)
{
	int ready[2], done[2], status;
	uint16_t port = 0;
	struct own o;
	pid_t child;
	char byte;

	if (geteuid() != 0 || pipe(ready) != 0 || pipe(done) != 0)
		return;
	child = fork();
	if (child == 0) {
		struct cm *own;

		close(done[1]);
		if (setresuid(65534, 65534, 65534) != 0)
			_exit(3);
		own = cm_start();
		if (write(ready[1], &own->port, sizeof(own->port)) != sizeof(own->port))
			_exit(4);
		_exit(read(done[0], &byte, 1) < 0);
	}
	ok(read(ready[0], &port, sizeof(port)) == sizeof(port), "a mark of nobody's");
	o = mark_open(port, mark_clock() + MARK_PATIENCE);
	ok(o.fd < 0, "is not believed");
	own_close(&o);
	setenv("PGCONMGR_USER", "nobody", 1);
	o = mark_open(port, mark_clock() + MARK_PATIENCE);
	ok(o.fd >= 0, "unless the environment names him");
	own_close(&o);
	setenv("PGCONMGR_USER", "65534", 1);
	o = mark_open(port, mark_clock() + MARK_PATIENCE);
	ok(o.fd >= 0, "by number, too");
	own_close(&o);
	setenv("PGCONMGR_USER", "daemon", 1);
	o = mark_open(port, mark_clock() + MARK_PATIENCE);
	ok(o.fd < 0, "and nobody else");
	own_close(&o);
	unsetenv("PGCONMGR_USER");
	close(done[0]);
	close(done[1]);
	waitpid(child, &status, 0);
	close(ready[0]);
	close(ready[1]);
}

int main(void)
{
	rig_open(&rig);
	check_moods();
	check_patience();
	check_silence_between();
	rig_close(&rig);
	check_foreign_mark();
	return tap_done();
}
