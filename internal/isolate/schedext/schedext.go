package schedext

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"oscine.dev/oscine/internal/bpf"
)

// objects holds bpf/scheduler.bpf.o where make has built it.
//
//go:embed bpf
var objects embed.FS

const object = "bpf/scheduler.bpf.o"

// ErrUnsupported is returned where the kernel has no sched_ext.
var ErrUnsupported = errors.New("this kernel has no sched_ext: it needs CONFIG_SCHED_CLASS_EXT, Linux 6.12 or later")

// ErrOccupied is returned where another sched_ext scheduler runs.
var ErrOccupied = errors.New("another sched_ext scheduler runs")

// The classes' numbers in bpf/scheduler.bpf.c.
const (
	systemClass      uint32 = 0
	interactiveClass uint32 = 1
	batchClass       uint32 = 2
)

// slots is the size of the table of deadlines.
const slots = 65536

// slot is one thread's deadline, laid out as in bpf/scheduler.bpf.c.
type slot struct {
	deadline int64 // CLOCK_MONOTONIC in nanoseconds
	tid      uint32
	_        uint32
}

// Options say which cgroups are which class, and where the link is kept.
type Options struct {
	System, Interactive, Batch string // folders of cgroups at the second level
	// Pin is the link's path on a BPF file system: with it the scheduler
	// outlives this process until Close. "": it ends with this process.
	Pin string
}

// Scheduler is the running scheduler.
type Scheduler struct {
	collection *ebpf.Collection
	link       link.Link
	pin        string
	deadlines  *ebpf.Memory
}

const stateFile = "/sys/kernel/sched_ext/state"

// State is what the kernel says of sched_ext: disabled, enabling, enabled, or
// disabling.
func State() (string, error) {
	raw, err := os.ReadFile(stateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return "", ErrUnsupported
	}
	return strings.TrimSpace(string(raw)), err
}

// Start loads the scheduler and gives it all tasks of ordinary policies.
// Errors: ErrUnsupported, ErrOccupied, bpf.ErrNotBuilt.
func Start(o Options) (*Scheduler, error) {
	switch state, err := State(); {
	case err != nil:
		return nil, err
	case state != "disabled":
		return nil, fmt.Errorf("%w: its state is %s", ErrOccupied, state)
	}
	spec, err := bpf.Read(objects, object)
	if err != nil {
		return nil, err
	}
	if err := spec.Variables["nr_cpus"].Set(uint32(ebpf.MustPossibleCPU())); err != nil {
		return nil, err
	}
	collection, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, fmt.Errorf("load the scheduler: %w", err)
	}
	s := &Scheduler{collection: collection, pin: o.Pin}
	if err := s.start(o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Scheduler) start(o Options) error {
	for dir, class := range map[string]uint32{o.System: systemClass, o.Interactive: interactiveClass, o.Batch: batchClass} {
		id, err := cgroupID(dir)
		if err != nil {
			return err
		}
		if err := s.collection.Maps["classes"].Put(id, class); err != nil {
			return fmt.Errorf("tell the scheduler of %s: %w", dir, err)
		}
	}
	var err error
	if s.deadlines, err = s.collection.Maps["deadlines"].Memory(); err != nil {
		return fmt.Errorf("map the deadlines: %w", err)
	}
	if s.link, err = link.AttachStructOps(link.StructOpsOptions{Map: s.collection.Maps["oscine"]}); err != nil {
		return fmt.Errorf("attach the scheduler: %w", err)
	}
	if s.pin == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(s.pin), 0o700); err != nil {
		return err
	}
	return s.link.Pin(s.pin)
}

// cgroupID is the number by which the kernel knows a cgroup: its folder's
// inode.
func cgroupID(dir string) (uint64, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		return 0, fmt.Errorf("cgroup %s: %w", dir, err)
	}
	return st.Ino, nil
}

// SetDeadline tells by when a thread has to be done, 0 that it has no deadline
// but its class's. It costs two stores to shared memory. deadline is of
// CLOCK_MONOTONIC, in nanoseconds.
func (s *Scheduler) SetDeadline(tid int, deadline int64) error {
	if tid <= 0 {
		return fmt.Errorf("there is no thread %d", tid)
	}
	value := slot{deadline: deadline, tid: uint32(tid)}
	raw := unsafe.Slice((*byte)(unsafe.Pointer(&value)), unsafe.Sizeof(value))
	_, err := s.deadlines.WriteAt(raw, int64(tid%slots)*int64(unsafe.Sizeof(value)))
	runtime.KeepAlive(&value)
	return err
}

// Running reports whether the kernel still runs the scheduler: its watchdog
// takes out one that lets a task wait too long.
func (s *Scheduler) Running() bool {
	state, err := State()
	return err == nil && state == "enabled"
}

// Close gives all tasks back to the stock scheduler.
func (s *Scheduler) Close() error {
	var errs []error
	if s.link != nil {
		if s.pin != "" {
			errs = append(errs, s.link.Unpin())
		}
		errs = append(errs, s.link.Close())
	}
	s.collection.Close()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if state, err := State(); err != nil || state == "disabled" {
			break
		}
	}
	return errors.Join(errs...)
}

// Release ends a scheduler that an earlier process left pinned. That there is
// none is no error.
func Release(pin string) error {
	if err := os.Remove(pin); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
