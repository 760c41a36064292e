/* SPDX-License-Identifier: Apache-2.0 */
/* Destinations of a connection string, and the addresses of instances. */
#include "../names.h"
#include "../instance.h"
#include "../words.h"
#include "tap.h"

struct expected {
	const char *host, *hostaddr, *port;
	int count; /* 0: the lists do not fit each other */
	int local[3];
};

static const struct expected cases[] = {
	{ "localhost", NULL, "27546", 1, { 27546 } },
	{ "LocalHost", "", " 27546 ", 1, { 27546 } },
	{ "127.0.0.1", NULL, "27546", 1, { 27546 } },
	{ "127.8.9.1", NULL, "1", 1, { 1 } },
	{ "::1", NULL, "65535", 1, { 65535 } },
	{ "db1.example.org", "127.0.0.1", "5432", 1, { 5432 } },
	{ NULL, "::ffff:127.0.0.1", "5432", 1, { 5432 } },
	/* The address decides, whatever the name is. */
	{ "localhost", "192.0.2.1", "5432", 1, { 0 } },
	{ "db1", NULL, "5432", 1, { 0 } },
	{ "/var/run/postgresql", NULL, "5432", 1, { 0 } },
	{ "@abstract", NULL, "5432", 1, { 0 } },
	{ NULL, NULL, "5432", 1, { 0 } },
	{ "localhost", NULL, "0", 1, { 0 } },
	{ "localhost", NULL, "65536", 1, { 0 } },
	{ "localhost", NULL, "5432x", 1, { 0 } },
	{ "localhost", NULL, "", 1, { 0 } },
	{ "localhost.example.org", NULL, "5432", 1, { 0 } },
	{ "db1,localhost,db2", NULL, "27546", 3, { 0, 27546, 0 } },
	{ "db1,localhost,localhost", NULL, "5432,27546,27547", 3, { 0, 27546, 27547 } },
	{ ",localhost,", NULL, ",27546,", 3, { 0, 27546, 0 } },
	{ "a,b,c", "192.0.2.1,,127.0.0.1", "1,2,3", 3, { 0, 0, 3 } },
	{ NULL, "127.0.0.1,::1", "7", 2, { 7, 7 } },
	{ "a,b", NULL, "1,2,3", 0, { 0 } },
	{ "a,b", "127.0.0.1", "1", 0, { 0 } },
	{ "a", "127.0.0.1,::1", "1", 0, { 0 } },
};

static void check(const struct expected *e)
{
	struct names n;

	if (!names_parse(&n, e->host, e->hostaddr, e->port)) {
		ok(e->count == 0, "lists that do not fit: %s %s %s", e->host ? e->host : "-",
		   e->hostaddr ? e->hostaddr : "-", e->port);
		return;
	}
	if (ok(n.count == e->count, "%s: %d destinations, want %d", e->host ? e->host : "-", n.count, e->count))
		for (int i = 0; i < n.count; i++) {
			int port = name_local_port(&n.name[i]);

			ok(port == e->local[i], "%s %s %s: port %d, want %d", n.name[i].host,
			   n.name[i].hostaddr, n.name[i].port, port, e->local[i]);
		}
	names_free(&n);
}

static void check_list(void)
{
	static const struct {
		const char *text[4];
		bool taken;
		int count;
	} rows[] = {
		{ { "0", "db1", "192.0.2.1", "5432" }, true, 1 },
		{ { "0", "db9", "192.0.2.9", "5432" }, true, 1 }, /* known already */
		{ { "1", NULL, "fe80::1%eth0", "5433" }, true, 2 },
		{ { "2", "db2", "", "5432" }, true, 2 }, /* not resolved yet */
		{ { "2", "db2", NULL, "5432" }, true, 2 },
		{ { "4", "d\303\244tenbank", "192.0.2.4", "5432" }, true, 3 },
		{ { "3", "a,b", "192.0.2.3", "5432" }, false, 3 },
		{ { "3", "/tmp", "192.0.2.3", "5432" }, false, 3 },
		{ { "3", "@x", "192.0.2.3", "5432" }, false, 3 },
		{ { "3", "a b", "192.0.2.3", "5432" }, false, 3 },
		{ { "3", "db3", "192.0.2", "5432" }, false, 3 },
		{ { "3", "db3", "192.0.2.3%eth0", "5432" }, false, 3 },
		{ { "3", "db3", "192.0.2.3", "0" }, false, 3 },
		{ { "3", "db3", "192.0.2.3", "65536" }, false, 3 },
		{ { "3", "db3", "192.0.2.3", NULL }, false, 3 },
		{ { "-3", "db3", "192.0.2.3", "5432" }, false, 3 },
		{ { NULL, "db3", "192.0.2.3", "5432" }, false, 3 },
		{ { "99999999999", "db3", "192.0.2.3", "5432" }, false, 3 },
	};
	static struct instance_list list;
	struct address a;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct instance row;
		bool taken = instance_parse(&row, rows[i].text);

		if (taken)
			instance_list_add(&list, &row);
		ok(taken == rows[i].taken && list.count == rows[i].count, "row %zu: %d, %d in the list", i, taken,
		   list.count);
	}
	ok(address_parse(&a, "::ffff:192.0.2.1", 5432) && address_equal(&a, &list.row[0].address),
	   "IPv4 in IPv6 is the same address");
	ok(!address_equal(&list.row[0].address, &list.row[1].address), "others differ");
	same(list.row[1].port, "5433", "port as text");
}

static void check_targets(void)
{
	same(target_for_libpq("primary", 150000), NULL, "primary as it is");
	same(target_for_libpq("prefer-read", 150000), "prefer-standby", "the older spelling");
	same(target_for_libpq("primary", 130000), "read-write", "primary for libpq 13");
	same(target_for_libpq("standby", 130000), "any", "standby for libpq 13, which cannot check it");
	same(target_for_libpq("read-write", 130000), NULL, "read-write for libpq 13");
	same(target_for_libpq("any", 130000), NULL, "any for libpq 13");
}

int main(void)
{
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		check(&cases[i]);
	check_list();
	check_targets();
	return tap_done();
}
