/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "listener.h"

static void parameter(struct out *o, const char *name, const char *value)
{
	char body[128];
	size_t len = (size_t)snprintf(body, sizeof(body), "%s%c%s", name, 0, value) + 1;

	out_message(o, 'S', body, len);
}

static bool greet(const struct server *s, int fd)
{
	struct out o = { .len = 0 };

	out_message(&o, 'R', "\0\0\0\0", 4);
	parameter(&o, "server_version", "15.0");
	parameter(&o, "client_encoding", "UTF8");
	parameter(&o, "in_hot_standby", s->standby ? "on" : "off");
	parameter(&o, "default_transaction_read_only", "off");
	out_message(&o, 'K', "\0\0\0\1\0\0\0\1", 8);
	out_message(&o, 'Z', "I", 1);
	return out_send(fd, &o);
}

/* Answers a query; false when it is one to hang in. */
static bool answer(int fd, const char *query, char *status)
{
	struct out o = { .len = 0 };

	if (strncmp(query, "hang", 4) == 0)
		return false;
	if (strncmp(query, "BEGIN", 5) == 0)
		*status = 'T';
	out_message(&o, 'C', "SELECT 0", 9);
	out_message(&o, 'Z', status, 1);
	return out_send(fd, &o);
}

/* Waits for the end of a connection that gets no answers. */
static void hang(int fd)
{
	char byte;

	while (read_full(fd, &byte, 1))
		;
}

static void serve(void *ctx, int fd)
{
	struct server *s = ctx;
	char type, status = 'I', *body;

	if (__atomic_load_n(&s->mute, __ATOMIC_SEQ_CST)) {
		hang(fd);
		return;
	}
	body = read_startup(fd);
	if (body == NULL || !greet(s, fd)) {
		free(body);
		return;
	}
	free(body);
	while ((body = read_message(fd, &type)) != NULL) {
		bool answered = type != 'Q' || answer(fd, body, &status);

		free(body);
		if (type == 'X')
			return;
		if (!answered)
			hang(fd);
	}
}

/* A TCP socket on loopback; asks the kernel for a port when that is 0. */
static int bind_loopback(uint16_t *port)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = htons(*port) };
	socklen_t len = sizeof(sin);
	int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	must(bind(fd, (struct sockaddr *)&sin, sizeof(sin)) == 0, "bind");
	must(getsockname(fd, (struct sockaddr *)&sin, &len) == 0, "getsockname");
	*port = ntohs(sin.sin_port);
	return fd;
}

struct server *server_start(uint16_t port)
{
	struct server *s = calloc(1, sizeof(*s));
	int fd;

	must(s != NULL, "calloc");
	fd = bind_loopback(&port);
	s->port = port;
	s->listener.serve = serve;
	s->listener.ctx = s;
	listener_open(&s->listener, fd);
	return s;
}

void server_stop(struct server *s)
{
	if (s == NULL)
		return;
	listener_close(&s->listener);
	free(s);
}

int server_accepted(struct server *s)
{
	int n;

	pthread_mutex_lock(&s->listener.lock);
	n = s->listener.accepted;
	pthread_mutex_unlock(&s->listener.lock);
	return n;
}
