package isolate

import (
	"context"
	"strconv"
	"strings"
	"time"

	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/pattern"
)

// A thread may be preempted while the kernel reads something under RCU. Where
// interactive work then takes every processor for good, a batch thread never
// gets on, no grace period ends, and in time mounts, cgroups and ends of
// processes wait on the whole machine. Kernels with RCU_BOOST, such as
// PREEMPT_RT ones, lend such a reader a priority; for others the kernel names
// it in its log, and we lend it one. See Documentation/RCU/stallwarn.rst.
const (
	stallTimeout = 5 // seconds until the kernel names readers
	lent         = 2 * time.Millisecond
)

// stalledReader is how a thread is named: P, its number, and for some a state.
var stalledReader = pattern.New(`\bP(\d{1,10})\b`)

// stalledReaders are the threads that a line of the kernel's log names as
// those that keep a grace period from ending.
func stalledReaders(line string) []int {
	_, names, ok := strings.Cut(line, "Tasks blocked on level")
	if !ok {
		if _, names, ok = strings.Cut(line, "expedited stalls on CPUs/tasks: {"); !ok {
			return nil
		}
	}
	var tids []int
	for _, m := range stalledReader.Regexp().FindAllStringSubmatch(names, 64) {
		if tid, err := strconv.Atoi(m[1]); err == nil && tid > 0 {
			tids = append(tids, tid)
		}
	}
	return tids
}

// rescueReaders follows the kernel's log until ctx ends.
func (i *Isolator) rescueReaders(ctx context.Context) {
	err := linux.KernelLog(ctx, i.host.file("dev/kmsg"), linux.KernelLogOptions{New: true, Follow: true}, func(record string) error {
		for _, tid := range stalledReaders(record) {
			i.lend(tid)
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		i.log.Warn("work that keeps the kernel's grace periods from ending is not helped along", "error", err)
	}
}

// lend lets a thread run before all work that is not real-time for a moment,
// which is enough to leave its read section.
func (i *Isolator) lend(tid int) {
	own, err := linux.GetScheduling(tid)
	if err != nil || own.Policy == linux.PolicyFIFO || own.Policy == linux.PolicyRR || own.Policy == linux.PolicyDeadline {
		return
	}
	if err := linux.SetScheduling(tid, linux.Scheduling{Policy: linux.PolicyFIFO, Priority: 1}); err != nil {
		i.log.Debug("isolation", "thread", tid, "error", err)
		return
	}
	time.Sleep(lent)
	err = linux.SetScheduling(tid, own)
	i.log.Info("isolation", "thread", tid, "lent", lent, "why", "it kept the kernel's grace periods from ending", "error", err)
}
