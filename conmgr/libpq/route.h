/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Step one of a connect: which of its destinations are conmgrs, and what they
 * answer. The result is what libpq is to be given for step two: the same list of
 * destinations with the instances in the place of their conmgr, those that it
 * offers first.
 */
#ifndef CM_ROUTE_H
#define CM_ROUTE_H

#include <stdbool.h>

#include "guard.h"
#include "words.h"

struct route {
	struct guard *guard; /* NULL: no conmgr is named, or none can be used */
	struct word_list words;
	int expand_dbname;
	char *text;          /* the values that were added */
};

/* Asks; false, and nothing to free, when there is no guard. */
bool route_find(struct route *r, const void *caller, const struct words *w);

/* Frees all but the guard. */
void route_free(struct route *r);

#endif
