package place

import (
	"cmp"
	"fmt"
	"time"

	"oscine.dev/oscine/internal/pattern"
)

// Class is a latency class; a stricter one may displace a looser one.
type Class int

// The classes, from none to the strictest promise.
const (
	Batch Class = iota
	Interactive
	Realtime
)

// MarshalText writes the class as manifests do.
func (c Class) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads a class as manifests write it.
func (c *Class) UnmarshalText(text []byte) error {
	for _, known := range []Class{Batch, Interactive, Realtime} {
		if known.String() == string(text) {
			*c = known
			return nil
		}
	}
	return fmt.Errorf("%q is no class; there are batch, interactive and realtime", text)
}

// String returns the class as manifests write it.
func (c Class) String() string {
	switch c {
	case Batch:
		return "batch"
	case Interactive:
		return "interactive"
	case Realtime:
		return "realtime"
	}
	return fmt.Sprintf("Class(%d)", int(c))
}

// Bounds on a request, so that a hostile one costs little.
const (
	maxDeviceRequests = 16
	maxMilliCPU       = int64(1) << 53
	maxBytes          = int64(1) << 60
	maxFeatures       = 64
	maxNeighbours     = 256
)

// Request is what one piece of work asks of a machine. The zero Request asks
// for nothing and is always granted: best effort on the shared CPUs.
type Request struct {
	Name      string          `json:"name,omitempty"` // unique on the node
	Of        string          `json:"of,omitempty"`   // the name of the work of which it is a further instance: they share as few NUMA nodes and devices as can be
	Class     Class           `json:"class"`
	Priority  int             `json:"priority,omitempty"`   // within a class, the higher displaces the lower
	MilliCPU  int64           `json:"milliCPU,omitempty"`   // thousandths of a logical CPU; whole thousands where Exclusive
	Exclusive bool            `json:"exclusive,omitempty"`  // no other workload on these CPUs
	WholeCore bool            `json:"wholeCore,omitempty"`  // keep SMT siblings idle rather than give them to others; needs Exclusive
	CoreKind  string          `json:"coreKind,omitempty"`   // "performance" or "efficiency"; empty: any
	Features  []string        `json:"features,omitempty"`   // instruction sets that every CPU must have, as /proc/cpuinfo names them
	CPUs      *Selector       `json:"cpus,omitempty"`       // over the attributes of CPUs, see CPU.device; nil: any
	Memory    int64           `json:"memory,omitempty"`     // bytes
	MemKind   MemoryKind      `json:"memoryKind,omitempty"` // empty: DRAM
	HugePages []HugePages     `json:"hugePages,omitempty"`  // of one or more sizes
	Devices   []DeviceRequest `json:"devices,omitempty"`
	Links     []LinkRequest   `json:"links,omitempty"`   // between the devices asked for
	Near      []string        `json:"near,omitempty"`    // share a NUMA node with these placements, where they run here
	Apart     []string        `json:"apart,omitempty"`   // share no NUMA node with these placements
	Latency   time.Duration   `json:"latency,omitempty"` // objective of an interactive request, which then prefers performance cores; 0: none
	OneNode   bool            `json:"oneNode,omitempty"` // refuse rather than span NUMA nodes
}

// work is the name that all instances of the same work share.
func (r *Request) work() string { return cmp.Or(r.Of, r.Name) }

// HugePages asks for pages of one size.
type HugePages struct {
	Size  int64 `json:"size,omitempty"`  // bytes of one page
	Bytes int64 `json:"bytes,omitempty"` // bytes in all, a multiple of Size
}

// DeviceRequest asks for devices that match a selector.
type DeviceRequest struct {
	Name     string    `json:"name,omitempty"`     // unique within the request
	Selector *Selector `json:"selector,omitempty"` // nil: any device
	Count    int       `json:"count,omitempty"`    // 0 means 1
	Fraction Fraction  `json:"fraction,omitzero"`  // zero: whole devices
}

// Fraction asks for a part of a device. At most one of Profile and Milli is
// given; Memory may stand alone or beside Milli.
type Fraction struct {
	Profile string `json:"profile,omitempty"` // a hardware partition, such as 1g.10gb
	Milli   int64  `json:"milli,omitempty"`   // thousandths of the device's compute, shared by MPS or time slices
	Memory  int64  `json:"memory,omitempty"`  // bytes of the device's memory
}

