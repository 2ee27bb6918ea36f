package classes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/isolate"
	"oscine.dev/oscine/internal/object"
)

// Host is a machine whose classes a daemon keeps. They are measured as they
// are, with its limits, beside its workloads: a second isolator would send
// interrupts back to CPUs that the first has promised to others.
type Host struct {
	Isolator *isolate.Isolator
	// Default is the cgroup's folder of the class default, which belongs to
	// none of the daemon's; "" is the caller's own.
	Default string
	// Lend gives the worker of a real-time series CPUs that are nobody's, and
	// takes them back.
	Lend func(*isolate.Spec) (back func(), err error)
}

// The names of what is measured and of what disturbs it.
const (
	workerID = "oscine-bench-worker"
	loadID   = "oscine-bench-load"
)

// Discard ends and removes what an earlier process of the daemon left when it
// was killed while it measured.
func Discard(i *isolate.Isolator) error {
	var errs []error
	for _, class := range []object.Class{isolate.Realtime, isolate.Interactive, isolate.Batch} {
		errs = append(errs, i.Discard(class, workerID), i.Discard(class, loadID))
	}
	return errors.Join(errs...)
}

func (h *Host) scheduler() string {
	if h.Isolator != nil && h.Isolator.SchedExt() {
		return SchedExt
	}
	return Stock
}

// ownCPU chooses the CPU of a real-time series.
func (r *run) ownCPU(spec *isolate.Spec) (back func(), err error) {
	if r.o.Host != nil {
		return r.o.Host.Lend(spec)
	}
	ids := r.cpus.IDs()
	spec.CPUs = hardware.NewSet(ids[len(ids)-1])
	return func() {}, nil
}

// cgroup is where a process starts.
func (r *run) cgroup(id string, isolated bool) string {
	if !isolated && r.o.Host != nil {
		return r.o.Host.Default
	}
	return r.iso.Cgroup(id)
}

// ErrLeft is returned where something of a measurement stays.
var ErrLeft = errors.New("something of the measurement stays")

// release takes back what was set for the worker or the load, and sees to it
// that its cgroup is gone: the kernel may take a moment after the last process.
func (r *run) release(id string) {
	dir := r.iso.Cgroup(id)
	err := r.iso.Release(id)
	for wait := time.Millisecond; dir != "" && err == nil; wait *= 2 {
		if _, gone := os.Stat(dir); errors.Is(gone, fs.ErrNotExist) {
			return
		}
		if wait > time.Second {
			err = fmt.Errorf("cgroup %s has processes still", dir)
			break
		}
		time.Sleep(wait)
		r.iso.Verify() // removes what is empty now
	}
	if err != nil {
		r.left = errors.Join(r.left, fmt.Errorf("%w: %w", ErrLeft, err))
	}
}
