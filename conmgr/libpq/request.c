/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "session.h"

/* The startup packet, protocol 3.0; its length word goes before. */
static const char startup[] = "\0\3\0\0"
			      "user\0libconmgr\0"
			      "database\0conmgr\0"
			      "application_name\0libconmgr\0";

static void put32(char *p, uint32_t n)
{
	p[0] = (char)(n >> 24);
	p[1] = (char)(n >> 16);
	p[2] = (char)(n >> 8);
	p[3] = (char)n;
}

static size_t put_query(char *p, const char *text)
{
	size_t len = strlen(text) + 1;

	p[0] = 'Q';
	put32(p + 1, (uint32_t)(4 + len));
	memcpy(p + 5, text, len);
	return 5 + len;
}

/* Whether text is a value of target_session_attrs, or could be one. */
static bool is_word(const char *text)
{
	size_t len = strspn(text, "abcdefghijklmnopqrstuvwxyz-");

	return len > 0 && len < 32 && text[len] == '\0';
}

size_t session_request(char buf[SESSION_REQUEST_SIZE], const char *target, int number)
{
	char command[64];
	size_t len;

	if (!is_word(target))
		return 0;
	/* The string's own end is that of the packet. */
	len = 4 + sizeof(startup);
	put32(buf, (uint32_t)len);
	memcpy(buf + 4, startup, sizeof(startup));
	if (number >= 0) {
		snprintf(command, sizeof(command), "TARGET %s INSTANCE %d", target, number);
		return len + put_query(buf + len, command);
	}
	snprintf(command, sizeof(command), "TARGET %s", target);
	len += put_query(buf + len, command);
	return len + put_query(buf + len, "SHOW INSTANCES");
}
