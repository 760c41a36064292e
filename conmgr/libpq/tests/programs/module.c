/* SPDX-License-Identifier: Apache-2.0 */
/* A module that brings a libpq of its own, as wheels for Python do. */
#include "program.h"

int run_module(char **argv)
{
	return run_blocking(PQconnectdb(""), argv);
}
