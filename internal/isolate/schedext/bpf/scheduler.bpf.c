// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0

// A scheduler of three classes for the kernel's sched_ext (see
// Documentation/scheduler/sched-ext.rst). Interactive and system work takes a
// processor from batch at once, and from each other by earlier deadline; a
// deadline is what the serving path wrote for a thread, else the class's.
// Batch runs where nothing else wants to. Real-time policies are above
// sched_ext and stay.
//
// What finds no processor waits in a queue of its domain, the CPUs that share a
// last-level cache, in the order of deadlines. A CPU takes from its own
// domain's queue first, then from those of its NUMA node, then from the others.
//
// The queues are this program's own and no CPU is ever kicked: kernels built
// with dwarves before 1.31, Debian's 7.2 among them, describe
// scx_bpf_create_dsq, scx_bpf_kick_cpu and others, not the same on each
// architecture and flavour, so that no program can call them. Only what all of
// them can call is used.

#include "kernel.h"

struct cpumask {
	unsigned long bits[1];
} KERNEL;
struct sched_ext_entity {
	u32 flags;
	u64 slice;
} KERNEL;
struct task_struct {
	u32 flags;
	s32 pid;
	s32 nr_cpus_allowed;
	const struct cpumask *cpus_ptr;
	struct css_set *cgroups;
	struct sched_ext_entity scx;
} KERNEL;
struct scx_exit_info {
	const char *reason;
	char *msg;
} KERNEL;

struct sched_ext_ops {
	s32 (*select_cpu)(struct task_struct *p, s32 prev_cpu, u64 wake_flags);
	void (*enqueue)(struct task_struct *p, u64 enq_flags);
	void (*dispatch)(s32 cpu, struct task_struct *prev);
	void (*running)(struct task_struct *p);
	void (*stopping)(struct task_struct *p, bool runnable);
	void (*exit)(struct scx_exit_info *info);
	u64 flags;
	u32 timeout_ms;
	char name[128];
};

extern s32 scx_bpf_select_cpu_and(struct task_struct *p, s32 prev_cpu, u64 wake_flags, const struct cpumask *allowed, u64 flags) KFUNC;
extern bool scx_bpf_test_and_clear_cpu_idle(s32 cpu) KFUNC;
extern void scx_bpf_dsq_insert(struct task_struct *p, u64 dsq_id, u64 slice, u64 enq_flags) KFUNC;
extern s32 scx_bpf_task_cpu(const struct task_struct *p) KFUNC;
extern u64 scx_bpf_now(void) KFUNC;
extern bool scx_bpf_task_set_slice(struct task_struct *p, u64 slice) KFUNC WEAK; // Linux 6.19
extern bool bpf_cpumask_test_cpu(u32 cpu, const struct cpumask *cpumask) KFUNC;
extern struct task_struct *bpf_task_from_pid(s32 pid) KFUNC;
extern void bpf_task_release(struct task_struct *p) KFUNC;

// The classes, and what else a CPU may be doing.
enum { system_class, interactive_class, batch_class, searching = 254, nothing = 255 };

#define SCX_DSQ_GLOBAL 0x8000000000000001ULL
#define SCX_DSQ_LOCAL 0x8000000000000002ULL
#define SCX_DSQ_LOCAL_ON 0xc000000000000000ULL
#define SCX_ENQ_PREEMPT (1ULL << 32)
#define SCX_TASK_QUEUED 1
#define PF_EXITING 0x00000004
#define PF_KTHREAD 0x00200000
#define MAX_CPUS 1024
#define MAX_DOMAINS 256
#define SLOTS 65536

// Batch that has waited this long runs for a moment although others are more
// urgent, before the kernel's watchdog takes us for dead.
#define BATCH_PATIENCE (1000 * MILLISECOND)
// However late a deadline is, it is before batch.
#define FURTHEST (500 * MILLISECOND)
#define SLICE (5 * MILLISECOND)
#define BATCH_SLICE (20 * MILLISECOND)
// A CPU that has found nothing is idle, and known to be, well within this.
#define SEARCH (MILLISECOND / 5)

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

// What a CPU does.
struct current {
	u64 deadline; // of what it runs, or since when it is searching
	u32 class;
	u32 unused;
};

struct {
	NUMBER(type, BPF_MAP_TYPE_ARRAY);
	NUMBER(max_entries, MAX_CPUS);
	u32 *key;
	struct current *value;
} cpus SEC(".maps");

