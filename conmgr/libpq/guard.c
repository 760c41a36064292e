/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guard.h"
#include "lock.h"
#include "mark.h"
#include "watch.h"

struct guard *guard_all;

/*
 * A datagram socket that nobody can send to is not readable, and is for ever
 * once it is shut down; it costs one number, and reading takes nothing away.
 */
static struct own new_notice(void)
{
	return own_of(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

struct guard *guard_new(const char *target, struct place *place, int places)
{
	struct guard *g = calloc(1, sizeof(*g));

	if (g == NULL || strlen(target) >= sizeof(g->target) || !watch_start()) {
		free(place);
		free(g);
		return NULL;
	}
	strcpy(g->target, target);
	g->place = place;
	g->places = places;
	g->session_socket = g->socket = g->notice = own_none;
	return g;
}

static void unlink_locked(struct guard *g)
{
	if (g->link == NULL)
		return;
	*g->link = g->next;
	if (g->next)
		g->next->link = g->link;
	g->link = NULL;
}

static void link_locked(struct guard *g)
{
	if (g->link != NULL)
		return;
	g->next = guard_all;
	if (g->next)
		g->next->link = &g->next;
	g->link = &guard_all;
	guard_all = g;
}

void guard_drop_session_locked(struct guard *g)
{
	own_close(&g->session_socket);
	watch_changed_locked();
}

void guard_release_locked(struct guard *g)
{
	guard_drop_session_locked(g);
	g->state = GUARD_FREE;
	g->at = NULL;
	g->socket = own_none;
}

void guard_free(struct guard *g)
{
	sigset_t before;

	if (g == NULL)
		return;
	lock_take(&before);
	guard_release_locked(g);
	unlink_locked(g);
	own_close(&g->notice);
	lock_give(&before);
	free(g->place);
	free(g);
}

void guard_release(struct guard *g)
{
	sigset_t before;

	lock_take(&before);
	guard_release_locked(g);
	lock_give(&before);
}

void guard_lose_locked(struct guard *g)
{
	guard_drop_session_locked(g);
	g->state = GUARD_LOST;
	own_shutdown(&g->socket);
	own_shutdown(&g->notice);
	g->notice_used = true;
}

/*
 * A notice that was shut down is replaced under its number, so that a program
 * that asked for it once goes on with it.
 */
static bool renew_notice_locked(struct guard *g)
{
	struct own fresh = new_notice();
	int fd = g->notice.fd;

	if (fresh.fd < 0)
		return false;
	g->notice_used = false;
	if (!own_is(&g->notice)) {
		g->notice = fresh;
		return true;
	}
	if (dup3(fresh.fd, fd, O_CLOEXEC) == fd)
		g->notice = own_of(fd);
	own_close(&fresh);
	return true;
}

void guard_bind(struct guard *g, const struct place *at, struct own session_socket, const struct session *s)
{
	sigset_t before;

	lock_take(&before);
	own_close(&g->session_socket);
	g->session_socket = session_socket;
	g->session = *s;
	g->session.list = NULL; /* the caller's */
	g->session.want = NULL;
	g->at = at;
	g->state = GUARD_BOUND;
	g->socket = own_none;
	link_locked(g);
	if ((g->notice_used || !own_is(&g->notice)) && !renew_notice_locked(g))
		guard_lose_locked(g);
	watch_changed_locked();
	lock_give(&before);
}

void guard_attach(struct guard *g, PGconn *conn)
{
	struct guard *old = guard_of(conn);
	sigset_t before;

	if (old != g)
		guard_free(old);
	lock_take(&before);
	g->conn = conn;
	link_locked(g);
	lock_give(&before);
}

struct guard *guard_of(const PGconn *conn)
{
	struct guard *g;
	sigset_t before;

	lock_take(&before);
	for (g = guard_all; g && g->conn != conn; g = g->next)
		;
	lock_give(&before);
	return conn ? g : NULL;
}

int guard_notice(const PGconn *conn)
{
	struct guard *g = guard_of(conn);
	sigset_t before;
	int fd = -1;

	if (g == NULL)
		return fd;
	lock_take(&before);
	if (g->state != GUARD_FREE && own_is(&g->notice))
		fd = g->notice.fd;
	lock_give(&before);
	return fd;
}

/*
 * The child shares sockets with the parent, who watches them: whoever shut one
 * down here would break the parent's connection.
 */
void guard_after_fork(void)
{
	for (struct guard *g = guard_all; g; g = g->next) {
		own_close(&g->session_socket);
		g->socket = own_none;
		g->notice_used = true;
		if (g->state == GUARD_AWAITING)
			g->state = GUARD_BOUND;
	}
	watch_after_fork();
}
