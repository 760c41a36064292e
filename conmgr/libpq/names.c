/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "instance.h"
#include "names.h"

static int count_items(const char *list)
{
	int n = 1;

	for (; *list; list++)
		n += *list == ',';
	return n;
}

/* Cuts the next item off a list; the last one again and again. */
static const char *next_item(char **list)
{
	char *item = *list, *comma = strchr(item, ',');

	if (comma != NULL) {
		*comma = '\0';
		*list = comma + 1;
	}
	return item;
}

/* Puts a string and its end into a buffer; returns what is behind. */
static char *put(char *at, const char *text)
{
	return stpcpy(at, text) + 1;
}

bool names_parse(struct names *n, const char *host, const char *hostaddr, const char *port)
{
	char *hosts, *hostaddrs, *ports, *empty;
	int ports_count;

	host = host ? host : "";
	hostaddr = hostaddr ? hostaddr : "";
	port = port ? port : "";
	n->name = NULL;
	n->text = NULL;
	n->count = count_items(hostaddr[0] ? hostaddr : host);
	ports_count = count_items(port);
	if (ports_count != 1 && ports_count != n->count)
		return false;
	if (hostaddr[0] && host[0] && count_items(host) != n->count)
		return false;
	n->name = calloc((size_t)n->count, sizeof(*n->name));
	n->text = malloc(strlen(host) + strlen(hostaddr) + strlen(port) + 3);
	if (n->name == NULL || n->text == NULL) {
		names_free(n);
		return false;
	}
	hosts = n->text;
	hostaddrs = put(hosts, host);
	ports = put(hostaddrs, hostaddr);
	empty = put(ports, port) - 1;
	for (int i = 0; i < n->count; i++) {
		n->name[i].host = host[0] ? next_item(&hosts) : empty;
		n->name[i].hostaddr = hostaddr[0] ? next_item(&hostaddrs) : empty;
		n->name[i].port = next_item(&ports);
	}
	return true;
}

void names_free(struct names *n)
{
	free(n->name);
	free(n->text);
	n->name = NULL;
	n->text = NULL;
	n->count = 0;
}

/* Reads a port as libpq does, with blanks around it; 0 for none. */
static uint16_t parse_port(const char *text)
{
	char *end;
	long port = strtol(text, &end, 10);

	while (isspace((unsigned char)*end))
		end++;
	if (end == text || *end != '\0' || port < 1 || port > 65535)
		return 0;
	return (uint16_t)port;
}

static bool is_loopback(const char *hostaddr)
{
	struct address a;

	return address_parse(&a, hostaddr, 0) && address_is_loopback(&a);
}

uint16_t name_local_port(const struct name *n)
{
	bool local;

	if (n->hostaddr[0])
		local = is_loopback(n->hostaddr);
	else
		local = strcasecmp(n->host, "localhost") == 0 || is_loopback(n->host);
	return local ? parse_port(n->port) : 0;
}
