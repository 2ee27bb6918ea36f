package isolate

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/locker"

	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/isolate/schedext"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pattern"
	"oscine.dev/oscine/internal/place"
)

// The classes of objects, and System for the product's own services.
const (
	Realtime    = object.Realtime
	Interactive = object.Interactive
	Batch       = object.Batch

	System object.Class = "system"
)

// Errors that a caller can act on.
var (
	// ErrInvalid is returned for a Spec that no machine could hold.
	ErrInvalid = errdefs.ErrInvalidArgument.WithMessage("invalid isolation request")
	// ErrTaken is returned where a CPU is promised to another workload.
	ErrTaken = errdefs.ErrResourceExhausted.WithMessage("is promised to another workload")
	// ErrNoHousekeeping is returned where no CPU would be left for the system.
	ErrNoHousekeeping = errdefs.ErrResourceExhausted.WithMessage("would leave no CPU for the system")
	// ErrOverCommitted is returned where the sum of reservations would pass
	// what the kernel or this package can guarantee.
	ErrOverCommitted = errdefs.ErrResourceExhausted.WithMessage("would break a promise already given")
	// ErrUnknown is returned for a workload that was not prepared.
	ErrUnknown = errdefs.ErrNotFound.WithMessage("is not known here")
)

// Options say where the kernel is and what each class may take.
type Options struct {
	Root  string // holds sys, proc and dev; "" is /
	Slice string // the cgroup that holds the classes; "" is oscine.slice
	// Data is a folder on the disk that workloads read and write; "" leaves all
	// disks as they are. Dividing a disk by class is for a machine of our own.
	Data string
	// Own says that this machine is ours alone: kernel-wide settings that help
	// latency are made. On a host with other users they are only reported.
	Own bool
	// SchedExt puts the second back end, a sched_ext scheduler, beside the
	// stock one; cgroups, partitions and policies are the same. Where it cannot
	// start, or the kernel takes it out, the stock scheduler does its work.
	SchedExt bool
	Slices   Slices // zero fields take defaults from the machine's size
	Logger   *slog.Logger
	OnEvent  func(Event) // called without locks held; may be nil
}

// Event reports a promise that changed: broken, repaired, or held back for.
type Event struct {
	Time    time.Time
	ID      string // workload, "" for the machine
	Reason  string // in one word, such as PromiseBroken
	Message string
}

// Reasons of events.
const (
	ReasonBroken   = "PromiseBroken"
	ReasonRepaired = "PromiseRepaired"
	ReasonHeldBack = "BatchHeldBack"
	ReasonResumed  = "BatchResumed"
	ReasonOverload = "InteractiveOverloaded"
	ReasonLimit    = "LimitReached"
	ReasonKilled   = "OutOfMemory"
)

// Spec is what one workload was promised.
type Spec struct {
	ID    string // the name of its cgroup
	Class object.Class

	CPUs        hardware.Set      // where it runs; empty: anywhere
	Idle        hardware.Set      // SMT siblings of its own CPUs, where nothing runs at all
	Exclusive   bool              // nothing else runs there; always so for real-time work
	MemoryNodes hardware.Set      // empty: anywhere
	MilliCPU    int64             // thousandths of a CPU: its weight in its class, and the bound of a lent priority; 0: 1000
	Memory      int64             // bytes it may use; 0: no limit. Real-time memory is never reclaimed
	MemoryLow   int64             // bytes that reclaim spares while it can, such as a model's
	HugePages   []place.HugePages // on its memory nodes

	// Deadline asks for SCHED_DEADLINE for the first process of a real-time
	// workload; nil gives it SCHED_FIFO.
	Deadline *Reservation
	// Objective is the wake-up latency promised, for Status; 0: none.
	Objective time.Duration
}

// RealtimePriority is the SCHED_FIFO priority of real-time workloads: above
// requests of the serving path, below the kernel's own critical threads.
const RealtimePriority = 60

