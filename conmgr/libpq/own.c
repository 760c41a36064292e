/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "own.h"

const struct own own_none = { -1, 0 };

/* Returns the cookie of the socket fd, 0 when it is no socket. */
static uint64_t cookie_of(int fd)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) != 0)
		return 0;
	return cookie;
}

struct own own_of(int fd)
{
	struct own o = { fd, cookie_of(fd) };

	return o.cookie ? o : own_none;
}

bool own_is(const struct own *o)
{
	return o->cookie != 0 && cookie_of(o->fd) == o->cookie;
}

void own_close(struct own *o)
{
	if (own_is(o))
		close(o->fd);
	*o = own_none;
}

void own_shutdown(const struct own *o)
{
	/*
	 * Between a look at the number and the call another thread may close it and
	 * open something else; a duplicate stays what it is.
	 */
	int dup = o->cookie ? fcntl(o->fd, F_DUPFD_CLOEXEC, 0) : -1;

	if (dup >= 0) {
		if (cookie_of(dup) == o->cookie)
			shutdown(dup, SHUT_RDWR);
		close(dup);
	} else if (own_is(o)) { /* no number is free */
		shutdown(o->fd, SHUT_RDWR);
	}
}
