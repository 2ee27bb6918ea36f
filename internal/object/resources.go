package object

// CPUPolicy says whether other workloads may run on the same cores.
type CPUPolicy string

// The CPU policies.
const (
	CPUShared    CPUPolicy = "shared"
	CPUExclusive CPUPolicy = "exclusive"
)

// Resources is the part of the machine that a workload or model asks for.
type Resources struct {
	CPU             Quantity  `json:"cpu,omitzero"`              // cores, its share against others; "500m" is half of one; absent: best effort, of a Model its default
	CPULimit        Quantity  `json:"cpuLimit,omitzero"`         // cores' worth of time, a hard quota on shared cores; absent: what others leave
	CPUPolicy       CPUPolicy `json:"cpuPolicy,omitempty"`       // default shared, exclusive for realtime
	CoreKind        string    `json:"coreKind,omitempty"`        // performance or efficiency; default any
	CPUSelector     string    `json:"cpuSelector,omitempty"`     // CEL over device.attributes["dra.cpu"]: cpuID, coreID, cacheL3ID, numaNodeID, socketID, coreType
	InstructionSets []string  `json:"instructionSets,omitempty"` // that every core must have, as /proc/cpuinfo names them

	Memory     Quantity              `json:"memory,omitzero"`      // bytes, a hard limit; absent: unlimited
	MemoryKind string                `json:"memoryKind,omitempty"` // dram (default), hbm, cxl or pmem
	HugePages  map[Quantity]Quantity `json:"hugePages,omitempty"`  // page size → bytes, such as 2Mi: 1Gi
	PIDs       int                   `json:"pids,omitempty"`       // processes and threads; default 1024

	EphemeralStorage Quantity `json:"ephemeralStorage,omitzero"` // bytes of the writable layer, a hard limit; absent: what the disk has

	Devices []DeviceClaim `json:"devices,omitempty"`
	Links   []DeviceLink  `json:"links,omitempty"` // between those devices

	Near     []string `json:"near,omitempty"`     // share a NUMA node with these, where they run here
	Apart    []string `json:"apart,omitempty"`    // share no NUMA node with these
	OneNode  bool     `json:"oneNode,omitempty"`  // refuse rather than span NUMA nodes
	Gang     *Gang    `json:"gang,omitempty"`     // placed together with others or not at all
	Priority int      `json:"priority,omitempty"` // within a class, the higher displaces the lower
	Latency  Duration `json:"latency,omitzero"`   // objective for the slowest answers; spans no NUMA nodes where it can be helped

	Deadline *Reservation `json:"deadline,omitempty"` // SCHED_DEADLINE for the first process of a realtime workload; absent: SCHED_FIFO
}

// DeviceClaim asks for devices that match a CEL selector, in the language of
// Kubernetes DRA.
type DeviceClaim struct {
	Name     string          `json:"name"`               // unique within the workload
	Selector string          `json:"selector,omitempty"` // over device.driver, device.attributes, device.capacity; default: any
	Count    int             `json:"count,omitempty"`    // default 1
	Fraction *DeviceFraction `json:"fraction,omitempty"` // default: whole devices
}

// DeviceFraction is a part of a device: a hardware partition, or a share of
// compute and memory beside others.
type DeviceFraction struct {
	Profile string   `json:"profile,omitempty"` // such as 1g.10gb
	Share   Quantity `json:"share,omitzero"`    // of the compute, such as 500m or 0.25
	Memory  Quantity `json:"memory,omitzero"`   // bytes of the device's own memory
}

// DeviceLink demands that the devices of the named claims are all joined.
type DeviceLink struct {
	Between []string `json:"between,omitempty"` // names of claims; default all
	By      string   `json:"by"`                // direct, nvlink, xgmi, pcieSwitch, pcieRoot or numaNode
}

// Gang names a group that is placed all together or not at all.
type Gang struct {
	Name string `json:"name"` // the same in each member
	Size int    `json:"size"` // members that must fit before any starts
}