// A thread that waits. The CPU that changes tid by compare-and-exchange has it.
struct entry {
	u64 deadline;
	u32 tid; // 0: free
	u32 batch;
};

#define ENTRIES 1024
#define TRIES 64 // how many of the waiting a CPU tries to get, the most urgent first
#define FILLING (~0U)

// The waiting of one domain; the lowest free entry is taken, so that a search
// ends after count of them.
struct queue {
	struct entry entries[ENTRIES];
	s32 count;
	u32 unused;
};

struct {
	NUMBER(type, BPF_MAP_TYPE_ARRAY);
	NUMBER(max_entries, MAX_DOMAINS); // the loader sets how many there are
	u32 *key;
	struct queue *value;
} queues SEC(".maps");

// Why the kernel took the scheduler out.
struct verdict {
	char reason[128];
	char message[256];
};

struct {
	NUMBER(type, BPF_MAP_TYPE_ARRAY);
	NUMBER(max_entries, 1);
	u32 *key;
	struct verdict *value;
} verdicts SEC(".maps");

// The machine. CPUs of a domain lie together in order, domains of a NUMA node
// beside each other.
const volatile u32 nr_cpus = 1;
const volatile u32 nr_domains = 1;
const volatile u16 order[MAX_CPUS];
const volatile u16 domain_of[MAX_CPUS];
const volatile u16 domain_first[MAX_DOMAINS];
const volatile u16 domain_size[MAX_DOMAINS];

// Not used: the compiler describes a type in full only where something has it.
struct cpumask described;

INLINE u32 class_of(struct task_struct *p)
{
	u32 class = system_class;
	struct cgroup *group = p->cgroups->dfl_cgrp, *top;
	if (group->level < 2)
		return class;
	top = bpf_cgroup_ancestor(group, 2);
	if (!top)
		return class;
	u64 id = top->kn->id;
	u32 *found = map_lookup(&classes, &id);
	if (found)
		class = *found;
	bpf_cgroup_release(top);
	return class;
}

INLINE u64 deadline_of(struct task_struct *p, u32 class, u64 now)
{
	if (class == batch_class)
		return now + BATCH_PATIENCE;
	u32 at = (u32)p->pid % SLOTS;
	struct slot *s = map_lookup(&deadlines, &at);
	if (s && s->tid == (u32)p->pid && s->deadline)
		return s->deadline < now + FURTHEST ? s->deadline : now + FURTHEST;
	return now + (class == system_class ? 2 : 5) * MILLISECOND;
}

INLINE u32 domain(s32 cpu)
{
	u32 d = domain_of[(u32)cpu % MAX_CPUS];
	return d < nr_domains ? d : 0;
}

/* Waiting. */

struct putting {
	struct queue *queue;
	u64 deadline;
	u32 tid, batch;
	s32 at;
};

static long put_one(u32 i, struct putting *w)
{
	if (i >= ENTRIES)
		return 1;
	struct entry *e = &w->queue->entries[i];
	if (e->tid || __sync_val_compare_and_swap(&e->tid, 0, FILLING))
		return 0;
	e->deadline = w->deadline;
	e->batch = w->batch;
	__sync_fetch_and_add(&w->queue->count, 1);
	// A full barrier: a search after this finds the entry.
	__sync_val_compare_and_swap(&e->tid, FILLING, w->tid);
	w->at = i;
	return 1;
}

INLINE bool take(struct queue *q, struct entry *e, u32 tid)
{
	if (__sync_val_compare_and_swap(&e->tid, tid, 0) != tid)
		return 0;
	__sync_fetch_and_add(&q->count, -1);
	return 1;
}

struct picking {
	struct queue *queue;
	u64 after;  // only deadlines later than this
	u64 before; // and earlier than this
	s32 left;   // entries that are still to be found
	s32 at;
	u32 tid, batch;
};

// pick_one looks for the earliest deadline.
static long pick_one(u32 i, struct picking *w)
{
	if (i >= ENTRIES || w->left <= 0)
		return 1;
	struct entry *e = &w->queue->entries[i];
	u32 tid = e->tid;
	if (!tid || tid == FILLING)
		return 0;
	w->left--;
	u64 deadline = e->deadline;
	if (deadline > w->after && deadline < w->before) {
		w->before = deadline;
		w->at = i;
		w->tid = tid;
		w->batch = e->batch;
	}
	return 0;
}

