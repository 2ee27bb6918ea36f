package isolate

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// ErrNoGPUShare is returned where a device cannot be shared as asked without
// breaking a promise.
var ErrNoGPUShare = errors.New("the GPU cannot be shared so")

// Sharing is how one GPU is divided.
type Sharing string

// The ways to share, from the strictest isolation: a whole device; hardware
// partitions (MIG), with memory, caches and faults of their own; MPS, with
// processors and memory by percentage but one fault domain; turns by time,
// with nothing of one's own.
const (
	SharingExclusive Sharing = "exclusive"
	SharingMIG       Sharing = "mig"
	SharingMPS       Sharing = "mps"
	SharingTime      Sharing = "time-slices"
)

// GPU is what a device can do.
type GPU struct {
	ID         string
	Memory     int64        // bytes
	Partitions []GPUProfile // MIG profiles; empty where it has none
	Slices     int          // that the profiles are made of
	MPS        bool
	TimeSlices bool
	MaxClients int   // of MPS; 0 means 48, the limit since Volta
	Overhead   int64 // bytes that each further process costs, such as a CUDA context
}

// GPUProfile is a size of hardware partition.
type GPUProfile struct {
	Name   string // such as 1g.10gb
	Slices int
	Memory int64 // bytes
	Starts []int // slices at which it may begin
}

// GPURequest asks for a part of a device; the zero part is the whole.
type GPURequest struct {
	ID      string
	Class   Class
	Profile string // a partition by name
	Milli   int64  // thousandths of the compute
	Memory  int64  // bytes of the device's memory
	// Objective is a latency promised; 0: none.
	Objective time.Duration
}

func (r *GPURequest) whole() bool { return r.Profile == "" && r.Milli == 0 && r.Memory == 0 }

// GPUGrant is what a workload gets of a device.
type GPUGrant struct {
	ID      string
	Class   Class
	Sharing Sharing
	Profile string // MIG
	Start   int    // MIG: the first slice
	Percent int    // MPS: of the multiprocessors
	Memory  int64  // bytes it may use
	LowPrio bool   // MPS: runs after others' kernels
	Why     string // the decision in words
}

// Environment is what an MPS client's process must be started with; see
// NVIDIA's Multi-Process Service guide. The other ways need none.
func (g *GPUGrant) Environment() []string {
	if g.Sharing != SharingMPS {
		return nil
	}
	priority := "0"
	if g.LowPrio {
		priority = "1"
	}
	return []string{
		"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=" + strconv.Itoa(g.Percent),
		"CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=" + strconv.FormatInt(g.Memory>>20, 10) + "M",
		"CUDA_MPS_CLIENT_PRIORITY=" + priority,
	}
}

// GPUArbiter decides how one device is shared. It does no calls; what it
// decides is carried out by the helper of the device's driver pack.
type GPUArbiter struct {
	gpu    GPU
	grants []GPUGrant
}

// NewGPUArbiter returns an arbiter for an idle device.
func NewGPUArbiter(gpu GPU) *GPUArbiter {
	if gpu.MaxClients == 0 {
		gpu.MaxClients = 48
	}
	return &GPUArbiter{gpu: gpu}
}

// Grants lists what has been given out.
func (a *GPUArbiter) Grants() []GPUGrant { return slices.Clone(a.grants) }

// Release takes a workload's part back.
func (a *GPUArbiter) Release(id string) {
	a.grants = slices.DeleteFunc(a.grants, func(g GPUGrant) bool { return g.ID == id })
}

// Sharing is how the device is shared now, "" while it is idle. It changes
// only through idleness: all four need the device to themselves.
func (a *GPUArbiter) Sharing() Sharing {
	if len(a.grants) == 0 {
		return ""
	}
	return a.grants[0].Sharing
}

// Admit decides on a request and remembers what it granted. Real-time work
// gets a device or partition of its own; interactive work may share processors
// by MPS within what they have; batch work takes what is left, behind others.
// It returns ErrInvalid or ErrNoGPUShare, and then nothing has changed.
func (a *GPUArbiter) Admit(r GPURequest) (GPUGrant, error) {
	if err := a.check(&r); err != nil {
		return GPUGrant{}, err
	}
	var refusals []error
	for _, way := range a.ways(&r) {
		g, err := way(&r)
		if err == nil {
			g.ID, g.Class = r.ID, r.Class
			a.grants = append(a.grants, g)
			return g, nil
		}
		refusals = append(refusals, err)
	}
	return GPUGrant{}, fmt.Errorf("%s for %s: %w: %w", a.gpu.ID, r.ID, ErrNoGPUShare, errors.Join(refusals...))
}

