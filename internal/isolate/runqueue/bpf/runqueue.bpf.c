// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0

// Measures, for each workload's cgroup, how long its threads wait for a
// processor after they are woken. Threads of other cgroups cost one look-up
// when they wake, and a comparison at each switch.

#include "kernel.h"

struct task_struct {
	s32 pid;
	struct css_set *cgroups;
} KERNEL;

// Eight buckets for each power of two, up to 2^36 ns, over a minute.
#define SUB_BITS 3
#define BUCKETS (35 << SUB_BITS)

// What is known of one workload; read by package runqueue.
struct histogram {
	u64 objective; // ns; 0: none
	u64 missed;    // wake-ups that took longer
	u64 count;
	u64 sum; // ns
	u64 max; // ns
	u64 buckets[BUCKETS];
};

struct {
	NUMBER(type, BPF_MAP_TYPE_HASH);
	NUMBER(max_entries, 8192);
	NUMBER(map_flags, BPF_F_NO_PREALLOC);
	u64 *key; // cgroup
	struct histogram *value;
} workloads SEC(".maps");

// Threads that have been woken and have not run yet, at their number modulo
// SLOTS. One that loses its slot to another is not counted.
#define SLOTS 32768

struct woken {
	u64 at; // ns; 0: nobody
	u64 cgroup;
	u32 tid;
	u32 unused;
};

struct {
	NUMBER(type, BPF_MAP_TYPE_ARRAY);
	NUMBER(max_entries, SLOTS);
	u32 *key;
	struct woken *value;
} threads SEC(".maps");

// The level of workloads' cgroups. Threads may be in cgroups below.
const volatile s32 workload_level = 3;

INLINE struct woken *slot_of(u32 tid)
{
	u32 at = tid % SLOTS;
	return map_lookup(&threads, &at);
}

INLINE void wake(struct task_struct *p)
{
	struct cgroup *group = p->cgroups->dfl_cgrp;
	u64 id = group->kn->id;
	if (!map_lookup(&workloads, &id)) {
		if (group->level <= workload_level)
			return;
		struct cgroup *top = bpf_cgroup_ancestor(group, workload_level);
		if (!top)
			return;
		id = top->kn->id;
		bpf_cgroup_release(top);
		if (!map_lookup(&workloads, &id))
			return;
	}
	struct woken *slot = slot_of(p->pid);
	if (!slot)
		return;
	slot->tid = p->pid;
	slot->cgroup = id;
	slot->at = ktime();
}

INLINE u32 bucket_of(u64 ns)
{
	u32 shift = 0;
	if (ns >> 40)
		ns = 1ULL << 40; // a quarter of an hour, the last bucket
	for (u32 step = 32; step; step >>= 1)
		if (ns >> (shift + step + SUB_BITS))
			shift += step;
	u32 bucket = (shift << SUB_BITS) + (u32)(ns >> shift);
	return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

INLINE void ran(u64 cgroup, u64 ns)
{
	struct histogram *h = map_lookup(&workloads, &cgroup);
	if (!h)
		return;
	u32 bucket = bucket_of(ns);
	if (bucket < BUCKETS)
		__sync_fetch_and_add(&h->buckets[bucket], 1);
	__sync_fetch_and_add(&h->count, 1);
	__sync_fetch_and_add(&h->sum, ns);
	if (h->objective && ns > h->objective)
		__sync_fetch_and_add(&h->missed, 1);
	for (u32 try = 0; try < 4; try++) {
		u64 max = h->max;
		if (ns <= max || __sync_val_compare_and_swap(&h->max, max, ns) == max)
			break;
	}
}

SEC("tp_btf/sched_wakeup")
int sched_wakeup(u64 *ctx)
{
	wake((struct task_struct *)ctx[0]);
	return 0;
}

SEC("tp_btf/sched_wakeup_new")
int sched_wakeup_new(u64 *ctx)
{
	wake((struct task_struct *)ctx[0]);
	return 0;
}

SEC("tp_btf/sched_switch")
int sched_switch(u64 *ctx)
{
	struct task_struct *prev = (void *)ctx[1], *next = (void *)ctx[2];
	u32 tid = prev->pid;
	struct woken *slot = slot_of(tid);
	if (slot && slot->at && slot->tid == tid)
		slot->at = 0; // it was woken before it slept
	tid = next->pid;
	slot = slot_of(tid);
	if (!slot || !slot->at || slot->tid != tid)
		return 0;
	u64 at = slot->at, now = ktime();
	slot->at = 0;
	if (now > at)
		ran(slot->cgroup, now - at);
	return 0;
}

char _license[] SEC("license") = "GPL";
