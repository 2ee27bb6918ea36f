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
	"golang.org/x/sys/unix"

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
	// Domains are the CPUs that share each last-level cache, those of a NUMA
	// node beside each other; nil: all CPUs share one.
	Domains [][]int
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

// Bounds of bpf/scheduler.bpf.c.
const (
	maxCPUs    = 1024
	maxDomains = 256
)

// describe tells the program of the machine.
func (o *Options) describe(spec *ebpf.CollectionSpec) error {
	possible, err := ebpf.PossibleCPU()
	if err != nil {
		return err
	}
	m, err := newMachine(possible, o.Domains)
	if err != nil {
		return err
	}
	spec.Maps["queues"].MaxEntries = m.domains
	for name, value := range map[string]any{
		"nr_cpus": m.cpus, "nr_domains": m.domains, "order": m.order, "domain_of": m.domainOf,
		"domain_first": m.first, "domain_size": m.size,
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("tell the scheduler its %s: %w", name, err)
		}
	}
	return nil
}

// machine is what bpf/scheduler.bpf.c knows of CPUs.
type machine struct {
	cpus, domains   uint32
	order, domainOf [maxCPUs]uint16
	first, size     [maxDomains]uint16
}

// newMachine orders possible CPUs by domain; those of none form the last.
func newMachine(possible int, domains [][]int) (*machine, error) {
	if possible > maxCPUs {
		return nil, fmt.Errorf("the scheduler knows %d CPUs, this machine may have %d: use the stock scheduler", maxCPUs, possible)
	}
	m := &machine{}
	seen := make([]bool, possible)
	add := func(cpus []int) {
		at := m.cpus
		for _, cpu := range cpus {
			if cpu < 0 || cpu >= possible || seen[cpu] {
				continue
			}
			seen[cpu] = true
			m.order[m.cpus], m.domainOf[cpu] = uint16(cpu), uint16(m.domains)
			m.cpus++
		}
		if m.cpus > at {
			m.first[m.domains], m.size[m.domains] = uint16(at), uint16(m.cpus-at)
			m.domains++
		}
	}
	if len(domains) >= maxDomains {
		return nil, fmt.Errorf("the scheduler knows %d last-level caches, this machine has %d: use the stock scheduler", maxDomains-1, len(domains))
	}
	for _, d := range domains {
		add(d)
	}
	var rest []int
	for cpu := range possible {
		rest = append(rest, cpu)
	}
	add(rest)
	return m, nil
}

// Verdict is why the kernel took the scheduler out. It is not for one that
// runs.
func (s *Scheduler) Verdict() string {
	awaitDisabled() // it speaks last
	var v struct {
		Reason  [128]byte
		Message [256]byte
	}
	if err := s.collection.Maps["verdicts"].Lookup(uint32(0), &v); err != nil {
		return ""
	}
	text := unix.ByteSliceToString(v.Reason[:])
	if message := unix.ByteSliceToString(v.Message[:]); message != "" {
		text += ": " + message
	}
	return text
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
	if err := o.describe(spec); err != nil {
		return nil, err
	}
	collection, err := bpf.Load(spec)
	if err != nil {
		return nil, fmt.Errorf("load the scheduler, which needs Linux 6.16 or later: %w", err)
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
	awaitDisabled()
	return errors.Join(errs...)
}

// awaitDisabled waits until a scheduler that is being taken out is gone: the
// kernel does it in its own time.
func awaitDisabled() {
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if state, err := State(); err != nil || state == "disabled" {
			return
		}
	}
}

// Release ends a scheduler that an earlier process left pinned. That there is
// none is no error.
func Release(pin string) error {
	err := os.Remove(pin)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		awaitDisabled()
	}
	return err
}
