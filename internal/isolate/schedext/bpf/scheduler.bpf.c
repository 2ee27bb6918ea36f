// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0

// A scheduler of three classes for the kernel's sched_ext (see
// Documentation/scheduler/sched-ext.rst). Interactive and system work takes a
// processor from batch at once, and from each other by earlier deadline; a
// deadline is what the serving path wrote for a thread, else the class's.
// Batch runs where nothing else wants to. Real-time policies are above
// sched_ext and stay.
//
// It makes no queues of its own and kicks no CPU: kernels built with dwarves
// before 1.31, Debian's 7.2 among them, describe scx_bpf_create_dsq and
// scx_bpf_kick_cpu so that no program can call them. Work with a deadline goes
// to a CPU's own queue, ahead of what runs there where it is more urgent;
// batch to the kernel's global queue, which CPUs turn to when theirs is empty.

#include "kernel.h"

struct cpumask {
	unsigned long bits[1];
} KERNEL;
struct kernfs_node {
	u64 id;
} KERNEL;
struct cgroup {
	s32 level;
	struct kernfs_node *kn;
} KERNEL;
struct task_struct {
	u32 flags;
	s32 pid;
	s32 nr_cpus_allowed;
	const struct cpumask *cpus_ptr;
} KERNEL;

struct sched_ext_ops {
	s32 (*select_cpu)(struct task_struct *p, s32 prev_cpu, u64 wake_flags);
	void (*enqueue)(struct task_struct *p, u64 enq_flags);
	void (*running)(struct task_struct *p);
	void (*stopping)(struct task_struct *p, bool runnable);
	u64 flags;
	u32 timeout_ms;
	char name[128];
};

extern s32 scx_bpf_select_cpu_dfl(struct task_struct *p, s32 prev_cpu, u64 wake_flags, bool *is_idle) KFUNC;
extern void scx_bpf_dsq_insert(struct task_struct *p, u64 dsq_id, u64 slice, u64 enq_flags) KFUNC;
extern s32 scx_bpf_task_cpu(const struct task_struct *p) KFUNC;
extern struct cgroup *scx_bpf_task_cgroup(struct task_struct *p) KFUNC;
extern u64 scx_bpf_now(void) KFUNC;
extern struct cgroup *bpf_cgroup_ancestor(struct cgroup *cgrp, int level) KFUNC;
extern void bpf_cgroup_release(struct cgroup *cgrp) KFUNC;
extern bool bpf_cpumask_test_cpu(u32 cpu, const struct cpumask *cpumask) KFUNC;

enum { system_class, interactive_class, batch_class, nothing = 255 };

#define SCX_DSQ_GLOBAL 0x8000000000000001ULL
#define SCX_DSQ_LOCAL 0x8000000000000002ULL
#define SCX_DSQ_LOCAL_ON 0xc000000000000000ULL
#define SCX_ENQ_PREEMPT (1ULL << 32)
#define PF_KTHREAD 0x00200000
#define MAX_CPUS 1024
#define SLOTS 65536

// Threads' slots are at their number modulo SLOTS, written by the serving
// path: a deadline holds for the thread that is named with it.
struct slot {
	u64 deadline; // CLOCK_MONOTONIC, ns
	u32 tid;
	u32 unused;
};

struct {
	NUMBER(type, BPF_MAP_TYPE_ARRAY);
	NUMBER(max_entries, SLOTS);
	NUMBER(map_flags, BPF_F_MMAPABLE);
	u32 *key;
	struct slot *value;
} deadlines SEC(".maps");

struct {
	NUMBER(type, BPF_MAP_TYPE_HASH);
	NUMBER(max_entries, 64);
	u64 *key;   // cgroup
	u32 *value; // class
} classes SEC(".maps");

// What a CPU runs.
struct current {
	u64 deadline;
	u32 class;
	u32 unused;
};

struct {
	NUMBER(type, BPF_MAP_TYPE_ARRAY);
	NUMBER(max_entries, MAX_CPUS);
	u32 *key;
	struct current *value;
} cpus SEC(".maps");

const volatile u32 nr_cpus = 1;
// Not used: the compiler describes a type in full only where something has it.
struct cpumask described;

