/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The little that linkhint.bpf.c knows of the kernel. The loader puts in the offsets
 * of the running kernel's BTF, so the structs hold only what is read, in any order.
 */
#ifndef KERNEL_H
#define KERNEL_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef int __s32;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;

/* Has bpf_tracing.h use the kernel's own names of registers. */
#define __VMLINUX_H__

enum bpf_map_type {
	BPF_MAP_TYPE_RINGBUF = 27,
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct net_device {
	char name[16];
	unsigned long state;
	int ifindex;
	possible_net_t nd_net;
};

/* Bits of net_device.state; the loader puts in their numbers. */
enum netdev_state_t {
	__LINK_STATE_START,
	__LINK_STATE_NOCARRIER = 2,
};

#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long di;
};
#elif defined(__TARGET_ARCH_arm64)
struct user_pt_regs {
	__u64 regs[31];
};
#endif

#pragma clang attribute pop

#endif
