package isolate

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/isolate/urgency"
	"oscine.dev/oscine/internal/linux"
)

// Raise tells the kernel within what time threads of an interactive workload
// have to be done: the stock scheduler by a FIFO priority (see package
// urgency), the sched_ext scheduler by their deadline. Threads that have ended
// are no error. It takes no lock and a system call for each thread.
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
