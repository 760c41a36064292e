/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "mark.h"
#include "names.h"
#include "route.h"
#include "scope.h"

/* A conmgr among the destinations, and its answer. */
struct source {
	int at; /* which destination */
	uint16_t port;
	struct instance_list list;
};

#define MOST_SOURCES 8

/* What is being put together. */
struct plan {
	const char *target;
	struct names names;
	int sources;
	struct source *source[MOST_SOURCES];
	int64_t deadline;

	/* The session of the first conmgr that offers an instance. */
	struct own socket;
	struct session session;
	int first; /* its source, -1: none */
};

static struct source *source_at(const struct plan *p, int at)
{
	for (int i = 0; i < p->sources; i++)
		if (p->source[i]->at == at)
			return p->source[i];
	return NULL;
}

/* Keeps the answer of a destination that is a conmgr. */
static void ask(struct plan *p, int at, uint16_t port)
{
	struct source *s;
	struct session session;
	struct own o;

	if (p->sources == MOST_SOURCES)
		return;
	s = calloc(1, sizeof(*s));
	if (s == NULL)
		return;
	s->at = at;
	s->port = port;
	session_begin(&session, &s->list, NULL);
	o = mark_ask(port, &session, p->target, -1, p->deadline);
	if (session.phase == SESSION_ENDED || s->list.count == 0) {
		own_close(&o);
		free(s);
		return;
	}
	if (p->first < 0 && session.phase == SESSION_BOUND && s->list.offered > 0) {
		p->first = p->sources;
		p->socket = o;
		p->session = session;
		o = own_none;
	}
	own_close(&o);
	p->source[p->sources++] = s;
}

static void ask_all(struct plan *p)
{
	for (int i = 0; i < p->names.count; i++) {
		uint16_t port = name_local_port(&p->names.name[i]);

		if (port != 0)
			ask(p, i, port);
	}
}

/*
 * Whether step two makes sense: a destination is left that may take the connect.
 * Otherwise libpq goes to the conmgr itself and gets told why there is none.
 */
static bool is_useful(const struct plan *p)
{
	return p->sources > 0 && (p->first >= 0 || p->names.count > p->sources);
}

static int count_places(const struct plan *p)
{
	int n = 0;

	for (int i = 0; i < p->sources; i++)
		n += p->source[i]->list.count;
	return n;
}

static struct place *make_places(const struct plan *p)
{
	struct place *place = calloc((size_t)count_places(p), sizeof(*place));
	int n = 0;

	if (place == NULL)
		return NULL;
	for (int i = 0; i < p->sources; i++)
		for (int j = 0; j < p->source[i]->list.count; j++) {
			const struct instance *row = &p->source[i]->list.row[j];

			place[n++] = (struct place){ row->address, p->source[i]->port, row->number };
		}
	return place;
}

/* Where the instances of a source begin among the places. */
static int first_place(const struct plan *p, int source)
{
	int n = 0;

	for (int i = 0; i < source; i++)
		n += p->source[i]->list.count;
	return n;
}

/* The destinations of step two; what they point to is the plan's. */
static int list_names(const struct plan *p, struct name *out)
{
	int n = 0;

	for (int i = 0; i < p->names.count; i++) {
		const struct source *s = source_at(p, i);

		if (s == NULL) {
			out[n++] = p->names.name[i];
			continue;
		}
		for (int j = 0; j < s->list.count; j++) {
			const struct instance *row = &s->list.row[j];

			/* What TLS and the password file go by is never "localhost". */
			out[n++] = (struct name){ row->host[0] ? row->host : row->hostaddr, row->hostaddr, row->port };
		}
	}
	return n;
}

static size_t text_size(const struct name *name, int n)
{
	size_t size = 0;

	for (int i = 0; i < n; i++)
		size += strlen(name[i].host) + strlen(name[i].hostaddr) + strlen(name[i].port) + 3;
	return size;
}

