/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */

/* What BPF programs use of the kernel, in place of its own headers. Fields of
 * structures are found by name when a program is loaded, wherever that kernel
 * keeps them. */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int s32;
typedef long long s64;
typedef _Bool bool;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline, unused))
#define KERNEL __attribute__((preserve_access_index))
#define KFUNC __attribute__((section(".ksyms")))
#define WEAK __attribute__((weak)) /* NULL where the kernel does not have it */
#define HELPER static __attribute__((unused))

/* A member of a map's description whose value is a number. */
#define NUMBER(name, value) u32 (*name)[value]

enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_F_NO_PREALLOC = 1 << 0,
	BPF_F_MMAPABLE = 1 << 10,
};

/* Helpers, by their numbers in the kernel's include/uapi/linux/bpf.h. */
HELPER void *(*map_lookup)(void *map, const void *key) = (void *)1;
HELPER u64 (*ktime)(void) = (void *)5;
HELPER u32 (*this_cpu)(void) = (void *)8;
HELPER long (*read_string)(void *to, u32 size, const void *from) = (void *)115;
HELPER long (*loop)(u32 count, void *body, void *context, u64 flags) = (void *)181;

#define MILLISECOND 1000000ULL

/* Cgroups. A thread's is its css_set's dfl_cgrp; its number is its folder's
 * inode. */
struct kernfs_node {
	u64 id;
} KERNEL;
struct cgroup {
	s32 level;
	struct kernfs_node *kn;
} KERNEL;
struct css_set {
	struct cgroup *dfl_cgrp;
} KERNEL;
extern struct cgroup *bpf_cgroup_ancestor(struct cgroup *cgrp, int level) KFUNC;
extern void bpf_cgroup_release(struct cgroup *cgrp) KFUNC;
