package isolate

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/isolate/urgency"
	"oscine.dev/oscine/internal/linux"
)

// nearby is the longest deadline that gets a priority of the stock scheduler.
// What computes under one keeps the daemon from handing out other requests
// meanwhile; work with more time than that is well served by its class. On one
// CPU with as many long requests as it can take, of requests due in 3 ms 50 %
// came late when the long ones had a priority too, 2 % when not.
const nearby = 20 * time.Millisecond

// Raise tells the kernel within what time threads of an interactive workload
// have to be done: the stock scheduler by a FIFO priority where it is near (see
// package urgency), the sched_ext scheduler by their deadline. Threads that have
// ended are no error. It takes no lock and a system call for each thread.
func (i *Isolator) Raise(threads []int, within time.Duration) error {
	if s := i.ext.Load(); s != nil {
		by := linux.Monotonic() + int64(within)
		for _, tid := range threads {
			if err := s.SetDeadline(tid, by); err != nil {
				return err
			}
		}
		return nil
	}
	if within > nearby {
		return schedule(threads, linux.Scheduling{})
	}
	return schedule(threads, urgency.For(within))
}

// Lower takes back what Raise set.
func (i *Isolator) Lower(threads []int) error {
	if s := i.ext.Load(); s != nil {
		for _, tid := range threads {
			if err := s.SetDeadline(tid, 0); err != nil {
				return err
			}
		}
		return nil
	}
	return schedule(threads, linux.Scheduling{})
}

func schedule(threads []int, s linux.Scheduling) error {
	for _, tid := range threads {
		if err := linux.SetScheduling(tid, s); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("SCHED_%s for thread %d: %w", s.Policy, tid, err)
		}
	}
	return nil
}
