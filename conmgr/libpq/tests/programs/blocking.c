/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks in PQexec. */
#include "program.h"

int main(int argc, char **argv)
{
	(void)argc;
	return run_blocking(PQconnectdb(""), argv);
}
