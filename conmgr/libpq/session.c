/* SPDX-License-Identifier: Apache-2.0 */
#define _POSIX_C_SOURCE 200809L
#include <string.h>

#include "session.h"

/* PostgreSQL's own clients take no longer message for a sane one at startup. */
#define MESSAGE_MOST 30000

static uint32_t get32(const void *p)
{
	const unsigned char *b = p;

	return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

void session_begin(struct session *s, struct instance_list *list, const struct address *want)
{
	s->phase = SESSION_GREETING;
	s->restart = s->served = s->refused = false;
	s->list = list;
	s->want = want;
	s->head_len = 0;
}

void session_end(struct session *s)
{
	s->phase = SESSION_ENDED;
}

bool session_answered(const struct session *s)
{
	return s->phase >= SESSION_BOUND;
}

/* Whether the body of a message is the string text from its byte at on. */
static bool body_has(const struct session *s, uint32_t at, const char *text)
{
	size_t len = strlen(text) + 1;

	return at <= s->kept && s->kept - at >= len && memcmp(s->body + at, text, len) == 0;
}

/* Whether an ErrorResponse has the SQLSTATE: fields of a letter and a string. */
static bool error_is(const struct session *s, const char *sqlstate)
{
	uint32_t at = 0;

	while (at < s->kept && s->body[at] != '\0') {
		if (s->body[at] == 'C')
			return body_has(s, at + 1, sqlstate);
		at += 1 + (uint32_t)strnlen(s->body + at + 1, s->kept - at - 1) + 1;
	}
	return false;
}

static void on_error(struct session *s)
{
	if (s->phase == SESSION_TARGETING && error_is(s, "58C01"))
		s->refused = true;
	else
		session_end(s);
}

/* NotificationResponse: pid, channel, payload. */
static void on_notification(struct session *s)
{
	static const char channel[] = "conmgr_fault";
	const uint32_t payload = 4 + sizeof(channel);

	if (!body_has(s, 4, channel) || s->kept <= payload)
		return;
	s->body[s->kept] = '\0';
	if (strstr(s->body + payload, "\"reason\":\"restart\"") != NULL)
		s->restart = true;
}

/*
 * Cuts the first four columns out of a DataRow, each into a string of its own in
 * the body: the length word before a column is not needed any more when its text
 * moves there.
 */
static bool split_row(struct session *s, const char *text[4])
{
	uint32_t at = 2, len;

	if (s->kept < 2 || ((unsigned char)s->body[0] << 8 | (unsigned char)s->body[1]) < 4)
		return false;
	for (int i = 0; i < 4; i++) {
		if (s->kept - at < 4)
			return false;
		len = get32(s->body + at);
		text[i] = NULL;
		if (len == UINT32_MAX) {
			at += 4;
			continue;
		}
		if (len > s->kept - at - 4)
			return false;
		memmove(s->body + at, s->body + at + 4, len);
		s->body[at + len] = '\0';
		if (strlen(s->body + at) != len)
			return false;
		text[i] = s->body + at;
		at += 4 + len;
	}
	return true;
}

static void on_row(struct session *s)
{
	const char *text[4];
	struct instance row;

	if (s->phase != SESSION_TARGETING && s->phase != SESSION_LISTING)
		return;
	if (!split_row(s, text) || !instance_parse(&row, text) ||
	    (s->want != NULL && !address_equal(s->want, &row.address))) {
		session_end(s);
		return;
	}
	if (s->list != NULL)
		instance_list_add(s->list, &row);
	if (s->phase != SESSION_TARGETING)
		return;
	s->served = true;
	if (s->list != NULL)
		s->list->offered = s->list->count;
}

static void on_ready(struct session *s)
{
	switch (s->phase) {
	case SESSION_GREETING:
		s->phase = SESSION_TARGETING;
		return;
	case SESSION_TARGETING:
		if (s->served == s->refused) { /* both or neither */
			session_end(s);
			return;
		}
		if (s->list != NULL) {
			s->phase = SESSION_LISTING;
			return;
		}
		/* fall through */
	case SESSION_LISTING:
		s->phase = s->served ? SESSION_BOUND : SESSION_REFUSED;
		return;
	case SESSION_BOUND:
	case SESSION_REFUSED:
	case SESSION_ENDED:
		session_end(s);
	}
}

/* Takes one whole message, of which the beginning is kept. */
static void on_message(struct session *s)
{
	switch (s->head[0]) {
	case 'R': /* anything but AuthenticationOk asks for a password */
		if (s->phase != SESSION_GREETING || s->kept != 4 || get32(s->body) != 0)
			session_end(s);
		return;
	case 'D':
		on_row(s);
		return;
	case 'Z':
		on_ready(s);
		return;
	case 'E':
		on_error(s);
		return;
	case 'A':
		on_notification(s);
		return;
	case 'C': /* CommandComplete, and what comes at startup */
	case 'K':
	case 'N':
	case 'S':
	case 'T':
	case 'v':
		return;
	default:
		session_end(s);
	}
}

/* Takes bytes of type and length; returns how many. */
static size_t feed_head(struct session *s, const char *bytes, size_t len)
{
	size_t n = sizeof(s->head) - s->head_len;
	uint32_t length;

	if (n > len)
		n = len;
	memcpy(s->head + s->head_len, bytes, n);
	s->head_len += (unsigned)n;
	if (s->head_len < sizeof(s->head))
		return n;
	length = get32(s->head + 1);
	if (length < 4 || length > MESSAGE_MOST) {
		session_end(s);
		return n;
	}
	s->left = length - 4;
	s->kept = 0;
	return n;
}

/* Takes bytes of the body; returns how many. */
static size_t feed_body(struct session *s, const char *bytes, size_t len)
{
	size_t n = s->left < len ? s->left : len;
	size_t keep = SESSION_BODY_SIZE - s->kept;

	if (keep > n)
		keep = n;
	memcpy(s->body + s->kept, bytes, keep);
	s->kept += (uint32_t)keep;
	s->left -= (uint32_t)n;
	return n;
}

void session_feed(struct session *s, const char *bytes, size_t len)
{
	size_t n;

	while (s->phase != SESSION_ENDED) {
		if (s->head_len == sizeof(s->head) && s->left == 0) {
			on_message(s);
			s->head_len = 0;
			continue;
		}
		if (len == 0)
			return;
		if (s->head_len < sizeof(s->head))
			n = feed_head(s, bytes, len);
		else
			n = feed_body(s, bytes, len);
		bytes += n;
		len -= n;
	}
}
