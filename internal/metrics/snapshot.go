package metrics

import "time"

// Snapshot is what is true of a node at the moment of a scrape.
type Snapshot struct {
	Version, Kernel, Mode string
	Booted                time.Time
	CertificateEnd        time.Time // of the node's own
	Missing               int       // guarantees that the host cannot give
	CPUs, ReservedCPUs    int
	Memory                []NodeMemory
	Data                  FileSystem
	Phases                []string // all that an object may be in
	Objects               []Object
	Models                []Model
	Clients               []Client // with tokens
	Classes               []Class
	BatchHeldBack         bool
	Devices               []Device
	Slots                 []Slot // none where the machine is not ours
	Upgrade               Upgrade
}

// Slot is what one slot of the disk holds.
type Slot struct {
	Name, Version, Health string
	Running               bool
}

// Upgrade is what there is to say of going to other releases.
type Upgrade struct {
	To, Stage string         // of the one under way; empty for none
	Ended     map[string]int // by outcome
	Locks     int

	FromPeers, FromSource int64   // bytes that came, since the daemon started
	Shared                *Shared // with peers; nil for nothing
}

// Shared is what there is to say of releases that other nodes may fetch: bytes sent since the
// daemon started, and bytes kept.
type Shared struct{ Sent, Bytes int64 }

// NodeMemory is the memory of one NUMA node in bytes.
type NodeMemory struct {
	Node        int
	Bytes, Used int64
}

// FileSystem is the data partition. The zero value is unknown.
type FileSystem struct{ Bytes, FreeBytes, Inodes, FreeInodes uint64 }

// Object is a workload, model or Secret.
type Object struct {
	Kind, Name string
	Phase      string
	Restarts   int       // since the daemon started
	Started    time.Time // zero: it does not run
	Container  *Container
}

// Container is what an object's processes use and were promised.
type Container struct {
	Usage
	Class            string
	MemoryLimit      int64 // bytes; 0: none
	LimitHits        uint64
	Killed           uint64
	ForksRefused     uint64
	Promises, Broken int
	Wakeups          *Distribution // nil: not measured
	WakeupsMissed    uint64
}

// Add adds what another process of the same object uses and was promised.
func (c *Container) Add(o *Container) {
	c.CPU, c.Throttled, c.Memory, c.Processes = c.CPU+o.CPU, c.Throttled+o.Throttled, c.Memory+o.Memory, c.Processes+o.Processes
	if c.MemoryLimit == 0 || o.MemoryLimit == 0 {
		c.MemoryLimit = 0 // one of them has none
	} else {
		c.MemoryLimit += o.MemoryLimit
	}
	c.LimitHits, c.Killed, c.ForksRefused = c.LimitHits+o.LimitHits, c.Killed+o.Killed, c.ForksRefused+o.ForksRefused
	c.Promises, c.Broken, c.WakeupsMissed = c.Promises+o.Promises, c.Broken+o.Broken, c.WakeupsMissed+o.WakeupsMissed
	for i := range min(len(c.Pressure), len(o.Pressure)) { // in the order of their resources
		c.Pressure[i].Some += o.Pressure[i].Some
		c.Pressure[i].All += o.Pressure[i].All
	}
	if c.Wakeups == nil || o.Wakeups == nil {
		return
	}
	c.Wakeups.Count, c.Wakeups.Sum = c.Wakeups.Count+o.Wakeups.Count, c.Wakeups.Sum+o.Wakeups.Sum
	for i := range min(len(c.Wakeups.Within), len(o.Wakeups.Within)) {
		c.Wakeups.Within[i] += o.Wakeups.Within[i]
	}
}

// Usage is what a container or a class of them uses.
type Usage struct {
	CPU, Throttled time.Duration
	Memory         int64 // bytes
	Processes      int64
	Pressure       []Pressure
}

// Pressure is how long some or all threads have waited for a resource: cpu,
// memory or io.
type Pressure struct {
	Resource  string
	Some, All time.Duration
}

// Distribution counts durations by the bounds that a source was asked for.
type Distribution struct {
	Count  uint64
	Sum    time.Duration
	Within []uint64 // how many were at most each bound
}

// Model is what a served model has answered since it was served.
type Model struct {
	Name                      string
	Ready                     bool
	Instances, ReadyInstances int   // workers that it is to have, and that have loaded it; an ensemble has none
	Requests, Errors, Expired int64 // Expired are among Errors, Errors among Requests
	Missed                    int64 // answered after the objective, or after their own timeout
	Loads, Evictions          int64 // of the model into memory, and out of it to make room for another
	Rows                      int64 // that were computed
	Queued                    time.Duration
	Pending                   int   // requests that wait now
	Runs                      int64 // of the engine, each for one request or several; since its workers' start
	Compute                   time.Duration
	PromptTokens, Generated   int64 // tokens of a language model, read and written; since its worker's start
	Durations                 Distribution
	Cache                     *Cache // nil: responses are not kept
	Stateful                  bool
	Sequences                 int // of a model with state
}

// Cache is the response cache of a model.
type Cache struct {
	Hits, Misses, Bytes int64
	HitTime, MissTime   time.Duration
}

// Client is a client of inference that the operator named.
type Client struct {
	Name              string
	Admitted, Refused int64 // requests
}

// Class is one latency class as a whole.
type Class struct {
	Name string
	Usage
}

// Device is an accelerator. What is unknown is negative.
type Device struct {
	ID, Kind, Vendor, Model, Driver string
	Healthy                         bool
	Held                            int // objects that have it or a part of it
	Memory, MemoryUsed              float64
	Busy                            float64 // fraction of time
	Celsius, Watts                  float64
}

// WakeupBounds are those of the histogram of wake-ups.
func WakeupBounds() []time.Duration {
	const us = time.Microsecond
	return []time.Duration{5 * us, 10 * us, 20 * us, 50 * us, 100 * us, 200 * us, 500 * us,
		1000 * us, 2000 * us, 5000 * us, 10_000 * us, 50_000 * us, 200_000 * us, time.Second}
}

// RequestBounds are those of the histogram of inferences.
func RequestBounds() []time.Duration {
	const ms = time.Millisecond
	return []time.Duration{ms / 10, ms / 4, ms / 2, ms, 2500 * time.Microsecond, 5 * ms, 10 * ms, 25 * ms, 50 * ms, 100 * ms,
		250 * ms, 500 * ms, time.Second, 2500 * ms, 5 * time.Second, 10 * time.Second, 60 * time.Second}
}
