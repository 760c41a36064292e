/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server that speaks as much of PostgreSQL as libpq wants to hear, and a conmgr
 * that answers what a test tells it to, each on threads of this process.
 */
#ifndef FAKE_H
#define FAKE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* A listening socket and a thread for each connection. */
struct listener {
	int fd;
	void (*serve)(void *ctx, int fd);
	void *ctx;
	pthread_t thread;
	pthread_mutex_t lock; /* guards the following */
	struct connection *all;
	int accepted;
};

/*
 * A server on 127.0.0.1. A query that begins with "hang" is never answered, one
 * that begins with "BEGIN" opens a transaction, any other gives an empty result.
 */
struct server {
	struct listener listener;
	uint16_t port;
	bool standby;
	bool mute; /* says nothing, not even at startup */
};

/* Starts on a port, 0: any. */
struct server *server_start(uint16_t port);
void server_stop(struct server *s);

/* How many TCP connections came so far. */
int server_accepted(struct server *s);

/* How a conmgr behaves towards who asks. */
enum mood { MOOD_WELL, MOOD_SILENT, MOOD_GARBAGE, MOOD_SLOW, MOOD_CLOSING, MOOD_FLOOD };

struct offer {
	int number;
	char host[64];
	uint16_t port; /* at 127.0.0.1 */
	bool offered;
};

/*
 * A conmgr: its mark, and a server on its port, where those end up who do not ask.
 */
struct cm {
	struct listener listener;
	struct server *tcp;
	uint16_t port;
	pthread_mutex_t lock; /* guards the following */
	enum mood mood;
	struct offer offer[8];
	int offers;
	int asked; /* sessions that came as far as a question */
	struct bound {
		int fd, number;
	} bound[512];
	int bounds;
};

struct cm *cm_start(void);
void cm_stop(struct cm *c);

/* Adds an instance; its name is "db" and its number. */
void cm_add(struct cm *c, int number, uint16_t port, bool offered);

/* Changes whether an instance is offered. */
void cm_offer(struct cm *c, int number, bool offered);

/* Changes the port of an instance. */
void cm_move(struct cm *c, int number, uint16_t port);

void cm_mood(struct cm *c, enum mood mood);

/* Tells the sessions of an instance that it is lost, and offers it no more. */
void cm_fault(struct cm *c, int number);

/* Ends without a word, as kill -9; cm_back undoes it. */
void cm_die(struct cm *c);

/* Says restart to everybody and is gone. */
void cm_restart(struct cm *c);

void cm_back(struct cm *c);

/* How many sessions are bound to an instance. */
int cm_bound(struct cm *c, int number);

int cm_asked(struct cm *c);

#endif
