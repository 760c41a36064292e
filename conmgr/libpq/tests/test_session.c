/* SPDX-License-Identifier: Apache-2.0 */
/* The console's protocol: what conmgr says, cut anyhow, and what nobody says. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdlib.h>

#include "../session.h"
#include "tap.h"

/* Bytes under construction. */
struct stream {
	char bytes[8192];
	size_t len;
};

static void put(struct stream *s, const void *bytes, size_t len)
{
	memcpy(s->bytes + s->len, bytes, len);
	s->len += len;
}

static void put32(struct stream *s, uint32_t n)
{
	unsigned char b[4] = { (unsigned char)(n >> 24), (unsigned char)(n >> 16), (unsigned char)(n >> 8),
			       (unsigned char)n };

	put(s, b, sizeof(b));
}

static void message(struct stream *s, char type, const void *body, size_t len)
{
	put(s, &type, 1);
	put32(s, (uint32_t)(4 + len));
	put(s, body, len);
}

static void greeting(struct stream *s)
{
	message(s, 'R', "\0\0\0\0", 4);
	message(s, 'S', "server_version\00016.0", 20);
	message(s, 'K', "\0\0\0\1\1\2\3\4", 8);
	message(s, 'Z', "I", 1);
}

static void row(struct stream *s, int columns, const char *const *text)
{
	struct stream b = { .len = 0 };
	unsigned char count[2] = { 0, (unsigned char)columns };

	put(&b, count, 2);
	for (int i = 0; i < columns; i++) {
		put32(&b, text[i] ? (uint32_t)strlen(text[i]) : UINT32_MAX);
		if (text[i])
			put(&b, text[i], strlen(text[i]));
	}
	message(s, 'D', b.bytes, b.len);
}

static const char *const db1[] = { "0", "db1", "192.0.2.1", "5432", "primary" };
static const char *const db2[] = { "1", NULL, "192.0.2.2", "5433", "standby", "more", "columns" };

static void table(struct stream *s, bool first, bool second)
{
	message(s, 'T', "\0\0", 2);
	if (first)
		row(s, 5, db1);
	if (second)
		row(s, 7, db2);
	message(s, 'C', "SHOW", 5);
	message(s, 'Z', "I", 1);
}

static void refusal(struct stream *s, const char *sqlstate)
{
	struct stream b = { .len = 0 };

	put(&b, "SERROR", 7);
	put(&b, "C", 1);
	put(&b, sqlstate, 6);
	put(&b, "Mno instance\0", 14);
	message(s, 'E', b.bytes, b.len);
}

static void notice(struct stream *s, const char *payload)
{
	struct stream b = { .len = 0 };

	put(&b, "\0\0\0\0conmgr_fault", 17);
	put(&b, payload, strlen(payload) + 1);
	message(s, 'A', b.bytes, b.len);
	refusal(s, "57P01");
}

/* Feeds a stream in pieces of the given size. */
static void feed(struct session *s, const struct stream *b, size_t piece)
{
	for (size_t at = 0; at < b->len; at += piece)
		session_feed(s, b->bytes + at, b->len - at < piece ? b->len - at : piece);
}

/* An answer to TARGET with a list: both instances, the first one offered. */
static void answer(struct stream *s)
{
	greeting(s);
	table(s, true, false);
	table(s, true, true);
}

static struct instance_list list;

static void begin(struct session *s, struct instance_list *l)
{
	memset(&list, 0, sizeof(list));
	session_begin(s, l, NULL);
}

static void check_answer(void)
{
	static const size_t pieces[] = { 1, 2, 3, 7, 64, 8192 };
	struct stream b = { .len = 0 };
	struct session s;

	answer(&b);
	for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
		begin(&s, &list);
		feed(&s, &b, pieces[i]);
		ok(s.phase == SESSION_BOUND && list.offered == 1 && list.count == 2,
		   "in pieces of %zu: phase %d, %d of %d offered", pieces[i], s.phase, list.offered, list.count);
	}
	same(list.row[0].host, "db1", "host");
	same(list.row[1].host, "", "no host");
	same(list.row[1].hostaddr, "192.0.2.2", "address");
	ok(list.row[1].number == 1 && list.row[1].address.port == 5433, "number and port");
	for (size_t n = 0; n < b.len; n++) {
		struct stream part = b;

		part.len = n;
		begin(&s, &list);
		feed(&s, &part, 8192);
		if (session_answered(&s))
			break;
		if (n == b.len - 1)
			ok(true, "no part of the answer is one");
	}
	/* What is left out of the stream's end stays out. */
	session_end(&s);
	ok(s.phase == SESSION_ENDED && session_answered(&s), "the end of the stream is an answer too");
}

