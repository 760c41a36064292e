/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "listener.h"

static const char fault_text[] = "\0\0\0\0conmgr_fault\0{\"instance\":0,\"reason\":\"timeout\",\"silence_ms\":300}";
static const char restart_text[] = "\0\0\0\0conmgr_fault\0{\"instance\":null,\"reason\":\"restart\",\"silence_ms\":0}";
static const char end_error[] = "SFATAL\0C57P01\0Mthe end\0";
static const char none_error[] = "SERROR\0C58C01\0Mno instance\0";

static void add_row(struct out *o, const struct offer *offer)
{
	char body[256] = "\0\5", text[32];
	const char *columns[5] = { NULL, offer->host, "127.0.0.1", NULL, "primary" };
	size_t len = 2;

	for (int i = 0; i < 5; i++) {
		const char *column = columns[i];
		size_t n;

		if (column == NULL) {
			snprintf(text, sizeof(text), "%d", i == 0 ? offer->number : offer->port);
			column = text;
		}
		n = strlen(column);
		memcpy(body + len, "\0\0\0", 3);
		body[len + 3] = (char)n;
		memcpy(body + len + 4, column, n);
		len += 4 + n;
	}
	out_message(o, 'D', body, len);
}

/* Binds the session to an instance in place of the one before. */
static void bind_locked(struct cm *c, int fd, int number)
{
	int i = 0;

	while (i < c->bounds && c->bound[i].fd != fd)
		i++;
	must(i < 512, "room for a session");
	c->bound[i] = (struct bound){ fd, number };
	if (i == c->bounds)
		c->bounds++;
}

/* Answers one command; number is -1 for all. */
static void answer_locked(struct cm *c, int fd, struct out *o, bool target, int number)
{
	int rows = 0;

	out_message(o, 'T', "\0\0", 2);
	for (int i = 0; i < c->offers; i++) {
		const struct offer *offer = &c->offer[i];

		if (target && (!offer->offered || (number >= 0 && number != offer->number)))
			continue;
		if (target && rows == 0)
			bind_locked(c, fd, offer->number);
		add_row(o, offer);
		rows++;
	}
	if (rows > 0)
		out_message(o, 'C', "SHOW", 5);
	else
		out_message(o, 'E', none_error, sizeof(none_error));
	out_message(o, 'Z', "I", 1);
}

static bool answer(struct cm *c, int fd, const char *query)
{
	const char *instance = strstr(query, " INSTANCE ");
	struct out o = { .len = 0 };

	pthread_mutex_lock(&c->lock);
	c->asked += strncmp(query, "TARGET", 6) == 0;
	answer_locked(c, fd, &o, query[0] == 'T', instance ? atoi(instance + 10) : -1);
	pthread_mutex_unlock(&c->lock);
	return out_send(fd, &o);
}

static void forget(struct cm *c, int fd)
{
	pthread_mutex_lock(&c->lock);
	for (int i = 0; i < c->bounds; i++)
		if (c->bound[i].fd == fd)
			c->bound[i] = c->bound[--c->bounds];
	pthread_mutex_unlock(&c->lock);
}

/* Sends the same over and over, as fast or as slow as told, until nobody reads. */
static void babble(int fd, const char *bytes, size_t len, useconds_t pause)
{
	for (size_t i = 0; send(fd, bytes + i % len, pause ? 1 : len, MSG_NOSIGNAL) > 0; i += pause ? 1 : len)
		if (pause)
			usleep(pause);
}

/* Whether the session is one for the good mood; the others are served here. */
static bool in_good_mood(struct cm *c, int fd)
{
	static const char garbage[] = "GET / HTTP/1.1\r\nHost: conmgr\r\n\r\n";
	static const char slow[] = "R\0\0\0\10\0\0\0\0S\0\0\0\10a\0b\0S\0\0\0\10a\0b\0";
	static const char flood[] = "N\0\0\0\7abc";
	enum mood mood;
	char byte;

	pthread_mutex_lock(&c->lock);
	mood = c->mood;
	pthread_mutex_unlock(&c->lock);
	switch (mood) {
	case MOOD_WELL:
		return true;
	case MOOD_SILENT:
		while (read_full(fd, &byte, 1))
			;
		break;
	case MOOD_GARBAGE:
		babble(fd, garbage, sizeof(garbage), 0);
		break;
	case MOOD_SLOW:
		babble(fd, slow, sizeof(slow) - 1, 20000);
		break;
	case MOOD_FLOOD:
		babble(fd, flood, sizeof(flood) - 1, 0);
		break;
	case MOOD_CLOSING:
		break;
	}
	return false;
}

