/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pwd.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "mark.h"
#include "scope.h"

int64_t mark_clock(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Whether the environment names the user: by name or by number. */
static bool is_configured(uid_t uid)
{
	const char *name = secure_getenv("PGCONMGR_USER");
	struct passwd pw, *found = NULL;
	char buf[4096], *end;
	unsigned long number;

	if (name == NULL || *name == '\0')
		return false;
	number = strtoul(name, &end, 10);
	if (*end == '\0')
		return number == uid;
	return getpwnam_r(name, &pw, buf, sizeof(buf), &found) == 0 && found != NULL && found->pw_uid == uid;
}

/* Whether the socket's other end was made by somebody whose word counts. */
static bool is_trusted(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) != 0 || len != sizeof(peer))
		return false;
	return peer.uid == 0 || peer.uid == geteuid() || is_configured(peer.uid);
}

static socklen_t mark_name(struct sockaddr_un *sun, uint16_t port)
{
	int len;

	memset(sun, 0, sizeof(*sun));
	sun->sun_family = AF_UNIX;
	len = snprintf(sun->sun_path + 1, sizeof(sun->sun_path) - 1, "pgconmgr:%u", (unsigned)port);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len);
}

/* connect(2) to a Unix socket waits only for room in the listener's queue. */
static bool connect_until(int fd, uint16_t port, int64_t deadline)
{
	int64_t left = deadline - mark_clock();
	struct timeval wait = { .tv_sec = left / 1000, .tv_usec = left % 1000 * 1000 };
	struct sockaddr_un sun;
	socklen_t len = mark_name(&sun, port);

	if (left <= 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) != 0)
		return false;
	while (scope_connect(fd, (struct sockaddr *)&sun, len) != 0)
		if (errno != EINTR || mark_clock() >= deadline)
			return false;
	return true;
}

struct own mark_open(uint16_t port, int64_t deadline)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct own o = own_none;

	if (fd < 0)
		return o;
	if (connect_until(fd, port, deadline) && is_trusted(fd))
		o = own_of(fd);
	if (o.fd < 0)
		close(fd);
	return o;
}

bool mark_send(const struct own *o, const char *target, int number)
{
	char buf[SESSION_REQUEST_SIZE];
	size_t len = session_request(buf, target, number);

	return len > 0 && own_is(o) &&
	       send(o->fd, buf, len, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len;
}

void mark_receive(const struct own *o, struct session *s)
{
	char buf[4096];
	ssize_t n;

	for (int reads = 0; reads < 16 && s->phase != SESSION_ENDED; reads++) {
		n = own_is(o) ? recv(o->fd, buf, sizeof(buf), MSG_DONTWAIT) : 0;
		if (n > 0)
			session_feed(s, buf, (size_t)n);
		else if (n < 0 && errno == EINTR)
			continue;
		else if (n < 0 && errno == EAGAIN)
			return;
		else
			session_end(s);
	}
}

/* Waits until there is something to read; false when the deadline is over. */
static bool wait_readable(int fd, int64_t deadline)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int64_t left;

	for (;;) {
		left = deadline - mark_clock();
		if (left <= 0)
			return false;
		if (poll(&p, 1, (int)left) > 0)
			return true;
	}
}

struct own mark_ask(uint16_t port, struct session *s, const char *target, int number, int64_t deadline)
{
	struct own o = mark_open(port, deadline);

	if (!mark_send(&o, target, number))
		session_end(s);
	while (!session_answered(s)) {
		if (wait_readable(o.fd, deadline))
			mark_receive(&o, s);
		else
			session_end(s);
	}
	if (s->phase == SESSION_ENDED)
		own_close(&o);
	return o;
}
