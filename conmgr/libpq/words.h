/* SPDX-License-Identifier: Apache-2.0 */
/* The parameters of a connection: what libpq makes of them, and what it is given. */
#ifndef CM_WORDS_H
#define CM_WORDS_H

#include <stdbool.h>

#include <libpq-fe.h>

/* Parameters as PQconnectdbParams takes them. */
struct words {
	const char *const *keywords;
	const char *const *values;
	int expand_dbname;
};

/* A list of parameters to which more can be added. */
struct word_list {
	int count;
	const char **keywords, **values; /* end with NULL */
};

/*
 * Copies the pointers of a list and leaves room for more; the strings stay the
 * caller's. False without memory.
 */
bool word_list_copy(struct word_list *l, const struct words *w);

/* The most that can be added. */
#define WORD_LIST_ROOM 8

/* Adds a parameter, which has priority over those before. */
void word_list_add(struct word_list *l, const char *keyword, const char *value);

void word_list_free(struct word_list *l);

/*
 * What libpq itself makes of the parameters: of keywords, a connection string or
 * URI, the service file and the environment. PQconninfoFree frees it. NULL when
 * libpq cannot read them. It connects to nothing.
 */
PQconninfoOption *words_resolve(const void *caller, const struct words *w);

/* The value of a keyword; NULL when it has none. */
const char *option_value(const PQconninfoOption *options, const char *keyword);

/* The attribute to ask conmgr for. */
const char *option_target(const PQconninfoOption *options);

/*
 * How the libpq of this version (PQlibVersion) spells an attribute that conmgr
 * has served already; NULL when as it is.
 */
const char *target_for_libpq(const char *target, int version);

#endif
