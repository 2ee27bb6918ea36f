package linux

import (
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Policy is a scheduling policy; see sched(7).
type Policy uint32

// The policies of the kernel.
const (
	PolicyOther    Policy = 0
	PolicyFIFO     Policy = 1
	PolicyRR       Policy = 2
	PolicyBatch    Policy = 3
	PolicyIdle     Policy = 5
	PolicyDeadline Policy = 6
	PolicyExt      Policy = 7
)

// String returns the policy's name in sched(7) without SCHED_.
func (p Policy) String() string {
	switch p {
	case PolicyOther:
		return "OTHER"
	case PolicyFIFO:
		return "FIFO"
	case PolicyRR:
		return "RR"
	case PolicyBatch:
		return "BATCH"
	case PolicyIdle:
		return "IDLE"
	case PolicyDeadline:
		return "DEADLINE"
	case PolicyExt:
		return "EXT"
	}
	return fmt.Sprintf("policy %d", uint32(p))
}

// Scheduling is how the kernel schedules one thread.
type Scheduling struct {
	Policy      Policy
	ResetOnFork bool // children start as OTHER
	Nice        int  // OTHER and BATCH
	Priority    int  // FIFO and RR: 1 to 99, the higher runs first

	// DEADLINE: Runtime in every Period, done by Deadline after its start.
	// OTHER: Runtime is the slice; 0 is the kernel's own.
	Runtime, Deadline, Period time.Duration
}

// SetScheduling sets a thread's scheduling, 0 meaning the caller, by
// sched_setattr(2): EBUSY where the kernel's admission refuses a DEADLINE
// reservation, EPERM where the thread may not run on the whole of its root
// domain.
//
//go:nosplit
func SetScheduling(tid int, s Scheduling) error {
	attr := unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: uint32(s.Policy), Nice: int32(s.Nice), Priority: uint32(s.Priority),
		Runtime: uint64(s.Runtime), Deadline: uint64(s.Deadline), Period: uint64(s.Period),
	}
	if s.ResetOnFork {
		attr.Flags |= unix.SCHED_FLAG_RESET_ON_FORK
	}
	// Raw: it never waits, and a thread that hands requests out must not meet
	// the Go scheduler on its way back.
	if _, _, errno := unix.RawSyscall(unix.SYS_SCHED_SETATTR, uintptr(tid), uintptr(unsafe.Pointer(&attr)), 0); errno != 0 {
		return errno
	}
	return nil
}

// GetScheduling reads a thread's scheduling, 0 meaning the caller.
func GetScheduling(tid int) (Scheduling, error) {
	attr, err := unix.SchedGetAttr(tid, 0)
	if err != nil {
		return Scheduling{}, err
	}
	return Scheduling{
		Policy: Policy(attr.Policy), ResetOnFork: attr.Flags&unix.SCHED_FLAG_RESET_ON_FORK != 0,
		Nice: int(attr.Nice), Priority: int(attr.Priority),
		Runtime: time.Duration(attr.Runtime), Deadline: time.Duration(attr.Deadline), Period: time.Duration(attr.Period),
	}, nil
}

// SleepUntil sleeps to an absolute time of CLOCK_MONOTONIC, in nanoseconds. It
// does not tell the Go scheduler, so it is for threads locked to a goroutine of
// a process that collects no garbage meanwhile; nothing else wakes as sharply.
//
// Neither it nor the functions below look at the goroutine's stack bound: there
// the Go runtime, finding that a goroutine ran for 10 ms, would take the thread
// away and leave it to others of ordinary priority to give it back.
//
//go:nosplit
func SleepUntil(deadline int64) {
	const absolute = 1
	at := unix.NsecToTimespec(deadline)
	for {
		_, _, errno := unix.RawSyscall6(unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_MONOTONIC, absolute, uintptr(unsafe.Pointer(&at)), 0, 0, 0)
		if errno != unix.EINTR {
			return
		}
	}
}

// Monotonic reads CLOCK_MONOTONIC in nanoseconds.
//
//go:nosplit
func Monotonic() int64 {
	var now unix.Timespec
	unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_MONOTONIC, uintptr(unsafe.Pointer(&now)), 0)
	return now.Nano()
}

// FutexWait sleeps while the word holds the value, until FutexWake or for no
// reason; see futex(2). It is as private to threads as SleepUntil.
//
//go:nosplit
func FutexWait(word *atomic.Uint32, value uint32) {
	const waitPrivate = 128
	unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), waitPrivate, uintptr(value), 0, 0, 0)
}

// FutexWake wakes one thread that sleeps on the word.
//
//go:nosplit
func FutexWake(word *atomic.Uint32) {
	const wakePrivate = 129
	unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), wakePrivate, 1, 0, 0, 0)
}

// ThreadCPUTime is the processor time that the calling thread has used.
//
//go:nosplit
func ThreadCPUTime() time.Duration {
	var used unix.Timespec
	unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_THREAD_CPUTIME_ID, uintptr(unsafe.Pointer(&used)), 0)
	return time.Duration(used.Nano())
}

// SetTimerSlack lets the calling thread's timers come at most d late; see
// PR_SET_TIMERSLACK. The smallest is one nanosecond.
func SetTimerSlack(d time.Duration) error {
	return unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(max(d, 1)), 0, 0, 0)
}
