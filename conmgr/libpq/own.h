/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets by number and identity. The number of a socket belongs to the whole
 * process: the program may close it behind our back (closefrom(3) of a daemon)
 * and open something else, which must be neither closed nor shut down.
 */
#ifndef CM_OWN_H
#define CM_OWN_H

#include <stdbool.h>
#include <stdint.h>

struct own {
	int fd;          /* -1: none */
	uint64_t cookie; /* SO_COOKIE: no two sockets have the same, ever */
};

extern const struct own own_none;

/* Remembers which socket the number means now; own_none when it means none. */
struct own own_of(int fd);

/* Whether the number still means this socket. */
bool own_is(const struct own *o);

/* Closes the socket, if the number still means it, and forgets it. */
void own_close(struct own *o);

/* Shuts the socket down in both directions, if the number still means it. */
void own_shutdown(const struct own *o);

#endif
