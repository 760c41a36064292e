/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "scope.h"
#include "words.h"

bool word_list_copy(struct word_list *l, const struct words *w)
{
	size_t room;

	l->count = 0;
	while (w->keywords && w->keywords[l->count])
		l->count++;
	room = (size_t)l->count + WORD_LIST_ROOM + 1;
	l->keywords = calloc(room, sizeof(*l->keywords));
	l->values = calloc(room, sizeof(*l->values));
	if (l->keywords == NULL || l->values == NULL) {
		word_list_free(l);
		return false;
	}
	for (int i = 0; i < l->count; i++) {
		l->keywords[i] = w->keywords[i];
		l->values[i] = w->values[i];
	}
	return true;
}

void word_list_add(struct word_list *l, const char *keyword, const char *value)
{
	l->keywords[l->count] = keyword;
	l->values[l->count++] = value;
}

void word_list_free(struct word_list *l)
{
	free(l->keywords);
	free(l->values);
	l->keywords = l->values = NULL;
	l->count = 0;
}

/*
 * libpq has no function for this: PQconndefaults knows no service of the
 * connection string. But a connection with an sslmode that does not exist is given
 * up before anything is connected to, and has the parameters by then. The path
 * keeps it from reading a password file, of which it would complain twice.
 */
PQconninfoOption *words_resolve(const void *caller, const struct words *w)
{
	__typeof__(&PQconnectStartParams) start = SCOPE(caller, PQconnectStartParams);
	__typeof__(&PQconninfo) conninfo = SCOPE(caller, PQconninfo);
	__typeof__(&PQfinish) finish = SCOPE(caller, PQfinish);
	PQconninfoOption *options = NULL;
	struct word_list l;
	PGconn *conn;

	if (!start || !conninfo || !finish || !SCOPE(caller, PQconninfoFree) ||
	    !SCOPE(caller, PQconnectdbParams) || !SCOPE(caller, PQpingParams) || !word_list_copy(&l, w))
		return NULL;
	word_list_add(&l, "passfile", "/dev/null/none");
	word_list_add(&l, "sslmode", "none, only to look");
	conn = start(l.keywords, l.values, w->expand_dbname);
	if (conn != NULL)
		options = conninfo(conn);
	finish(conn);
	word_list_free(&l);
	return options;
}

const char *option_value(const PQconninfoOption *options, const char *keyword)
{
	for (; options->keyword; options++)
		if (strcmp(options->keyword, keyword) == 0)
			return options->val;
	return NULL;
}

const char *option_target(const PQconninfoOption *options)
{
	const char *target = option_value(options, "target_session_attrs");

	return target && target[0] ? target : "any";
}

const char *target_for_libpq(const char *target, int version)
{
	bool writes = strcmp(target, "read-write") == 0;

	if (version < 140000 && !writes && strcmp(target, "any") != 0)
		return strcmp(target, "primary") == 0 ? "read-write" : "any";
	return strcmp(target, "prefer-read") == 0 ? "prefer-standby" : NULL;
}