static void serve(void *ctx, int fd)
{
	static const char greeting[] = "R\0\0\0\10\0\0\0\0S\0\0\0\10a\0b\0K\0\0\0\14\0\0\0\1\0\0\0\1Z\0\0\0\5I";
	struct cm *c = ctx;
	char type, *body;

	if (!in_good_mood(c, fd))
		return;
	body = read_startup(fd);
	if (body != NULL)
		send(fd, greeting, sizeof(greeting) - 1, MSG_NOSIGNAL);
	while (body != NULL) {
		free(body);
		body = read_message(fd, &type);
		if (body != NULL && (type != 'Q' || !answer(c, fd, body)))
			break;
	}
	free(body);
	forget(c, fd);
}

/* The mark; the name is free a moment after its last owner has gone. */
static int bind_mark(uint16_t port)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int len = snprintf(sun.sun_path + 1, sizeof(sun.sun_path) - 1, "pgconmgr:%d", port);

	must(bind(fd, (struct sockaddr *)&sun, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len)) == 0,
	     "bind the mark");
	return fd;
}

struct cm *cm_start(void)
{
	struct cm *c = calloc(1, sizeof(*c));

	must(c != NULL, "calloc");
	pthread_mutex_init(&c->lock, NULL);
	c->tcp = server_start(0);
	c->port = c->tcp->port;
	c->listener.serve = serve;
	c->listener.ctx = c;
	cm_back(c);
	return c;
}

void cm_back(struct cm *c)
{
	listener_open(&c->listener, bind_mark(c->port));
}

void cm_die(struct cm *c)
{
	listener_close(&c->listener);
}

void cm_stop(struct cm *c)
{
	cm_die(c);
	server_stop(c->tcp);
	free(c);
}

void cm_add(struct cm *c, int number, uint16_t port, bool offered)
{
	struct offer *o;

	pthread_mutex_lock(&c->lock);
	o = &c->offer[c->offers++];
	*o = (struct offer){ .number = number, .port = port, .offered = offered };
	snprintf(o->host, sizeof(o->host), "db%d", number);
	pthread_mutex_unlock(&c->lock);
}

static void offer_locked(struct cm *c, int number, bool offered)
{
	for (int i = 0; i < c->offers; i++)
		if (c->offer[i].number == number)
			c->offer[i].offered = offered;
}

void cm_offer(struct cm *c, int number, bool offered)
{
	pthread_mutex_lock(&c->lock);
	offer_locked(c, number, offered);
	pthread_mutex_unlock(&c->lock);
}

void cm_move(struct cm *c, int number, uint16_t port)
{
	pthread_mutex_lock(&c->lock);
	for (int i = 0; i < c->offers; i++)
		if (c->offer[i].number == number)
			c->offer[i].port = port;
	pthread_mutex_unlock(&c->lock);
}

void cm_mood(struct cm *c, enum mood mood)
{
	pthread_mutex_lock(&c->lock);
	c->mood = mood;
	pthread_mutex_unlock(&c->lock);
}

/* Tells the sessions of an instance, or all (-1), their end. */
static void tell_locked(struct cm *c, int number, const char *text, size_t len)
{
	struct out o;

	for (int i = 0; i < c->bounds; i++) {
		if (number >= 0 && c->bound[i].number != number)
			continue;
		o.len = 0;
		out_message(&o, 'A', text, len);
		out_message(&o, 'E', end_error, sizeof(end_error));
		out_send(c->bound[i].fd, &o);
		shutdown(c->bound[i].fd, SHUT_RDWR);
	}
}

void cm_fault(struct cm *c, int number)
{
	pthread_mutex_lock(&c->lock);
	offer_locked(c, number, false);
	tell_locked(c, number, fault_text, sizeof(fault_text));
	pthread_mutex_unlock(&c->lock);
}

void cm_restart(struct cm *c)
{
	pthread_mutex_lock(&c->lock);
	c->mood = MOOD_CLOSING; /* conmgr takes no new sessions when it says goodbye */
	tell_locked(c, -1, restart_text, sizeof(restart_text));
	pthread_mutex_unlock(&c->lock);
	cm_die(c);
	cm_mood(c, MOOD_WELL);
}

int cm_bound(struct cm *c, int number)
{
	int n = 0;

	pthread_mutex_lock(&c->lock);
	for (int i = 0; i < c->bounds; i++)
		n += c->bound[i].number == number;
	pthread_mutex_unlock(&c->lock);
	return n;
}

int cm_asked(struct cm *c)
{
	int n;

	pthread_mutex_lock(&c->lock);
	n = c->asked;
	pthread_mutex_unlock(&c->lock);
	return n;
}