func (a *GPUArbiter) check(r *GPURequest) error {
	switch {
	case r.Milli < 0 || r.Milli > 1000 || r.Memory < 0:
		return invalid("%s: a share is 0 to 1000 thousandths and an amount of memory, got %d and %d", r.ID, r.Milli, r.Memory)
	case r.Memory > a.gpu.Memory:
		return invalid("%s: %d MiB are asked for, %s has %d", r.ID, r.Memory>>20, a.gpu.ID, a.gpu.Memory>>20)
	case r.Profile != "" && (r.Milli != 0 || r.Memory != 0):
		return invalid("%s: ask for the partition %s or for a share, not both", r.ID, r.Profile)
	case slices.ContainsFunc(a.grants, func(g GPUGrant) bool { return g.ID == r.ID }):
		return invalid("%s has a part of %s already", r.ID, a.gpu.ID)
	case !slices.Contains(allClasses(), r.Class):
		return invalid("%s: there is no class %q", r.ID, r.Class)
	}
	return nil
}

// ways lists what may be tried for a request, the best first.
func (a *GPUArbiter) ways(r *GPURequest) []func(*GPURequest) (GPUGrant, error) {
	switch {
	case r.whole():
		return []func(*GPURequest) (GPUGrant, error){a.exclusive}
	case r.Profile != "":
		return []func(*GPURequest) (GPUGrant, error){a.partition}
	case r.Class == Realtime:
		return []func(*GPURequest) (GPUGrant, error){a.partition, a.exclusive}
	case r.Class == Batch:
		// Partitions are left to those who need them, unless there are some.
		if a.Sharing() == SharingMIG {
			return []func(*GPURequest) (GPUGrant, error){a.partition}
		}
		return []func(*GPURequest) (GPUGrant, error){a.mps, a.turns}
	}
	return []func(*GPURequest) (GPUGrant, error){a.mps, a.partition, a.turns}
}

func (a *GPUArbiter) in(mode Sharing) error {
	if now := a.Sharing(); now != "" && now != mode {
		return fmt.Errorf("%s: it is shared by %s now, since %s", mode, now, a.grants[0].ID)
	}
	return nil
}

func (a *GPUArbiter) exclusive(*GPURequest) (GPUGrant, error) {
	if len(a.grants) > 0 {
		return GPUGrant{}, fmt.Errorf("exclusive: %s uses it", a.grants[0].ID)
	}
	return GPUGrant{Sharing: SharingExclusive, Percent: 100, Memory: a.gpu.Memory, Why: "the whole device"}, nil
}

// partition takes the smallest profile that holds the request, where it leaves
// most room.
func (a *GPUArbiter) partition(r *GPURequest) (GPUGrant, error) {
	if err := a.in(SharingMIG); err != nil {
		return GPUGrant{}, err
	}
	if len(a.gpu.Partitions) == 0 {
		return GPUGrant{}, errors.New("mig: the device has no hardware partitions")
	}
	profiles := slices.Clone(a.gpu.Partitions)
	slices.SortStableFunc(profiles, func(x, y GPUProfile) int { return x.Slices - y.Slices })
	for _, p := range profiles {
		fits := p.Name == r.Profile
		if r.Profile == "" {
			fits = int64(p.Slices)*1000 >= r.Milli*int64(a.gpu.Slices) && p.Memory >= r.Memory
		}
		if !fits {
			continue
		}
		if a.promisedMemory()+p.Memory > a.gpu.Memory {
			continue // memory is cut into coarser slices than compute
		}
		if start := a.freeStart(p); start >= 0 {
			return GPUGrant{Sharing: SharingMIG, Profile: p.Name, Start: start, Memory: p.Memory,
				Why: fmt.Sprintf("partition %s at slice %d: the smallest that holds it", p.Name, start)}, nil
		}
	}
	return GPUGrant{}, errors.New("mig: no free partition holds it")
}

