/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hosts, addresses and ports of a connection string, taken apart by the rules
 * of libpq (connectOptions2 in fe-connect.c): lists with commas; a hostaddr decides
 * where to connect, a host what the server is called; one port may serve all.
 */
#ifndef CM_NAMES_H
#define CM_NAMES_H

#include <stdbool.h>
#include <stdint.h>

/* One destination; what is missing is an empty string. */
struct name {
	const char *host, *hostaddr, *port;
};

struct names {
	int count;
	struct name *name;
	char *text; /* what the names point into */
};

/*
 * Takes the effective values apart; NULL is an empty one. False when the lists do
 * not fit each other, which libpq reports, or there is no memory.
 */
bool names_parse(struct names *n, const char *host, const char *hostaddr, const char *port);

void names_free(struct names *n);

/*
 * The port where a conmgr may be the destination: one on the loopback interface by
 * TCP. 0 when it cannot be.
 */
uint16_t name_local_port(const struct name *n);

#endif
