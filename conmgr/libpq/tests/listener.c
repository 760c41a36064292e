/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "listener.h"

struct connection {
	struct listener *listener;
	struct connection *next;
	pthread_t thread;
	int fd; /* guarded by the listener's lock; -1 when closed */
};

/* Ends the test where it cannot go on. */
void must(bool is, const char *what)
{
	if (is)
		return;
	perror(what);
	exit(2);
}

static void *serve(void *arg)
{
	struct connection *c = arg;

	int fd;

	pthread_mutex_lock(&c->listener->lock);
	fd = c->fd;
	pthread_mutex_unlock(&c->listener->lock);
	c->listener->serve(c->listener->ctx, fd);
	pthread_mutex_lock(&c->listener->lock);
	close(c->fd);
	c->fd = -1;
	pthread_mutex_unlock(&c->listener->lock);
	return NULL;
}

static void *accept_all(void *arg)
{
	struct listener *l = arg;
	struct connection *c;
	int fd;

	while ((fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		c = calloc(1, sizeof(*c));
		must(c != NULL, "calloc");
		c->listener = l;
		c->fd = fd;
		pthread_mutex_lock(&l->lock);
		c->next = l->all;
		l->all = c;
		l->accepted++;
		must(pthread_create(&c->thread, NULL, serve, c) == 0, "pthread_create");
		pthread_mutex_unlock(&l->lock);
	}
	return NULL;
}

void listener_open(struct listener *l, int fd)
{
	l->fd = fd;
	pthread_mutex_init(&l->lock, NULL);
	must(listen(fd, 100) == 0, "listen");
	must(pthread_create(&l->thread, NULL, accept_all, l) == 0, "pthread_create");
}

void listener_close(struct listener *l)
{
	struct connection *c, *next;

	shutdown(l->fd, SHUT_RDWR);
	pthread_join(l->thread, NULL);
	close(l->fd);
	pthread_mutex_lock(&l->lock);
	for (c = l->all; c; c = c->next)
		if (c->fd >= 0)
			shutdown(c->fd, SHUT_RDWR);
	pthread_mutex_unlock(&l->lock);
	for (c = l->all; c; c = next) {
		next = c->next;
		pthread_join(c->thread, NULL);
		free(c);
	}
	l->all = NULL;
}

bool read_full(int fd, void *buf, size_t len)
{
	char *at = buf;
	ssize_t n;

	for (; len > 0; at += n, len -= (size_t)n) {
		n = recv(fd, at, len, 0);
		if (n <= 0)
			return false;
	}
	return true;
}

uint32_t get32(const char *p)
{
	const unsigned char *b = (const unsigned char *)p;

	return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

/* Reads what stands behind a length word; NULL at the end. Ends with NUL. */
static char *read_sized(int fd, uint32_t *len)
{
	char word[4], *body;

	if (!read_full(fd, word, sizeof(word)))
		return NULL;
	*len = get32(word) - 4;
	must(*len < 100000, "length of a message");
	body = calloc(1, *len + 1);
	must(body != NULL, "calloc");
	if (read_full(fd, body, *len))
		return body;
	free(body);
	return NULL;
}

char *read_startup(int fd)
{
	uint32_t len;
	char *body;

	for (;;) {
		body = read_sized(fd, &len);
		if (body == NULL || get32(body) == 196608)
			return body;
		/* SSLRequest and GSSENCRequest */
		must(get32(body) == 80877103 || get32(body) == 80877104, "startup");
		free(body);
		if (send(fd, "N", 1, MSG_NOSIGNAL) != 1)
			return NULL;
	}
}

char *read_message(int fd, char *type)
{
	uint32_t len;

	return read_full(fd, type, 1) ? read_sized(fd, &len) : NULL;
}

void out_message(struct out *o, char type, const void *body, size_t len)
{
	uint32_t n = (uint32_t)len + 4;

	must(o->len + len + 5 <= sizeof(o->bytes), "room for a message");
	o->bytes[o->len++] = type;
	for (int shift = 24; shift >= 0; shift -= 8)
		o->bytes[o->len++] = (char)(n >> shift);
	memcpy(o->bytes + o->len, body, len);
	o->len += len;
}

bool out_send(int fd, struct out *o)
{
	bool sent = send(fd, o->bytes, o->len, MSG_NOSIGNAL) == (ssize_t)o->len;

	o->len = 0;
	return sent;
}
