package hardware

import (
	"encoding/json"
	"fmt"

	"oscine.dev/oscine/internal/printable"
)

// Schema names the JSON document of a Machine. Fields are only ever added
// within v1; a reader must skip what it does not know.
const Schema = "oscine.dev/hardware/v1"

// Bytes is an amount of memory in bytes.
type Bytes uint64

// String is an amount with its unit: "512 GiB", "1.5 MiB".
func (b Bytes) String() string { return printable.Bytes(b) }

// Machine is the map of one machine. Numbers of CPUs, packages, cores and
// NUMA nodes are the kernel's own. Lists are sorted: CPUs, cores and nodes by
// number, caches from the largest level down, PCI devices by address.
type Machine struct {
	Schema string `json:"schema"` // oscine.dev/hardware/v1
	System System `json:"system"`

	// Present holds all CPUs that the kernel knows, offline ones included.
	Present Set `json:"present"`
	// Online holds the CPUs that run now and whose place is known.
	Online Set `json:"online"`
	// Allowed holds the CPUs that work may use: online ones within the
	// cgroup or cpuset of the reading process.
	Allowed Set `json:"allowed"`
	// Isolated holds the CPUs that the kernel's scheduler leaves alone
	// (isolcpus= or isolated cpuset partitions), Tickless those without a
	// timer tick while one task runs (nohz_full=).
	Isolated Set `json:"isolated,omitzero"`
	Tickless Set `json:"tickless,omitzero"`
	// AllowedNodes holds the NUMA nodes that work may allocate from.
	AllowedNodes Set `json:"allowedNodes"`

	CPUs     []CPU     `json:"cpus"`
	Packages []Package `json:"packages"`
	// Dies and Clusters are listed only where they divide a package.
	Dies     []Group `json:"dies,omitempty"`
	Clusters []Group `json:"clusters,omitempty"`
	Cores    []Core  `json:"cores"`
	// Kinds are the kinds of cores from the least to the most powerful;
	// empty where the kernel tells nothing of them.
	Kinds  []Kind  `json:"kinds,omitempty"`
	Caches []Cache `json:"caches"`
	Nodes  []Node  `json:"nodes"`

	PCI          []PCIDevice   `json:"pci,omitempty"`
	Accelerators []Accelerator `json:"accelerators,omitempty"`
	Interfaces   []Interface   `json:"interfaces,omitempty"`
	Disks        []Disk        `json:"disks,omitempty"`
	Links        []Link        `json:"links,omitempty"`
	// Pairs lists what the driver knows about the path between GPUs,
	// where a virtual machine hides the real tree.
	Pairs     []Pair       `json:"pairs,omitempty"`
	Thermal   []Zone       `json:"thermal,omitempty"`
	Power     []PowerLimit `json:"power,omitempty"`
	Frequency *Frequency   `json:"frequency,omitempty"`

	// Gaps names what could not be read, so that a partial map is never
	// taken for a whole one.
	Gaps []Gap `json:"gaps,omitempty"`

	// Facts tells for each accelerator where its values were read.
	Facts map[string][]Fact `json:"facts,omitempty"`
}

// System names the machine as a whole.
type System struct {
	Vendor       string   `json:"vendor,omitempty"`
	Product      string   `json:"product,omitempty"`
	Architecture string   `json:"architecture,omitempty"` // as uname -m
	Kernel       string   `json:"kernel,omitempty"`       // as uname -r
	Model        string   `json:"model,omitempty"`        // of the device tree
	Compatible   []string `json:"compatible,omitempty"`   // of the device tree
	CPUVendor    string   `json:"cpuVendor,omitempty"`
	CPUModel     string   `json:"cpuModel,omitempty"`
	// Instructions are the instruction sets that matter to AI work, by the
	// kernel's own names of them ("avx512_vnni", "amx_int8", "asimddp").
	Instructions []string `json:"instructions,omitempty"`
	Memory       Bytes    `json:"memory"`
	// HugePages are the sizes on offer and how many of each there are.
	HugePages []HugePages `json:"hugePages,omitempty"`
	Cmdline   []string    `json:"cmdline,omitempty"` // only what shapes the map
}

// CPU is one hardware thread.
type CPU struct {
	ID      int  `json:"id"`
	Package int  `json:"package"` // physical_package_id
	Die     int  `json:"die"`     // die_id within the package; -1 where unknown
	Cluster int  `json:"cluster"` // cluster_id; -1 where unknown
	Core    int  `json:"core"`    // index into Machine.Cores
	Node    int  `json:"node"`    // NUMA node; -1 where there are none
	Kind    int  `json:"kind"`    // index into Machine.Kinds; -1 where unknown
	Allowed bool `json:"allowed"`
}

// Package is one processor chip in a socket.
type Package struct {
	ID   int `json:"id"`
	CPUs Set `json:"cpus"`
	// Nodes holds the NUMA nodes whose CPUs lie within the package.
	Nodes Set `json:"nodes"`
}

