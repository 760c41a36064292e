/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guard.h"
#include "lock.h"
#include "mark.h"
#include "watch.h"

/* How often a conmgr that restarts is tried. */
#define RETRY_MS 20

#define STACK_SIZE (256 * 1024)

/* Guarded by the lock. */
static bool running;
static bool woken;                                       /* there is a byte in wake */
static struct own wake[2] = { { -1, 0 }, { -1, 0 } };    /* a pair: one byte ends the wait */

/* What to wait for: changed by the watcher alone, under the lock. */
static struct pollfd *polled; /* the first is wake */
static struct guard **owner;  /* of each */
static size_t room;

void watch_changed_locked(void)
{
	if (running && !woken && own_is(&wake[1]))
		woken = send(wake[1].fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1;
}

static void read_wake_locked(void)
{
	char byte;

	if (woken && recv(wake[0].fd, &byte, 1, MSG_DONTWAIT) == 1)
		woken = false;
}

static bool make_room(size_t n)
{
	struct pollfd *p;
	struct guard **o;

	if (n <= room)
		return true;
	n += n / 2 + 16;
	p = realloc(polled, n * sizeof(*p));
	if (p == NULL)
		return false;
	polled = p;
	o = realloc(owner, n * sizeof(*o));
	if (o == NULL)
		return false;
	owner = o;
	room = n;
	return true;
}

/*
 * Lists what to wait for and returns its number. Without memory for all it lists
 * what fits, and says so.
 */
static size_t list_locked(bool *complete)
{
	size_t n = 1;

	for (struct guard *g = guard_all; g; g = g->next)
		n += g->session_socket.fd >= 0;
	*complete = make_room(n);
	polled[0] = (struct pollfd){ .fd = wake[0].fd, .events = POLLIN };
	n = 1;
	for (struct guard *g = guard_all; g && n < room; g = g->next) {
		if (g->session_socket.fd < 0)
			continue;
		owner[n] = g;
		polled[n++] = (struct pollfd){ .fd = g->session_socket.fd, .events = POLLIN };
	}
	return n;
}

/* conmgr said goodbye and will be back: the connection lives on meanwhile. */
static void await_locked(struct guard *g)
{
	guard_drop_session_locked(g);
	g->state = GUARD_AWAITING;
	g->until = mark_clock() + WATCH_RETURN;
	g->retry = 0;
}

/* The session has ended, or conmgr does not serve it any more. */
static void on_end_locked(struct guard *g)
{
	if (g->state == GUARD_AWAITING) /* not ready yet: tried again */
		guard_drop_session_locked(g);
	else if (g->session.restart)
		await_locked(g);
	else
		guard_lose_locked(g);
}

/* Takes what came for a guard. */
static void hear_locked(struct guard *g)
{
	if (!own_is(&g->session_socket)) { /* closed by the program itself */
		guard_release_locked(g);
		return;
	}
	mark_receive(&g->session_socket, &g->session);
	switch (g->session.phase) {
	case SESSION_BOUND:
		g->state = GUARD_BOUND;
		return;
	case SESSION_ENDED:
	case SESSION_REFUSED:
		on_end_locked(g);
		return;
	default: /* not answered yet */
		return;
	}
}

/* Looks without waiting; the list is fresh, so every owner is there. */
static void hear_all_locked(void)
{
	bool complete;
	size_t n = list_locked(&complete);

	if (poll(polled, n, 0) <= 0)
		return;
	for (size_t i = 1; i < n; i++)
		if (polled[i].revents)
			hear_locked(owner[i]);
}

/* Asks a conmgr that restarts; false when it is not there. */
static bool ask_again_locked(struct guard *g)
{
	struct own o = mark_open(g->at->port, mark_clock() + 1);

	if (!mark_send(&o, g->target, g->at->number)) {
		own_close(&o);
		return false;
	}
	g->session_socket = o;
	session_begin(&g->session, NULL, &g->at->address);
	return true;
}

/*
 * Goes through the guards whose conmgr restarts, and returns how long to wait until
 * the next time, -1 when there are none. A conmgr that is not there is tried once
 * for all its guards.
 */
static int retry_locked(void)
{
	int64_t now = mark_clock();
	uint16_t away = 0;
	int wait = -1;

	for (struct guard *g = guard_all; g; g = g->next) {
		if (g->state != GUARD_AWAITING)
			continue;
		if (now >= g->until) {
			guard_lose_locked(g);
			continue;
		}
		wait = RETRY_MS;
		if (g->session_socket.fd >= 0 || g->at->port == away || now < g->retry)
			continue;
		g->retry = now + RETRY_MS; /* one that is there and not ready answers at once */
		if (!ask_again_locked(g))
			away = g->at->port;
	}
	return wait;
}

/* One turn; returns the number to wait for, 0 when the thread is to end. */
static size_t turn(int *wait)
{
	sigset_t before;
	size_t n = 0;
	bool complete;

	lock_take(&before);
	running = own_is(&wake[0]); /* the program may have closed it */
	if (running) {
		read_wake_locked();
		hear_all_locked();
		*wait = retry_locked();
		n = list_locked(&complete);
		if (!complete)
			*wait = RETRY_MS;
	}
	lock_give(&before);
	return n;
}

static void *watch(void *unused)
{
	int wait = -1;
	size_t n;

	(void)unused;
	pthread_setname_np(pthread_self(), "libconmgr");
	while ((n = turn(&wait)) > 0)
		poll(polled, n, wait);
	return NULL;
}

static bool start_thread(size_t stack_size)
{
	pthread_attr_t attr;
	pthread_t thread;
	bool started;

	if (pthread_attr_init(&attr) != 0)
		return false;
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	if (stack_size > 0)
		pthread_attr_setstacksize(&attr, stack_size);
	started = pthread_create(&thread, &attr, watch, NULL) == 0;
	pthread_attr_destroy(&attr);
	return started;
}

static bool make_wake_locked(void)
{
	int pair[2];

	own_close(&wake[0]);
	own_close(&wake[1]);
	woken = false;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
		return false;
	wake[0] = own_of(pair[0]);
	wake[1] = own_of(pair[1]);
	return true;
}

bool watch_start(void)
{
	sigset_t before;
	bool started;

	lock_take(&before); /* the thread inherits that all signals are blocked */
	if (!running)
		/* Large thread-local variables of a program may not fit a small stack. */
		running = make_room(16) && make_wake_locked() && (start_thread(STACK_SIZE) || start_thread(0));
	started = running;
	lock_give(&before);
	return started;
}

void watch_after_fork(void)
{
	running = woken = false;
	own_close(&wake[0]);
	own_close(&wake[1]);
}
