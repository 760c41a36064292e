/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lock.h"
#include "scope.h"

#define SCOPE_NAME(name) #name,
static const char *const names[] = { SCOPE_FUNCTIONS(SCOPE_NAME) };
#undef SCOPE_NAME

/* Which object called: its map may be freed, and its address be used again. */
struct object {
	uintptr_t base;
	const void *dynamic;
	char name[256]; /* cut off when longer */
};

/* What an object finds. */
struct found {
	struct object caller;
	void *function[SCOPE_COUNT];
};

#define MOST_CALLERS 64

/* Guarded by the lock. */
static struct found cache[MOST_CALLERS];
static int cached;

/* The object that holds an address; NULL when that is in none. */
static struct link_map *object_at(const void *address)
{
	struct link_map *map = NULL;
	Dl_info info;

	if (dladdr1(address, &info, (void **)&map, RTLD_DL_LINKMAP) == 0)
		return NULL;
	return map;
}

static bool is_own(const void *function)
{
	return function == NULL || object_at(function) == object_at(names);
}

/* A handle of a loaded object; dlclose gives it back. */
static void *handle_of(const struct link_map *map)
{
	return dlopen(map->l_name, RTLD_LAZY | RTLD_NOLOAD);
}

/* Looks a name up in an object and what it depends on. */
static void *find_below(const struct link_map *map, const char *name)
{
	void *handle = handle_of(map), *function;

	if (handle == NULL)
		return NULL;
	function = dlsym(handle, name);
	dlclose(handle);
	/* An object that is linked with the library finds this first. */
	return is_own(function) ? NULL : function;
}

static void *find_in_libpq(const char *name)
{
	void *handle = dlopen("libpq.so.5", RTLD_LAZY | RTLD_NOLOAD), *function;

	if (handle == NULL)
		return NULL;
	function = dlsym(handle, name);
	dlclose(handle);
	return is_own(function) ? NULL : function;
}

static void *find(const struct link_map *caller, const char *name)
{
	void *function = NULL;

	/* The main program has no name, and its handle means the search order. */
	if (caller != NULL && caller->l_name[0] != '\0')
		function = find_below(caller, name);
	if (function == NULL)
		function = dlsym(RTLD_NEXT, name);
	if (is_own(function))
		function = find_in_libpq(name);
	return function;
}

static void identify(struct object *o, const struct link_map *map)
{
	memset(o, 0, sizeof(*o));
	o->base = map->l_addr;
	o->dynamic = map->l_ld;
	strncpy(o->name, map->l_name, sizeof(o->name) - 1);
}

static bool same_object(const struct object *a, const struct object *b)
{
	return a->base == b->base && a->dynamic == b->dynamic && strcmp(a->name, b->name) == 0;
}

static struct found *cached_locked(const struct object *caller)
{
	for (int i = 0; i < cached; i++)
		if (same_object(&cache[i].caller, caller))
			return &cache[i];
	return NULL;
}

static void *recall(const struct object *caller, enum scope_function which)
{
	struct found *f;
	void *function;
	sigset_t before;

	lock_take(&before);
	f = cached_locked(caller);
	function = f ? f->function[which] : NULL;
	lock_give(&before);
	return function;
}

/* Keeps what was found; when there is no room, it is looked up each time. */
static void keep(const struct object *caller, enum scope_function which, void *function)
{
	struct found *f;
	sigset_t before;

	lock_take(&before);
	f = cached_locked(caller);
	if (f == NULL && cached < MOST_CALLERS) {
		f = &cache[cached++];
		f->caller = *caller;
	}
	if (f != NULL)
		f->function[which] = function;
	lock_give(&before);
}

static void *look_up(const void *caller, enum scope_function which)
{
	const struct link_map *map = object_at(caller), *owner;
	struct object o;
	void *function;

	if (map == NULL)
		return find(NULL, names[which]);
	identify(&o, map);
	function = recall(&o, which);
	if (function != NULL)
		return function;
	/* Not under the lock: the dynamic linker has one of its own, which a caller
	 * may hold already. */
	function = find(map, names[which]);
	if (function == NULL)
		return NULL;
	owner = object_at(function);
	if (owner != NULL && owner->l_name[0] != '\0' && handle_of(owner) != NULL)
		keep(&o, which, function); /* the handle is never given back */
	return function;
}

void *scope_find(const void *caller, enum scope_function which)
{
	int error = errno;
	void *function = look_up(caller, which);

	errno = error;
	return function;
}

typedef int connect_function(int, const struct sockaddr *, socklen_t);

static connect_function *next_connect;

/* Before anybody is in a signal handler, where nothing can be looked up. */
__attribute__((constructor)) static void find_connect(void)
{
	next_connect = (connect_function *)dlsym(RTLD_NEXT, "connect");
}

int scope_connect(int fd, const struct sockaddr *addr, socklen_t len)
{
	if (next_connect != NULL)
		return next_connect(fd, addr, len);
	return (int)syscall(SYS_connect, fd, addr, len);
}