static void check_phase(const char *what, const struct stream *b, bool listed, enum session_phase want)
{
	struct session s;

	begin(&s, listed ? &list : NULL);
	feed(&s, b, 5);
	ok(s.phase == want, "%s: phase %d, want %d", what, s.phase, want);
}

static void check_refusals(void)
{
	struct stream none = { .len = 0 }, other = { .len = 0 }, early = { .len = 0 }, password = { .len = 0 };
	struct stream empty = { .len = 0 }, both = { .len = 0 };

	greeting(&none);
	refusal(&none, "58C01");
	message(&none, 'Z', "I", 1);
	check_phase("58C01", &none, false, SESSION_REFUSED);
	table(&none, true, true);
	check_phase("58C01 with a list", &none, true, SESSION_REFUSED);
	ok(list.offered == 0 && list.count == 2, "%d of %d offered", list.offered, list.count);

	greeting(&other);
	refusal(&other, "22023");
	check_phase("another error", &other, false, SESSION_ENDED);
	refusal(&early, "57P03");
	check_phase("an error in place of a greeting", &early, false, SESSION_ENDED);
	message(&password, 'R', "\0\0\0\3", 4);
	check_phase("a password is asked for", &password, false, SESSION_ENDED);
	greeting(&empty);
	table(&empty, false, false);
	check_phase("neither row nor error", &empty, false, SESSION_ENDED);
	greeting(&both);
	row(&both, 5, db1);
	refusal(&both, "58C01");
	message(&both, 'Z', "I", 1);
	check_phase("a row and an error", &both, false, SESSION_ENDED);
}

static void check_notices(void)
{
	struct stream b = { .len = 0 };
	struct session s;

	greeting(&b);
	table(&b, true, false);
	begin(&s, NULL);
	feed(&s, &b, 11);
	ok(s.phase == SESSION_BOUND, "bound without a list");

	b.len = 0;
	notice(&b, "{\"instance\":0,\"host\":\"db1\",\"reason\":\"timeout\",\"silence_ms\":300}");
	feed(&s, &b, 3);
	ok(s.phase == SESSION_ENDED && !s.restart, "a fault");

	b.len = 0;
	answer(&b);
	notice(&b, "{\"instance\":null,\"host\":\"\",\"reason\":\"restart\",\"silence_ms\":0}");
	begin(&s, &list);
	feed(&s, &b, 8192);
	ok(s.phase == SESSION_ENDED && s.restart, "a restart, in one piece with the answer");
}

/* A conmgr with another configuration: the number means another instance. */
static void check_elsewhere(void)
{
	struct stream b = { .len = 0 };
	struct address at;
	struct session s;

	greeting(&b);
	table(&b, true, false);
	address_parse(&at, "192.0.2.1", 5432);
	session_begin(&s, NULL, &at);
	feed(&s, &b, 8192);
	ok(s.phase == SESSION_BOUND, "the instance that is wanted");
	at.port = 5433;
	session_begin(&s, NULL, &at);
	feed(&s, &b, 8192);
	ok(s.phase == SESSION_ENDED, "another port");
	address_parse(&at, "192.0.2.9", 5432);
	session_begin(&s, NULL, &at);
	feed(&s, &b, 8192);
	ok(s.phase == SESSION_ENDED, "another address");
}

static void check_nonsense(void)
{
	struct stream b = { .len = 0 };
	char big[2000];
	const char *columns[] = { "0", big, "192.0.2.1", "5432" };
	static const char *const inner[] = { "0", "db1", "192.0.2.1", "5432" };

	put(&b, "HTTP/1.1 400 Bad Request\r\n", 26);
	check_phase("HTTP", &b, true, SESSION_ENDED);
	b.len = 0;
	put(&b, "R\377\377\377\377", 5);
	check_phase("a length of 4 GiB", &b, true, SESSION_ENDED);
	b.len = 0;
	put(&b, "R\0\0\0\3", 5);
	check_phase("a length of 3", &b, true, SESSION_ENDED);
	b.len = 0;
	greeting(&b);
	message(&b, 'D', "\0\5\0\0\0\100", 6);
	check_phase("a column longer than its row", &b, true, SESSION_ENDED);
	b.len = 0;
	greeting(&b);
	message(&b, 'D', "\0\4", 2);
	check_phase("a row without its columns", &b, true, SESSION_ENDED);
	b.len = 0;
	greeting(&b);
	row(&b, 3, inner);
	check_phase("too few columns", &b, true, SESSION_ENDED);
	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	b.len = 0;
	greeting(&b);
	row(&b, 4, columns);
	check_phase("a host of 2,000 bytes", &b, true, SESSION_ENDED);
	b.len = 0;
	greeting(&b);
	message(&b, 'N', big, sizeof(big));
	check_phase("a long notice is let pass", &b, true, SESSION_TARGETING);
	b.len = 0;
	greeting(&b);
	message(&b, 'D', "\0\4\0\0\0\3\0a\0\377\377\377\377\377\377\377\377\377\377\377\377", 21);
	check_phase("a NUL in a column", &b, true, SESSION_ENDED);
}