// Whole reports whether whole devices are asked for.
func (f Fraction) Whole() bool { return f == Fraction{} }

// LinkKind says how devices must be joined.
type LinkKind string

// The link kinds, from the nearest.
const (
	LinkDirect LinkKind = "direct" // NVLink, xGMI or another device-to-device link
	LinkNVLink LinkKind = "nvlink"
	LinkXGMI   LinkKind = "xgmi"
	LinkSwitch LinkKind = "pcieSwitch" // under one PCIe bridge
	LinkRoot   LinkKind = "pcieRoot"   // under one PCIe root
	LinkNUMA   LinkKind = "numaNode"   // on one NUMA node
)

// LinkRequest demands that every device given for the named device requests is
// joined with every other one. An empty list means all device requests.
type LinkRequest struct {
	Between []string `json:"between,omitempty"`
	By      LinkKind `json:"by,omitempty"`
}

var featureRE = pattern.New(`^[a-z0-9_.-]{1,32}$`)

// check reports contradictions that no machine could satisfy.
func (r *Request) check() []Failure {
	var bad []Failure
	fail := func(constraint, format string, args ...any) {
		bad = append(bad, Failure{Constraint: constraint, Problem: fmt.Sprintf(format, args...), Remedy: "correct the request"})
	}
	if r.MilliCPU < 0 || r.MilliCPU > maxMilliCPU {
		fail("cpu", "%d thousandths of a CPU is not between 0 and %d", r.MilliCPU, maxMilliCPU)
	}
	if r.Exclusive && (r.MilliCPU <= 0 || r.MilliCPU%1000 != 0) {
		fail("cpu", "exclusive CPUs are whole, got %d thousandths", r.MilliCPU)
	}
	if r.Memory < 0 || r.Memory > maxBytes {
		fail("memory", "%d bytes is not between 0 and %d", r.Memory, maxBytes)
	}
	if len(r.Features) > maxFeatures {
		fail("instruction sets", "%d are asked for, at most %d", len(r.Features), maxFeatures)
	}
	for _, f := range r.Features {
		if !featureRE.MatchString(f) {
			fail("instruction sets", "%q is not the name of one", f)
		}
	}
	if len(r.Near)+len(r.Apart) > maxNeighbours {
		fail("near and apart", "more than %d names", maxNeighbours)
	}
	for _, h := range r.HugePages {
		if h.Size <= 0 || h.Bytes < 0 || h.Bytes > maxBytes || h.Bytes%h.Size != 0 {
			fail("huge pages", "%d bytes is not a number of %d-byte pages", h.Bytes, h.Size)
		}
	}
	r.checkDevices(fail)
	return bad
}

func (r *Request) checkDevices(fail func(constraint, format string, args ...any)) {
	if len(r.Devices) > maxDeviceRequests {
		fail("devices", "%d requests, at most %d", len(r.Devices), maxDeviceRequests)
	}
	names := map[string]bool{}
	for _, d := range r.Devices {
		at := fmt.Sprintf("device %q", d.Name)
		if names[d.Name] {
			fail(at, "is asked for twice")
		}
		names[d.Name] = true
		if d.Count < 0 || d.Count > maxDevices {
			fail(at, "a count of %d is not between 0 and %d", d.Count, maxDevices)
		}
		f := d.Fraction
		if f.Milli < 0 || f.Milli > 1000 || f.Memory < 0 || f.Memory > maxBytes || (f.Profile != "" && (f.Milli != 0 || f.Memory != 0)) {
			fail(at, "a fraction is a profile, or up to 1000 thousandths and an amount of memory")
		}
	}
	for _, l := range r.Links {
		switch l.By {
		case LinkDirect, LinkNVLink, LinkXGMI, LinkSwitch, LinkRoot, LinkNUMA:
		default:
			fail("links", "%q is not a kind of link; use direct, nvlink, xgmi, pcieSwitch, pcieRoot or numaNode", l.By)
		}
		for _, b := range l.Between {
			if !names[b] {
				fail("links", "%q is not one of the requested devices", b)
			}
		}
	}
}
