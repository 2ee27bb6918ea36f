package urgency

import (
	"math/bits"
	"time"

	"oscine.dev/oscine/internal/linux"
)

// The band of FIFO priorities that requests share, below the real-time class
// (see isolate.RealtimePriority) and above nothing but the kernel's helpers.
const (
	lowest  = 1
	highest = 40
)

// nearest is the deadline that gets the highest priority; each further
// priority stands for a deadline longer by a fourth to a fifth.
const nearest = 50 * time.Microsecond

// For returns the scheduling of a thread that has to answer within the given
// time from now: deadline-monotonic with some forty levels from 50 µs to 50 ms
// and more. Zero, no deadline, is the lowest level. A thread that forks leaves
// its urgency to no child.
func For(deadline time.Duration) linux.Scheduling {
	return linux.Scheduling{Policy: linux.PolicyFIFO, Priority: level(deadline), ResetOnFork: true}
}

// Dispatcher returns the scheduling of the thread that hands requests out: it
// runs before all of them.
func Dispatcher() linux.Scheduling {
	return linux.Scheduling{Policy: linux.PolicyFIFO, Priority: highest + 1, ResetOnFork: true}
}

// level is the priority of a deadline: four levels for each doubling.
func level(deadline time.Duration) int {
	if deadline <= 0 {
		return lowest
	}
	ratio := uint64(deadline) / uint64(nearest)
	if ratio == 0 {
		return highest
	}
	octave := bits.Len64(ratio) - 1
	quarter := int((uint64(deadline)>>octave)*4/uint64(nearest)) - 4
	return max(lowest, highest-4*octave-min(quarter, 3))
}