static void check_request(void)
{
	static const char startup[] = "\0\0\0\103\0\3\0\0user\0libconmgr\0database\0conmgr\0"
				      "application_name\0libconmgr\0";
	static const char both[] = "TARGET any\0Q\0\0\0\023SHOW INSTANCES";
	char buf[SESSION_REQUEST_SIZE];
	size_t len = session_request(buf, "prefer-standby", 1000000000);

	ok(sizeof(startup) == 0103, "the test's own length: %zu", sizeof(startup));
	ok(memcmp(buf, startup, sizeof(startup)) == 0, "startup packet");
	ok(memmem(buf, len, "TARGET prefer-standby INSTANCE 1000000000", 42) != NULL, "one instance");
	len = session_request(buf, "any", -1);
	ok(memmem(buf, len, both, sizeof(both)) != NULL, "all instances");
	ok(session_request(buf, "any; SHUTDOWN", -1) == 0, "no word");
	ok(session_request(buf, "", -1) == 0, "nothing");
	ok(session_request(buf, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", -1) == 0, "a long word");
}

static uint64_t seed = 88172645463325252u;

/* xorshift: the same numbers on each machine. */
static uint32_t random_below(uint32_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 32) % n;
}

/* Spoils a stream: bytes, its end, pieces of it. */
static void spoil(struct stream *b)
{
	for (uint32_t n = random_below(6); n > 0; n--)
		b->bytes[random_below((uint32_t)b->len)] = (char)random_below(256);
	if (random_below(4) == 0)
		b->len = 1 + random_below((uint32_t)b->len);
	if (random_below(4) == 0) {
		uint32_t from = random_below((uint32_t)b->len), len = random_below((uint32_t)b->len - from);

		if (b->len + len <= sizeof(b->bytes))
			put(b, b->bytes + from, len);
	}
}

static bool is_sane(const struct session *s)
{
	if (s->phase > SESSION_ENDED || list.count < 0 || list.count > CM_MOST_INSTANCES ||
	    list.offered > list.count || s->kept > SESSION_BODY_SIZE)
		return false;
	for (int i = 0; i < list.count; i++)
		if (!memchr(list.row[i].host, '\0', CM_HOST_SIZE) ||
		    !memchr(list.row[i].hostaddr, '\0', CM_HOSTADDR_SIZE) || list.row[i].address.port == 0 ||
		    strpbrk(list.row[i].host, ",/@ ") || strpbrk(list.row[i].hostaddr, ",/@ "))
			return false;
	return true;
}

/* Whatever comes, the session stays in its bounds; the sanitizers look, too. */
static void check_random(int rounds)
{
	struct stream b;
	struct session s;
	int bound = 0, insane = 0;

	for (int i = 0; i < rounds; i++) {
		b.len = 0;
		answer(&b);
		if (i % 2)
			notice(&b, "{\"reason\":\"restart\"}");
		spoil(&b);
		begin(&s, i % 3 ? &list : NULL);
		feed(&s, &b, 1 + random_below(100));
		bound += s.phase == SESSION_BOUND;
		insane += !is_sane(&s);
	}
	ok(insane == 0, "%d of %d spoiled streams left the bounds", insane, rounds);
	ok(bound > 0 && bound < rounds, "%d of them still made an answer", bound);
}

static void check_flood(void)
{
	struct stream b = { .len = 0 };
	struct session s;
	char number[16];
	const char *text[] = { number, "db1", "192.0.2.1", "5432" };

	greeting(&b);
	begin(&s, &list);
	feed(&s, &b, 100);
	for (int i = 0; i < 1000; i++) {
		snprintf(number, sizeof(number), "%d", i);
		b.len = 0;
		row(&b, 4, text);
		feed(&s, &b, 100);
	}
	ok(list.count == CM_MOST_INSTANCES && is_sane(&s), "1,000 rows: %d kept", list.count);
}

int main(int argc, char **argv)
{
	check_answer();
	check_refusals();
	check_notices();
	check_elsewhere();
	check_nonsense();
	check_request();
	check_flood();
	check_random(argc > 1 ? atoi(argv[1]) : 20000);
	return tap_done();
}