// holding is a prepared workload.
type holding struct {
	slice    string
	spec     Spec
	pids     []int                // of Apply
	reserved map[int]*Reservation // by thread
	unheld   []Gap                // what was promised and is not kept
	seen     *observation
	before   hardware.Set // where its threads were until it was moved; empty once all are known to have come
	moved    time.Time
}

// Isolator holds the promises of one machine. It is safe for concurrent use:
// changes come one after the other, and reading waits for none of them.
type Isolator struct {
	o    Options
	log  *slog.Logger
	host host
	cg   *cgroups

	// workload keeps the changes of one workload apart that take more than one
	// step; it is locked before mu.
	workload *locker.Locker
	pages    hugePools
	shown    atomic.Pointer[view]

	mu       sync.Mutex // of a change, and all down to the blank line
	held     map[string]*holding
	gaps     []Gap
	reserved hardware.Set // CPUs of real-time workloads
	// leftovers are cgroups of released workloads that still had processes.
	leftovers []string
	latency   map[int]*latencyHold
	// dmaLatency holds the whole machine awake while it is open.
	dmaLatency *os.File
	homes      homes
	meterDue   bool // it starts with the next workload

	guardMu  sync.Mutex // of the guard's state
	guard    guardState
	stalls   stalls
	heldBack atomic.Pointer[string] // why batch work is, nil if it is not

	observing sync.Mutex
	// classRefused counts the forks that were refused within a class.
	classRefused map[object.Class]uint64

	prioritiesMu sync.Mutex
	priorities   map[string]*Priority

	ext   atomic.Pointer[schedext.Scheduler] // nil: the stock scheduler
	meter atomic.Pointer[wakeupMeter]        // nil where wake-ups are not measured
}