// Group is a die or cluster: CPUs of a package that share something.
type Group struct {
	ID      int `json:"id"`
	Package int `json:"package"`
	CPUs    Set `json:"cpus"`
}

// Core is one core with its SMT threads.
type Core struct {
	ID      int `json:"id"` // core_id, unique within its package only
	Package int `json:"package"`
	CPUs    Set `json:"cpus"`
	Kind    int `json:"kind"` // index into Machine.Kinds; -1 where unknown
}

// Kind is a set of cores that are alike.
type Kind struct {
	CPUs Set `json:"cpus"`
	// Name is "performance", "efficiency" or "low-power" where the kernel
	// or the ranking says so, else empty.
	Name string `json:"name,omitempty"`
	// Capacity is the kernel's relative speed, 1024 for the fastest.
	Capacity int `json:"capacity,omitempty"`
	MaxMHz   int `json:"maxMHz,omitempty"`
	BaseMHz  int `json:"baseMHz,omitempty"`
	// CoreType is the vendor's word: IntelCore, IntelAtom, IntelLowPower, or
	// the name of an Arm core, Cortex-X925.
	CoreType string `json:"coreType,omitempty"`
	// MIDR is the Arm main identification register of these cores.
	MIDR uint64 `json:"midr,omitempty"`

	ranked bool // Capacity ranks this kind
}

// CacheKind tells what a cache holds.
type CacheKind string

// The kinds of caches. A memory cache sits in front of a NUMA node.
const (
	Unified     CacheKind = "unified"
	Data        CacheKind = "data"
	Instruction CacheKind = "instruction"
	MemorySide  CacheKind = "memory"
)

// Cache is one cache and the CPUs that share it.
type Cache struct {
	Level    int       `json:"level"`
	Kind     CacheKind `json:"kind"`
	Size     Bytes     `json:"size"`
	LineSize int       `json:"lineSize,omitempty"` // bytes
	Ways     int       `json:"ways,omitempty"`     // 0 where unknown
	CPUs     Set       `json:"cpus"`
	Node     *int      `json:"node,omitempty"` // of a memory-side cache
}

// Node is one NUMA node.
type Node struct {
	ID int `json:"id"`
	// CPUs are the CPUs nearest to the memory: the node's own, or, where
	// it has none, those the firmware (HMAT) or the distances name.
	CPUs Set `json:"cpus"`
	// Own are the CPUs in the node itself, empty for a memory-only node.
	Own   Set   `json:"own"`
	Bytes Bytes `json:"bytes"`
	// Memory is what the node is made of, empty where nobody says: DRAM,
	// HBM, MCDRAM, NVM, SPM (special-purpose memory), CXL-DRAM, CXL-NVM, GPUMemory.
	Memory string `json:"memory,omitempty"`
	// Distance is the SLIT distance to each node of Machine.Nodes in order;
	// 10 is local. Empty where unknown.
	Distance []int `json:"distance,omitempty"`
	// ReadBandwidth and WriteBandwidth in MB/s and the latencies in ns, as
	// the firmware's HMAT has them for the nearest CPUs; 0 where unknown.
	ReadBandwidth  int         `json:"readBandwidth,omitempty"`
	WriteBandwidth int         `json:"writeBandwidth,omitempty"`
	ReadLatency    int         `json:"readLatency,omitempty"`
	WriteLatency   int         `json:"writeLatency,omitempty"`
	HugePages      []HugePages `json:"hugePages,omitempty"`
	Device         string      `json:"device,omitempty"` // DAX device or GPU behind it
	CXL            []string    `json:"cxl,omitempty"`    // PCI addresses of its CXL devices
	Allowed        bool        `json:"allowed"`
}

// HugePages counts the pages of one size.
type HugePages struct {
	Size  Bytes `json:"size"`
	Total int   `json:"total"`
	Free  int   `json:"free"`
	// Reserved are those of the free ones that are promised to a mapping that
	// has not touched them yet; known of the machine, not of its nodes.
	Reserved int `json:"reserved,omitempty"`
}

// Gap is something that could not be read or believed.
type Gap struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

// Fact is one value of a device and where it was read.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	Path  string `json:"path"`
}

// Clone is a copy that shares nothing with m, for programs that change a map,
// as AskDrivers does, while others read it.
func (m *Machine) Clone() (*Machine, error) {
	data, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("copy hardware map: %w", err)
	}
	c := Machine{Facts: map[string][]Fact{}}
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, fmt.Errorf("copy hardware map: %w", err)
	}
	return &c, nil
}

// Memory is the memory of all nodes but those inside a GPU.
func (m *Machine) Memory() Bytes {
	var total Bytes
	for _, n := range m.Nodes {
		if n.Memory != "GPUMemory" {
			total += n.Bytes
		}
	}
	if total == 0 {
		return m.System.Memory
	}
	return total
}
