/* SPDX-License-Identifier: Apache-2.0 */
/* What the fakes have in common: connections, and messages of the protocol. */
#ifndef LISTENER_H
#define LISTENER_H

#include <string.h>

#include "fake.h"

/* Ends the test where it cannot go on. */
void must(bool is, const char *what);

/* Begins to serve what connects to a bound socket. */
void listener_open(struct listener *l, int fd);

/* Ends everything. */
void listener_close(struct listener *l);

bool read_full(int fd, void *buf, size_t len);

uint32_t get32(const char *p);

/* The body of the startup packet, for the caller to free; NULL at the end. */
char *read_startup(int fd);

/* The body of the next message, for the caller to free; NULL at the end. */
char *read_message(int fd, char *type);

/* Messages to be sent. */
struct out {
	char bytes[16384];
	size_t len;
};

void out_message(struct out *o, char type, const void *body, size_t len);

/* Sends what there is. */
bool out_send(int fd, struct out *o);

#endif
