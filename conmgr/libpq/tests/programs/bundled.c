/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads a module and its own libpq as an interpreter does: nobody else can see
 * their functions.
 */
#include <dlfcn.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	char path[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", path, sizeof(path) - 32);
	int (*run_module)(char **);
	void *module;

	(void)argc;
	if (len < 0)
		return 2;
	path[len] = '\0';
	strcat(dirname(path), "/module.so");
	module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	run_module = module ? (int (*)(char **))dlsym(module, "run_module") : NULL;
	if (run_module == NULL) {
		printf("no module: %s\n", dlerror());
		return 2;
	}
	return run_module(argv);
}