struct fetching {
	struct queue *queue;
	u64 after, before; // as in picking
	u64 now;
	u32 cpu;
	u32 found; // 0 or 1
};

// fetch_one gives the CPU the most urgent of a domain. It returns 0 to try the
// next one, because this one has ended, is not allowed there, or was just
// taken, and 1 to end.
static long fetch_one(u32 i, struct fetching *f)
{
	struct queue *q = f->queue;
	struct picking w = {.queue = q, .after = f->after, .before = f->before, .left = q->count, .at = -1};
	if (w.left <= 0)
		return 1;
	loop(ENTRIES, pick_one, &w, 0);
	if (w.at < 0 || w.at >= ENTRIES)
		return 1;
	struct entry *e = &q->entries[w.at];
	struct task_struct *p = bpf_task_from_pid(w.tid);
	if (!p) {
		take(q, e, w.tid);
		return 0;
	}
	if (!bpf_cpumask_test_cpu(f->cpu, p->cpus_ptr)) {
		f->after = w.before;
	} else if (take(q, e, w.tid)) {
		u64 slice = !w.batch ? SLICE : w.before < f->now ? MILLISECOND : BATCH_SLICE;
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, slice, 0);
		f->found = 1;
	}
	bpf_task_release(p);
	return f->found != 0;
}

// fetch gives the CPU that asks the most urgent of a domain that may run there.
// It is not static: the kernel verifies a global function by itself, once.
__attribute__((noinline)) bool fetch(u32 d, u32 cpu, u64 before, u64 now)
{
	struct fetching f = {.queue = map_lookup(&queues, &d), .before = before, .now = now, .cpu = cpu};
	if (f.queue)
		loop(TRIES, fetch_one, &f, 0);
	return f.found;
}

/* Choosing a CPU. */

struct search {
	struct task_struct *p;
	u64 latest; // deadlines later than this may be interrupted
	u64 now;
	u32 first, size;
	s32 victim;
	bool batch; // which interrupts nobody
};

// consider looks for a CPU that is about to find nothing, else for the one
// that runs the least urgent work.
static long consider(u32 i, struct search *s)
{
	if (i >= s->size)
		return 1;
	u32 cpu = order[(s->first + i) % MAX_CPUS];
	struct current *c = map_lookup(&cpus, &cpu);
	if (!c || c->class == nothing || !bpf_cpumask_test_cpu(cpu, s->p->cpus_ptr))
		return 0;
	if (c->class == searching) {
		if (s->now > c->deadline + SEARCH && !scx_bpf_test_and_clear_cpu_idle(cpu))
			return 0;
		s->victim = cpu;
		return 1;
	}
	if (s->batch)
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
	// Of idle CPUs the kernel prefers a whole core, then the last-level cache,
	// then the NUMA node.
	s32 cpu = scx_bpf_select_cpu_and(p, (s32)ctx[1], ctx[2], p->cpus_ptr, 0);
	if (cpu < 0)
		return (s32)ctx[1];
	scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE, 0);
	return cpu;
}

SEC("struct_ops/oscine_enqueue")
void oscine_enqueue(u64 *ctx)
{
	struct task_struct *p = (void *)ctx[0];
	u64 flags = ctx[1];
	if ((p->flags & PF_KTHREAD) && p->nr_cpus_allowed == 1) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE, flags | SCX_ENQ_PREEMPT);
		return;
	}
	s32 home = scx_bpf_task_cpu(p);
	u32 class = class_of(p);
	if (scx_bpf_test_and_clear_cpu_idle(home)) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, class == batch_class ? BATCH_SLICE : SLICE, flags | SCX_ENQ_PREEMPT);
		return;
	}
	// First into the queue and then looking around: a CPU that has looked into
	// the queue before says that it is searching.
	u64 now = scx_bpf_now(), deadline = deadline_of(p, class, now);
	u32 d = domain(home), tid = p->pid;
	struct putting w = {.queue = map_lookup(&queues, &d), .deadline = deadline, .tid = tid, .batch = class == batch_class, .at = -1};
	if (w.queue)
		loop(ENTRIES, put_one, &w, 0);
	struct search s = {.p = p, .latest = deadline, .now = now, .victim = -1, .batch = class == batch_class};
	s.first = domain_first[d % MAX_DOMAINS];
	s.size = domain_size[d % MAX_DOMAINS];
	loop(s.size, consider, &s, 0);
	if (s.victim < 0 && nr_domains > 1) {
		s.first = 0;
		s.size = nr_cpus;
		loop(nr_cpus, consider, &s, 0);
	}
	if (w.at < 0 || w.at >= ENTRIES || !w.queue) { // the queue is full
		if (s.victim < 0)
			scx_bpf_dsq_insert(p, class == batch_class ? SCX_DSQ_GLOBAL : SCX_DSQ_LOCAL, SLICE, flags);
	} else if (s.victim < 0 || !take(w.queue, &w.queue->entries[w.at], tid)) {
		return; // it waits, or has been fetched meanwhile
	}
	if (s.victim >= 0)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL_ON | (u32)s.victim, class == batch_class ? BATCH_SLICE : SLICE, flags | (class == batch_class ? 0 : SCX_ENQ_PREEMPT));
}