/* Puts an item and a comma, or at the end of the list its end. */
static char *put_item(char *at, const char *item, bool last)
{
	at = stpcpy(at, item);
	*at++ = last ? '\0' : ',';
	return at;
}

/* Adds the lists of hosts, addresses and ports; r->text holds them. */
static bool add_names(struct route *r, const struct name *name, int n)
{
	char *host, *hostaddr, *port, *end;

	r->text = host = malloc(text_size(name, n));
	if (host == NULL)
		return false;
	hostaddr = host;
	for (int i = 0; i < n; i++)
		hostaddr = put_item(hostaddr, name[i].host, i == n - 1);
	port = hostaddr;
	for (int i = 0; i < n; i++)
		port = put_item(port, name[i].hostaddr, i == n - 1);
	end = port;
	for (int i = 0; i < n; i++)
		end = put_item(end, name[i].port, i == n - 1);
	word_list_add(&r->words, "host", host);
	word_list_add(&r->words, "hostaddr", hostaddr);
	word_list_add(&r->words, "port", port);
	return true;
}

/* Makes the parameters of step two. */
static bool make_words(struct route *r, const struct plan *p, const void *caller, const struct words *w)
{
	__typeof__(&PQlibVersion) version = SCOPE(caller, PQlibVersion);
	struct name *name = calloc((size_t)(count_places(p) + p->names.count), sizeof(*name));
	const char *target = version ? target_for_libpq(p->target, version()) : NULL;
	bool made;

	made = name != NULL && word_list_copy(&r->words, w) && add_names(r, name, list_names(p, name));
	if (made && target != NULL)
		word_list_add(&r->words, "target_session_attrs", target);
	free(name);
	return made;
}

/* Makes the guard, bound already to the best instance. */
static struct guard *make_guard(struct plan *p)
{
	struct place *place = make_places(p);
	struct guard *g = place ? guard_new(p->target, place, count_places(p)) : NULL;

	if (g == NULL)
		return NULL;
	g->patience = p->deadline - mark_clock();
	if (p->first >= 0) {
		guard_bind(g, &g->place[first_place(p, p->first)], p->socket, &p->session);
		p->socket = own_none;
	}
	return g;
}

static void carry_out(struct route *r, struct plan *p, const void *caller, const struct words *w)
{
	ask_all(p);
	if (!is_useful(p) || !make_words(r, p, caller, w))
		return;
	r->guard = make_guard(p);
}

static void free_plan(struct plan *p)
{
	own_close(&p->socket);
	for (int i = 0; i < p->sources; i++)
		free(p->source[i]);
	names_free(&p->names);
}

/* Whether one of the destinations may be a conmgr, and its console is not meant. */
static bool may_name_conmgr(const struct names *n, const PQconninfoOption *options)
{
	const char *database = option_value(options, "dbname");

	if (database == NULL || database[0] == '\0')
		database = option_value(options, "user");
	if (database != NULL && strcmp(database, "conmgr") == 0)
		return false;
	for (int i = 0; i < n->count; i++)
		if (name_local_port(&n->name[i]) != 0)
			return true;
	return false;
}

bool route_find(struct route *r, const void *caller, const struct words *w)
{
	PQconninfoOption *options = words_resolve(caller, w);
	struct plan p = { .first = -1, .socket = { -1, 0 } };

	memset(r, 0, sizeof(*r));
	r->expand_dbname = w->expand_dbname;
	if (options == NULL)
		return false;
	p.target = option_target(options);
	p.deadline = mark_clock() + MARK_PATIENCE;
	if (names_parse(&p.names, option_value(options, "host"), option_value(options, "hostaddr"),
			option_value(options, "port"))) {
		if (may_name_conmgr(&p.names, options))
			carry_out(r, &p, caller, w);
		free_plan(&p);
	}
	if (r->guard == NULL)
		route_free(r);
	SCOPE(caller, PQconninfoFree)(options);
	return r->guard != NULL;
}

void route_free(struct route *r)
{
	word_list_free(&r->words);
	free(r->text);
	r->text = NULL;
}