// Open reads what the host can do and makes the classes' slices. It fails only
// where sysfs and procfs cannot be read; what this host lacks is in Gaps.
func Open(o Options) (*Isolator, error) {
	if o.Root == "" {
		o.Root = "/"
	}
	if o.Slice == "" {
		o.Slice = defaultSlice
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.OnEvent == nil {
		o.OnEvent = func(Event) {}
	}
	h, err := inspect(o.Root)
	if err != nil {
		return nil, err
	}
	i := &Isolator{o: o, log: o.Logger, host: h, workload: locker.New(), held: map[string]*holding{}, latency: map[int]*latencyHold{}, classRefused: map[object.Class]uint64{}, priorities: map[string]*Priority{}}
	i.cg = &cgroups{dir: h.cgroups, ledger: map[string]*entry{}}
	i.publish()
	i.gaps = append(i.gaps, h.gaps...)
	if h.cgroups != "" {
		i.gaps = append(i.gaps, i.makeSlices()...)
		if o.Own && o.Data != "" {
			i.gaps = append(i.gaps, i.divideDisk(o.Data)...)
		}
	}
	i.gaps = append(i.gaps, i.tuneKernel()...)
	if o.SchedExt {
		i.gaps = append(i.gaps, i.startSchedExt()...)
	}
	i.gaps = append(i.gaps, i.expectMeter()...)
	for _, g := range i.gaps {
		i.log.Warn("isolation", "guarantee", g.Guarantee, "missing", g.Reason)
	}
	i.publish()
	return i, nil
}

// Gap is a guarantee that this host cannot give, and why.
type Gap struct {
	Guarantee string `json:"guarantee"`
	Reason    string `json:"reason"`
}

// String names the guarantee and the reason in one line.
func (g Gap) String() string { return g.Guarantee + ": " + g.Reason }

// Gaps lists the guarantees that this host cannot give.
func (i *Isolator) Gaps() []Gap {
	return slices.Clone(i.view().gaps)
}

// Reserved returns the CPUs that real-time workloads hold for themselves.
func (i *Isolator) Reserved() hardware.Set {
	return i.view().reserved
}

// CgroupPath returns the path of a workload's cgroup below the root of the
// hierarchy, as a container runtime takes it.
func CgroupPath(class object.Class, id string) string {
	return "/" + filepath.Join(defaultSlice, string(class), id)
}

// Cgroup returns the folder of a prepared workload's cgroup, or "" where this
// host has none.
func (i *Isolator) Cgroup(id string) string {
	h, ok := i.view().held[id]
	if !ok || i.host.cgroups == "" {
		return ""
	}
	return i.cg.path(h.group())
}

// Remove releases all workloads and removes the slice. It fails while a
// process is left in it.
func (i *Isolator) Remove() error {
	var errs []error
	for id := range i.view().held {
		errs = append(errs, i.Release(id))
	}
	defer i.change()()
	if i.host.cgroups != "" {
		errs = append(errs, i.cg.remove(i.o.Slice))
	}
	return errors.Join(errs...)
}

// own is everything that nobody else gets.
func (s *Spec) own() hardware.Set {
	if !s.Exclusive {
		return hardware.Set{}
	}
	return s.CPUs.Or(s.Idle)
}

var idRE = pattern.New(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)

func (s *Spec) check() error {
	if !idRE.MatchString(s.ID) {
		return fmt.Errorf("%w: %q is not the name of a workload", ErrInvalid, s.ID)
	}
	switch s.Class {
	case Realtime, Interactive, Batch:
	default:
		return fmt.Errorf("%w: workload %s: there is no class %q: use realtime, interactive or batch", ErrInvalid, s.ID, s.Class)
	}
	if s.Class == Realtime {
		s.Exclusive = true
	}
	if s.Exclusive && s.CPUs.Empty() {
		return fmt.Errorf("%w: workload %s needs CPUs of its own, and names none", ErrInvalid, s.ID)
	}
	if !s.Idle.Empty() && (!s.Exclusive || s.Idle.Meets(s.CPUs)) {
		return fmt.Errorf("%w: workload %s: CPU %s cannot be idle and run it", ErrInvalid, s.ID, s.Idle)
	}
	if s.Deadline != nil {
		if s.Class != Realtime {
			return fmt.Errorf("%w: workload %s: only real-time work has a deadline reservation", ErrInvalid, s.ID)
		}
		if err := s.Deadline.check(); err != nil {
			return fmt.Errorf("workload %s: %w", s.ID, err)
		}
	}
	return nil
}

// Prepare tells the kernel of a workload before its first process starts. It
// may be repeated with the same or a changed Spec, also for a workload that
// runs since before this process did. When it fails nothing has changed.
// Errors: ErrInvalid, ErrTaken, ErrNoHousekeeping, ErrOverCommitted.
func (i *Isolator) Prepare(s Spec) error {
	if err := s.check(); err != nil {
		return err
	}
	i.workload.Lock(s.ID)
	defer func() { _ = i.workload.Unlock(s.ID) }() // it fails only for what is not locked
	i.mu.Lock()
	err := i.admit(&s)
	i.mu.Unlock()
	if err != nil {
		return err
	}
	// The kernel may take seconds to find huge pages: nothing else waits for it.
	undo, err := i.pages.reserve(&i.host, &s)
	if err != nil {
		return err
	}
	if err := i.hold(s); err != nil {
		return errors.Join(err, undo())
	}
	return nil
}

// hold makes a workload's promises the kernel's.
func (i *Isolator) hold(s Spec) error {
	defer i.change()()
	if err := i.admit(&s); err != nil { // others came meanwhile
		return err
	}
	old := i.held[s.ID]
	h := &holding{slice: i.o.Slice, spec: s, reserved: map[int]*Reservation{}, seen: &observation{}}
	if old != nil && old.spec.Class == s.Class {
		h.pids, h.reserved, h.seen = old.pids, old.reserved, old.seen
	}
	i.held[s.ID] = h
	if err := i.enforce(h); err != nil {
		if old == nil {
			return errors.Join(err, i.drop(s.ID))
		}
		i.held[s.ID] = old
		return errors.Join(err, i.enforce(old))
	}
	return nil
}

// admit refuses what this machine cannot promise beside what it has promised.
func (i *Isolator) admit(s *Spec) error {
	if absent := s.CPUs.Or(s.Idle).Minus(i.host.online()); !absent.Empty() {
		return fmt.Errorf("%w: workload %s: this machine has no CPU %s online", ErrInvalid, s.ID, absent)
	}
	if !s.Exclusive {
		return nil
	}
	reserved := s.own()
	for id, h := range i.held {
		if id == s.ID || !h.spec.Exclusive {
			continue
		}
		if both := h.spec.own().And(s.own()); !both.Empty() {
			return fmt.Errorf("workload %s: CPU %s %w, %s", s.ID, both, ErrTaken, id)
		}
		reserved = reserved.Or(h.spec.own())
	}
	if i.host.online().Minus(reserved).Empty() {
		return fmt.Errorf("workload %s: isolating CPU %s %w: ask for fewer, at least one stays", s.ID, s.CPUs, ErrNoHousekeeping)
	}
	if s.Deadline != nil {
		return i.bound(s.CPUs).Admit(nil, *s.Deadline)
	}
	return nil
}

// Admit refuses a reservation that no CPU of this machine could hold, before
// anything is given up for it. The bound is that of the CPU that has most to
// give. Errors: ErrInvalid, ErrOverCommitted.
func (i *Isolator) Admit(r Reservation) error {
	var most Bound
	for _, cpu := range i.host.online().IDs() {
		if b := i.bound(hardware.NewSet(cpu)); b.Limit() > most.Limit() {
			most = b
		}
	}
	return most.Admit(nil, r)
}

// enforce writes everything that holds without a process.
func (i *Isolator) enforce(h *holding) error {
	h.unheld = nil
	if i.host.cgroups != "" {
		if err := i.makeLeaf(h); err != nil {
			return err
		}
		i.measure(h)
	}
	i.settle()
	return nil
}

// Release takes back what Prepare and Apply set. What is gone already is fine.
func (i *Isolator) Release(id string) error {
	i.workload.Lock(id)
	defer func() { _ = i.workload.Unlock(id) }() // it fails only for what is not locked
	i.forgetPriority(id)
	return errors.Join(i.dropNow(id), i.pages.release(id))
}

func (i *Isolator) dropNow(id string) error {
	defer i.change()()
	return i.drop(id)
}

func (i *Isolator) drop(id string) error {
	h, ok := i.held[id]
	if !ok {
		return nil
	}
	delete(i.held, id)
	i.unmeasure(id)
	var err error
	if i.host.cgroups != "" {
		err = i.removeLeaf(h)
	}
	i.settle()
	return err
}

// settle brings what depends on all workloads together in line: the CPUs set
// aside, interrupts, kernel threads, idle states.
func (i *Isolator) settle() {
	// An idle sibling may sleep as deeply as it likes: the core stays awake with
	// the CPU that works, and polling would take its units.
	var reserved, awake hardware.Set
	for _, h := range i.held {
		if h.spec.Class == Realtime {
			reserved, awake = reserved.Or(h.spec.own()), awake.Or(h.spec.CPUs)
		}
	}
	before := i.reserved
	i.reserved = reserved
	if !before.Equal(reserved) {
		i.moveInterrupts(before, reserved)
		i.moveKernelThreads(before, reserved)
		i.holdLatency(awake)
	}
}

// Close lets go of what lives as long as this process: idle-state requests and
// a frozen batch class. Workloads and their cgroups stay.
func (i *Isolator) Close() error {
	defer i.change()()
	i.holdLatency(hardware.Set{})
	return errors.Join(i.resumeBatch(), i.stopSchedExt(), i.stopMeter())
}

// emit sends an event after the lock is released; callers pass what they
// collected.
func (i *Isolator) emit(events []Event) {
	for _, e := range events {
		if e.Time.IsZero() {
			e.Time = time.Now()
		}
		i.log.Info("isolation", "id", e.ID, "reason", e.Reason, "message", e.Message)
		i.o.OnEvent(e)
	}
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)
}