struct round {
	u32 cpu, own;
	u64 before, now;
	bool found;
};

static long fetch_from(u32 i, struct round *r)
{
	r->found = fetch((r->own + i) % nr_domains, r->cpu, r->before, r->now);
	return r->found;
}

SEC("struct_ops/oscine_dispatch")
void oscine_dispatch(u64 *ctx)
{
	u32 cpu = (u32)ctx[0];
	struct task_struct *prev = (void *)ctx[1];
	struct current *c = map_lookup(&cpus, &cpu);
	if (!c)
		return;
	u64 now = scx_bpf_now(), limit = ~0ULL;
	if (prev && (prev->scx.flags & SCX_TASK_QUEUED)) {
		// It goes on unless something is more urgent.
		u32 class = class_of(prev);
		if (class != batch_class)
			limit = c->deadline;
	} else {
		c->deadline = now;
		__sync_lock_test_and_set(&c->class, searching);
	}
	// Whatever is not batch, from near to far, then batch.
	u64 urgent = now + FURTHEST + 1;
	struct round r = {.cpu = cpu, .own = domain(cpu), .now = now, .before = limit < urgent ? limit : urgent};
	loop(nr_domains, fetch_from, &r, 0);
	if (r.found || limit != ~0ULL)
		return;
	r.before = ~0ULL;
	loop(nr_domains, fetch_from, &r, 0);
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

INLINE void take_slice(struct task_struct *p)
{
	if (scx_bpf_task_set_slice)
		scx_bpf_task_set_slice(p, 0);
	else
		p->scx.slice = 0;
}

SEC("struct_ops/oscine_stopping")
void oscine_stopping(u64 *ctx)
{
	struct task_struct *p = (void *)ctx[0];
	bool runnable = ctx[1];
	u32 cpu = this_cpu();
	struct current *c = map_lookup(&cpus, &cpu);
	if (!c)
		return;
	u32 class = c->class;
	c->class = nothing;
	// Batch that real-time work interrupts would go on first when that is done,
	// for the rest of its slice: with PREEMPT_RT, where a thread of the kernel's
	// delivers most wake-ups, before what was just woken. Without a slice it goes
	// back into the queue. Not one that ends, to which the kernel gives a new
	// slice at once, nor one that the kernel is about to move.
	if (runnable && class == batch_class && !(p->flags & PF_EXITING) && bpf_cpumask_test_cpu(cpu, p->cpus_ptr))
		take_slice(p);
}

SEC("struct_ops/oscine_exit")
void oscine_exit(u64 *ctx)
{
	struct scx_exit_info *info = (void *)ctx[0];
	u32 zero = 0;
	struct verdict *v = map_lookup(&verdicts, &zero);
	if (!v)
		return;
	read_string(v->reason, sizeof(v->reason), info->reason);
	read_string(v->message, sizeof(v->message), info->msg);
}

SEC(".struct_ops.link")
struct sched_ext_ops oscine = {
	.select_cpu = (void *)oscine_select_cpu,
	.enqueue = (void *)oscine_enqueue,
	.dispatch = (void *)oscine_dispatch,
	.running = (void *)oscine_running,
	.stopping = (void *)oscine_stopping,
	.exit = (void *)oscine_exit,
	.timeout_ms = 5000,
	.name = "oscine",
};

char _license[] SEC("license") = "GPL";
