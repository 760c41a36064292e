/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "instance.h"

static const uint8_t v4_prefix[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

static void set_v4(struct address *a, const struct in_addr *v4)
{
	memcpy(a->ip, v4_prefix, sizeof(v4_prefix));
	memcpy(a->ip + sizeof(v4_prefix), v4, 4);
}

bool address_parse(struct address *a, const char *hostaddr, uint16_t port)
{
	char text[CM_HOSTADDR_SIZE];
	size_t len = strcspn(hostaddr, "%");
	struct in_addr v4;

	if (len >= sizeof(text))
		return false;
	memcpy(text, hostaddr, len);
	text[len] = '\0';
	memset(a, 0, sizeof(*a));
	a->port = port;
	if (inet_pton(AF_INET6, text, a->ip) == 1)
		return true;
	if (hostaddr[len] != '\0' || inet_pton(AF_INET, text, &v4) != 1)
		return false;
	set_v4(a, &v4);
	return true;
}

bool address_of(struct address *a, const struct sockaddr *sa, socklen_t len)
{
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;

	memset(a, 0, sizeof(*a));
	if (len >= sizeof(v4) && sa->sa_family == AF_INET) {
		memcpy(&v4, sa, sizeof(v4));
		set_v4(a, &v4.sin_addr);
		a->port = ntohs(v4.sin_port);
		return true;
	}
	if (len >= sizeof(v6) && sa->sa_family == AF_INET6) {
		memcpy(&v6, sa, sizeof(v6));
		memcpy(a->ip, &v6.sin6_addr, sizeof(a->ip));
		a->port = ntohs(v6.sin6_port);
		return true;
	}
	return false;
}

bool address_equal(const struct address *a, const struct address *b)
{
	return a->port == b->port && memcmp(a->ip, b->ip, sizeof(a->ip)) == 0;
}

bool address_is_loopback(const struct address *a)
{
	static const uint8_t loopback[16] = { [15] = 1 };

	if (memcmp(a->ip, v4_prefix, sizeof(v4_prefix)) == 0)
		return a->ip[12] == 127;
	return memcmp(a->ip, loopback, sizeof(loopback)) == 0;
}

/* Reads a decimal number from 0 to most; -1 for anything else. */
static int parse_number(const char *text, int most)
{
	long n = 0;

	if (text == NULL || *text == '\0')
		return -1;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return -1;
		n = n * 10 + (*text - '0');
		if (n > most)
			return -1;
	}
	return (int)n;
}

/*
 * Whether the text is one host name or address as conmgr.conf has it: to libpq it
 * must be no list, no socket directory and no abstract socket.
 */
static bool is_host_name(const char *text)
{
	static const char ascii[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:%";

	for (const char *c = text; *c; c++)
		if ((unsigned char)*c < 0x80 && !strchr(ascii, *c))
			return false;
	return strlen(text) < CM_HOST_SIZE;
}

bool instance_parse(struct instance *row, const char *const text[4])
{
	int number = parse_number(text[0], 1000000000);
	const char *host = text[1] ? text[1] : "";
	const char *hostaddr = text[2] ? text[2] : "";
	int port = parse_number(text[3], 65535);

	if (number < 0 || port <= 0 || !is_host_name(host) || !is_host_name(hostaddr) ||
	    strlen(hostaddr) >= sizeof(row->hostaddr))
		return false;
	memset(row, 0, sizeof(*row));
	if (hostaddr[0] != '\0' && !address_parse(&row->address, hostaddr, (uint16_t)port))
		return false;
	row->number = number;
	strcpy(row->host, host);
	strcpy(row->hostaddr, hostaddr);
	snprintf(row->port, sizeof(row->port), "%hu", (uint16_t)port);
	return true;
}

void instance_list_add(struct instance_list *list, const struct instance *row)
{
	if (row->hostaddr[0] == '\0' || list->count == CM_MOST_INSTANCES)
		return;
	for (int i = 0; i < list->count; i++)
		if (list->row[i].number == row->number)
			return;
	list->row[list->count++] = *row;
}
