/* SPDX-License-Identifier: Apache-2.0 */
/* An instance as conmgr names it, and the address by which it is recognised. */
#ifndef CM_INSTANCE_H
#define CM_INSTANCE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#define CM_HOST_SIZE 256    /* a name of DNS and its end */
#define CM_HOSTADDR_SIZE 64 /* a numeric address with a zone */
#define CM_MOST_INSTANCES 128

/* Where an instance listens; IPv4 as ::ffff:a.b.c.d. */
struct address {
	uint8_t ip[16];
	uint16_t port;
};

struct instance {
	int number; /* of backend_hostN */
	struct address address;
	char host[CM_HOST_SIZE];         /* empty: known by address only */
	char hostaddr[CM_HOSTADDR_SIZE]; /* in a list never empty */
	char port[6];                    /* the address's, as text */
};

/* What a conmgr answered: those offered first, the best of them at the front. */
struct instance_list {
	int offered;
	int count;
	struct instance row[CM_MOST_INSTANCES];
};

/* Reads a numeric address, with or without a zone. */
bool address_parse(struct address *a, const char *hostaddr, uint16_t port);

/* Reads what is given to connect(2); false when that is no IP address. */
bool address_of(struct address *a, const struct sockaddr *sa, socklen_t len);

bool address_equal(const struct address *a, const struct address *b);

bool address_is_loopback(const struct address *a);

/*
 * Reads the first four columns of a row of TARGET or SHOW INSTANCES; text[i] is NULL
 * for NULL. False when the row is none of conmgr's. An instance whose name is not
 * resolved yet has an empty hostaddr.
 */
bool instance_parse(struct instance *row, const char *const text[4]);

/* Adds an instance, unless it is there already, has no address, or does not fit. */
void instance_list_add(struct instance_list *list, const struct instance *row);

#endif
