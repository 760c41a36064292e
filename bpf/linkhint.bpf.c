// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Tells user space when a device of one network namespace loses its carrier or gets
 * it back: at the entry of the two functions that drivers call, before the kernel
 * puts the news off (net/core/link_watch.c).
 *
 * The same program twice: on fentry and on kprobes. Linux 5.8 (ring buffer,
 * bpf_ktime_get_boot_ns). Drivers call from any context, with interrupts off, too.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "linkhint.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* Of the namespace to tell of; set before loading. */
const volatile __u32 own_netns;

/* How many hints did not fit: user space compares it after each read. */
__u64 dropped;

/* Room for more than 1,300 hints. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} hints SEC(".maps");

static __always_inline int has_bit(unsigned long state, __u64 bit)
{
	return (state >> bit) & 1;
}

/*
 * Whether the call, at whose entry we are, changes something that user space wants
 * to hear of. A device that is not running was set down, or is not there yet; an
 * interface without number is not registered.
 */
static __always_inline int changes(struct net_device *dev, enum hint_kind kind)
{
	unsigned long state = BPF_CORE_READ(dev, state);
	int lost = has_bit(state, bpf_core_enum_value(enum netdev_state_t, __LINK_STATE_NOCARRIER));

	if (!has_bit(state, bpf_core_enum_value(enum netdev_state_t, __LINK_STATE_START)))
		return 0;
	return kind == HINT_LOST ? !lost : lost;
}

static __always_inline int tell(struct net_device *dev, enum hint_kind kind)
{
	__u32 netns = BPF_CORE_READ(dev, nd_net.net, ns.inum);
	__u32 ifindex = BPF_CORE_READ(dev, ifindex);
	struct hint *h;

	if (netns != own_netns || ifindex == 0 || !changes(dev, kind))
		return 0;
	h = bpf_ringbuf_reserve(&hints, sizeof(*h), 0);
	if (!h) {
		__sync_fetch_and_add(&dropped, 1);
		return 0;
	}
	h->at = bpf_ktime_get_boot_ns();
	h->ifindex = ifindex;
	h->netns = netns;
	h->kind = kind;
	__builtin_memset(h->pad, 0, sizeof(h->pad));
	BPF_CORE_READ_INTO(&h->name, dev, name);
	bpf_ringbuf_submit(h, 0);
	return 0;
}

SEC("fentry/netif_carrier_off")
int BPF_PROG(fentry_off, struct net_device *dev)
{
	return tell(dev, HINT_LOST);
}

SEC("fentry/netif_carrier_on")
int BPF_PROG(fentry_on, struct net_device *dev)
{
	return tell(dev, HINT_BACK);
}

SEC("kprobe/netif_carrier_off")
int BPF_KPROBE(kprobe_off, struct net_device *dev)
{
	return tell(dev, HINT_LOST);
}

SEC("kprobe/netif_carrier_on")
int BPF_KPROBE(kprobe_on, struct net_device *dev)
{
	return tell(dev, HINT_BACK);
}
