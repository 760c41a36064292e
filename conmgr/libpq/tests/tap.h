/* SPDX-License-Identifier: Apache-2.0 */
/* Results in the form of TAP: one line for each fact that was looked at. */
#ifndef TAP_H
#define TAP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static int tap_count, tap_failed;

/* Notes whether a fact is as it must be; returns it. */
__attribute__((format(printf, 2, 3))) static inline bool ok(bool is, const char *what, ...)
{
	char text[512];
	va_list args;

	va_start(args, what);
	vsnprintf(text, sizeof(text), what, args);
	va_end(args);
	for (char *c = text; *c; c++)
		if (*c == '\n')
			*c = ' ';
	printf("%s %d - %s\n", is ? "ok" : "not ok", ++tap_count, text);
	fflush(stdout);
	tap_failed += !is;
	return is;
}

/* The same for two strings; NULL is one of its own. */
__attribute__((unused)) static bool same(const char *got, const char *want, const char *what)
{
	bool is = got && want ? strcmp(got, want) == 0 : got == want;

	ok(is, "%s", what);
	if (!is)
		printf("# got %s, want %s\n", got ? got : "NULL", want ? want : "NULL");
	return is;
}

/* Ends the program: the plan, and the exit code. */
static inline int tap_done(void)
{
	printf("1..%d\n", tap_count);
	return tap_failed > 0;
}

#endif
