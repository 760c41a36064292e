/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What linkhint.bpf.c tells user space; agent/linkhint/hint.go reads it. Both ends
 * come from one build and run on one machine: native byte order, no version.
 */
#ifndef LINKHINT_H
#define LINKHINT_H

enum hint_kind {
	HINT_LOST = 1,
	HINT_BACK = 2,
};

#define HINT_NAME_LEN 16 /* IFNAMSIZ, with its NUL */

struct hint {
	__u64 at;	/* ns on CLOCK_BOOTTIME */
	__u32 ifindex;
	__u32 netns;	/* inode of the device's network namespace */
	char name[HINT_NAME_LEN];
	__u8 kind;	/* enum hint_kind */
	__u8 pad[7];	/* zero */
};

_Static_assert(sizeof(struct hint) == 40, "struct hint has holes");

#endif