// freeStart finds where a profile leaves the most starts to others, or -1.
func (a *GPUArbiter) freeStart(p GPUProfile) int {
	taken := a.takenSlices()
	best, start := -1, -1
	for _, s := range p.Starts {
		mask := sliceMask(s, p.Slices)
		if taken&mask != 0 {
			continue
		}
		room := 0
		for _, other := range a.gpu.Partitions {
			for _, at := range other.Starts {
				if (taken|mask)&sliceMask(at, other.Slices) == 0 {
					room += other.Slices
				}
			}
		}
		if room > best {
			best, start = room, s
		}
	}
	return start
}

func (a *GPUArbiter) promisedMemory() int64 {
	var all int64
	for _, g := range a.grants {
		all += g.Memory
	}
	return all
}

func sliceMask(start, n int) uint64 { return (1<<n - 1) << start }

func (a *GPUArbiter) takenSlices() uint64 {
	var taken uint64
	for _, g := range a.grants {
		i := slices.IndexFunc(a.gpu.Partitions, func(p GPUProfile) bool { return p.Name == g.Profile })
		if i >= 0 {
			taken |= sliceMask(g.Start, a.gpu.Partitions[i].Slices)
		}
	}
	return taken
}

// mps gives a percentage of the processors and a bound on memory. The shares
// of interactive work never add up to more than the device; batch runs behind
// it at low priority and is bounded by memory alone.
func (a *GPUArbiter) mps(r *GPURequest) (GPUGrant, error) {
	switch {
	case !a.gpu.MPS:
		return GPUGrant{}, errors.New("mps: the device or its driver has none")
	case a.in(SharingMPS) != nil:
		return GPUGrant{}, a.in(SharingMPS)
	case len(a.grants) >= a.gpu.MaxClients:
		return GPUGrant{}, fmt.Errorf("mps: it has %d clients, the most there can be", len(a.grants))
	}
	promised, used := 0, int64(0)
	for _, g := range a.grants {
		used += g.Memory + a.gpu.Overhead
		if !g.LowPrio {
			promised += g.Percent
		}
	}
	memory := a.memoryFor(r)
	if free := a.gpu.Memory - used - a.gpu.Overhead; memory > free {
		return GPUGrant{}, fmt.Errorf("mps: %d MiB are free, %d are needed", max(free, 0)>>20, memory>>20)
	}
	percent := int((max(r.Milli, 10) + 9) / 10)
	if r.Class == Batch {
		return GPUGrant{Sharing: SharingMPS, Percent: percent, Memory: memory, LowPrio: true,
			Why: "mps at low priority: runs when no other kernel waits"}, nil
	}
	if promised+percent > 100 {
		return GPUGrant{}, fmt.Errorf("mps: %d %% of its processors are promised, %d more are asked for", promised, percent)
	}
	return GPUGrant{Sharing: SharingMPS, Percent: percent, Memory: memory, Why: fmt.Sprintf("mps: %d %% of the processors", percent)}, nil
}

// memoryFor is the memory that goes with a share that names none.
func (a *GPUArbiter) memoryFor(r *GPURequest) int64 {
	if r.Memory > 0 {
		return r.Memory
	}
	return max(a.gpu.Memory/1000*r.Milli-a.gpu.Overhead, 0)
}

// turns shares by time: no promise on latency can be given, and none of those
// who share may be of another class.
func (a *GPUArbiter) turns(r *GPURequest) (GPUGrant, error) {
	if err := a.in(SharingTime); err != nil {
		return GPUGrant{}, err
	}
	if !a.gpu.TimeSlices {
		return GPUGrant{}, errors.New("time-slices: the device has none")
	}
	if r.Objective > 0 {
		return GPUGrant{}, fmt.Errorf("time-slices: they keep no objective of %v", r.Objective)
	}
	used := int64(0)
	for _, g := range a.grants {
		if g.Class != r.Class {
			return GPUGrant{}, fmt.Errorf("time-slices: %s is %s, and turns know no class", g.ID, g.Class)
		}
		used += g.Memory + a.gpu.Overhead
	}
	memory := a.memoryFor(r)
	if free := a.gpu.Memory - used - a.gpu.Overhead; memory > free {
		return GPUGrant{}, fmt.Errorf("time-slices: %d MiB are free, %d are needed", max(free, 0)>>20, memory>>20)
	}
	return GPUGrant{Sharing: SharingTime, Memory: memory, Why: "turns by time: nothing else fits, and no latency was promised"}, nil
}