INLINE u32 class_of(struct task_struct *p)
{
	u32 class = system_class;
	struct cgroup *group = scx_bpf_task_cgroup(p), *top;
	if (!group)
		return class;
	if (group->level >= 2) {
		top = bpf_cgroup_ancestor(group, 2);
		if (top) {
			u64 id = top->kn->id;
			u32 *found = map_lookup(&classes, &id);
			if (found)
				class = *found;
			bpf_cgroup_release(top);
		}
	}
	bpf_cgroup_release(group);
	return class;
}

INLINE u64 deadline_of(struct task_struct *p, u32 class, u64 now)
{
	u32 at = (u32)p->pid % SLOTS;
	struct slot *s = map_lookup(&deadlines, &at);
	if (s && s->tid == (u32)p->pid && s->deadline)
		return s->deadline;
	return now + (class == system_class ? 2 : 5) * MILLISECOND;
}

struct search {
	struct task_struct *p;
	u64 latest;
	s32 victim;
};

// consider looks for the CPU that runs the least urgent work.
static long consider(u32 cpu, struct search *s)
{
	struct current *c = map_lookup(&cpus, &cpu);
	if (!c || c->class == nothing || !bpf_cpumask_test_cpu(cpu, s->p->cpus_ptr))
		return 0;
	u64 deadline = c->class == batch_class ? ~0ULL : c->deadline;
	if (deadline > s->latest) {
		s->latest = deadline;
		s->victim = cpu;
	}
	return deadline == ~0ULL; // nothing is less urgent than batch
}

SEC("struct_ops/oscine_select_cpu")
s32 oscine_select_cpu(u64 *ctx)
{
	struct task_struct *p = (void *)ctx[0];
	bool idle = 0;
	s32 cpu = scx_bpf_select_cpu_dfl(p, (s32)ctx[1], ctx[2], &idle);
	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, 5 * MILLISECOND, 0);
	return cpu;
}

SEC("struct_ops/oscine_enqueue")
void oscine_enqueue(u64 *ctx)
{
	struct task_struct *p = (void *)ctx[0];
	u64 flags = ctx[1];
	if ((p->flags & PF_KTHREAD) && p->nr_cpus_allowed == 1) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, 5 * MILLISECOND, flags | SCX_ENQ_PREEMPT);
		return;
	}
	u32 class = class_of(p);
	if (class == batch_class) {
		scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, 20 * MILLISECOND, flags);
		return;
	}
	// Look at the CPU it was on first: its caches are warm.
	struct search s = {.p = p, .latest = deadline_of(p, class, scx_bpf_now()), .victim = -1};
	s32 home = scx_bpf_task_cpu(p);
	if (!consider(home, &s))
		for (u32 cpu = 0; cpu < 64 && cpu < nr_cpus; cpu++)
			if (consider(cpu, &s))
				break;
	if (s.victim < 0) { // everything that runs is more urgent
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, 5 * MILLISECOND, flags);
		return;
	}
	scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL_ON | (u32)s.victim, 5 * MILLISECOND, flags | SCX_ENQ_PREEMPT);
}

SEC("struct_ops/oscine_running")
void oscine_running(u64 *ctx)
{
	struct task_struct *p = (void *)ctx[0];
	u32 cpu = this_cpu();
	struct current *c = map_lookup(&cpus, &cpu);
	if (!c)
		return;
	u32 class = class_of(p);
	c->deadline = deadline_of(p, class, scx_bpf_now());
	c->class = class;
}

SEC("struct_ops/oscine_stopping")
void oscine_stopping(u64 *ctx)
{
	u32 cpu = this_cpu();
	struct current *c = map_lookup(&cpus, &cpu);
	if (c)
		c->class = nothing;
}

SEC(".struct_ops.link")
struct sched_ext_ops oscine = {
	.select_cpu = (void *)oscine_select_cpu,
	.enqueue = (void *)oscine_enqueue,
	.running = (void *)oscine_running,
	.stopping = (void *)oscine_stopping,
	.flags = 2, // SCX_OPS_ENQ_LAST: the last runnable task is enqueued too
	.timeout_ms = 5000,
	.name = "oscine",
};

char _license[] SEC("license") = "GPL";
