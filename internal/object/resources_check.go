package object

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"oscine.dev/oscine/internal/pattern"
	"oscine.dev/oscine/internal/place"
)

// Bounds on what one workload may ask for.
const (
	maxClaims     = 16
	maxDevices    = 4096
	maxNeighbours = 256
	maxGang       = 4096
	maxPriority   = 1_000_000
	maxPIDs       = 1 << 22 // PID_MAX_LIMIT of the kernel
)

var (
	instructionRE = pattern.New(`^[a-z0-9][a-z0-9_.]{0,31}$`)
	profileRE     = pattern.New(`^[a-zA-Z0-9.+_-]{1,32}$`)
)

// Check reports the mistakes of resources at a path, such as spec.resources.
func (r *Resources) Check(c *Checker, at string, class Class) {
	r.checkCPU(c, at, class)
	r.checkMemory(c, at)
	c.Number(at+".pids", int64(r.PIDs), 1, maxPIDs)
	c.Duration(at+".latency", r.Latency, time.Microsecond, time.Hour)
	claims := r.checkDevices(c, at)
	for i, l := range r.Links {
		l.check(c, fmt.Sprintf("%s.links[%d]", at, i), claims)
	}
	r.checkNeighbours(c, at)
	r.Deadline.check(c, at+".deadline", class)
	if r.Priority < -maxPriority || r.Priority > maxPriority {
		c.Bad(at+".priority", "must be from -%d to %d, got %d", maxPriority, maxPriority, r.Priority)
	}
}

func (r *Resources) checkCPU(c *Checker, at string, class Class) {
	c.OneOf(at+".cpuPolicy", string(r.CPUPolicy), string(CPUShared), string(CPUExclusive))
	milli, ok := r.CPU.MilliValue()
	switch {
	case !ok:
		c.Bad(at+".cpu", "%s is out of range", r.CPU)
	case !r.CPU.IsZero() && milli <= 0:
		c.Bad(at+".cpu", "must be more than 0, got %s", r.CPU)
	case milli > 1_000_000_000:
		c.Bad(at+".cpu", "%s is more cores than any machine has", r.CPU)
	case (r.CPUPolicy == CPUExclusive || class == Realtime) && (milli == 0 || milli%1000 != 0):
		c.Bad(at+".cpu", "exclusive cores are whole: write 1, 2, …, got %q", r.CPU)
	}
	limit, ok := r.CPULimit.MilliValue()
	switch exclusive := r.CPUPolicy == CPUExclusive || class == Realtime; {
	case !ok || limit > 1_000_000_000:
		c.Bad(at+".cpuLimit", "%s is out of range", r.CPULimit)
	case r.CPULimit.IsZero():
	case exclusive:
		c.Bad(at+".cpuLimit", "exclusive cores are a limit already; leave it out")
	case limit < max(milli, 1):
		c.Bad(at+".cpuLimit", "must be at least cpu, %s, got %s", cmp.Or(r.CPU.String(), "1m"), r.CPULimit)
	}
	if r.CPUPolicy == CPUShared && class == Realtime {
		c.Bad(at+".cpuPolicy", "realtime work runs on exclusive cores; leave cpuPolicy out or change the class")
	}
	c.OneOf(at+".coreKind", r.CoreKind, "performance", "efficiency", "low-power")
	if r.CPUSelector != "" {
		if _, err := place.CompileSelector(r.CPUSelector); err != nil {
			c.Bad(at+".cpuSelector", "%v", err)
		}
	}
	if len(r.InstructionSets) > 64 {
		c.Bad(at+".instructionSets", "must be at most 64, got %d", len(r.InstructionSets))
	}
	for i, f := range r.InstructionSets {
		if !instructionRE.MatchString(f) {
			c.Bad(fmt.Sprintf("%s.instructionSets[%d]", at, i), "must be a name as in /proc/cpuinfo, such as avx512f, got %q", f)
		}
	}
}

func (r *Resources) checkMemory(c *Checker, at string) {
	if bytes, ok := r.Memory.Value(); !ok {
		c.Bad(at+".memory", "%s is out of range", r.Memory)
	} else if !r.Memory.IsZero() && bytes < 1<<20 {
		c.Bad(at+".memory", "must be at least 1Mi, got %s", r.Memory)
	}
	checkBytes(c, at+".ephemeralStorage", r.EphemeralStorage)
	c.OneOf(at+".memoryKind", r.MemoryKind, string(place.DRAM), string(place.HBM), string(place.CXL), string(place.PMEM))
	checkHugePages(c, at+".hugePages", r.HugePages)
}

func checkHugePages(c *Checker, at string, pages map[Quantity]Quantity) {
	for _, size := range slices.SortedFunc(maps.Keys(pages), func(a, b Quantity) int { return strings.Compare(a.text, b.text) }) {
		path := at + "." + size.String()
		page, ok := size.Value()
		if !ok || page < 4096 || page&(page-1) != 0 {
			c.Bad(path, "the page size must be a power of two of at least 4Ki, such as 2Mi or 1Gi")
			continue
		}
		if bytes, ok := pages[size].Value(); !ok || bytes <= 0 || bytes%page != 0 {
			c.Bad(path, "must be a positive multiple of the page size, got %s", pages[size])
		}
	}
}

// checkBytes checks a limit on disk, at least what a file system needs.
func checkBytes(c *Checker, at string, q Quantity) {
	if bytes, ok := q.Value(); !ok {
		c.Bad(at, "%s is out of range", q)
	} else if !q.IsZero() && bytes < 1<<20 {
		c.Bad(at, "must be at least 1Mi, got %s", q)
	}
}

// checkDevices returns the names of the claims.
func (r *Resources) checkDevices(c *Checker, at string) map[string]bool {
	if len(r.Devices) > maxClaims {
		c.Bad(at+".devices", "must be at most %d, got %d", maxClaims, len(r.Devices))
	}
	names := map[string]bool{}
	for i := range r.Devices {
		d := &r.Devices[i]
		path := fmt.Sprintf("%s.devices[%d]", at, i)
		if err := CheckName(d.Name); err != nil {
			c.Bad(path+".name", "%v", err)
		} else if names[d.Name] {
			c.Bad(path+".name", "%q is used twice", d.Name)
		}
		names[d.Name] = true
		c.Number(path+".count", int64(d.Count), 1, maxDevices)
		if d.Selector != "" {
			if _, err := place.CompileSelector(d.Selector); err != nil {
				c.Bad(path+".selector", "%v", err)
			}
		}
		d.Fraction.check(c, path+".fraction")
	}
	return names
}

func (f *DeviceFraction) check(c *Checker, at string) {
	if f == nil {
		return
	}
	share, okShare := f.Share.MilliValue()
	memory, okMemory := f.Memory.Value()
	switch {
	case !okShare || share < 0 || share > 1000 || (!f.Share.IsZero() && share == 0):
		c.Bad(at+".share", "must be more than 0 and at most 1, got %s", f.Share)
	case !okMemory || memory < 0 || (!f.Memory.IsZero() && memory < 1<<20):
		c.Bad(at+".memory", "must be at least 1Mi, got %s", f.Memory)
	case f.Profile != "" && (share > 0 || memory > 0):
		c.Bad(at, "needs either a profile or a share and memory, not both")
	case f.Profile == "" && share == 0 && memory == 0:
		c.Bad(at, "needs profile, share or memory; leave fraction out for whole devices")
	case f.Profile != "" && !profileRE.MatchString(f.Profile):
		c.Bad(at+".profile", "%q is not a partition profile, such as 1g.10gb", f.Profile)
	}
}

func (l *DeviceLink) check(c *Checker, at string, claims map[string]bool) {
	if l.By == "" {
		c.Bad(at+".by", "is required: direct, nvlink, xgmi, pcieSwitch, pcieRoot or numaNode")
	}
	c.OneOf(at+".by", l.By, string(place.LinkDirect), string(place.LinkNVLink), string(place.LinkXGMI),
		string(place.LinkSwitch), string(place.LinkRoot), string(place.LinkNUMA))
	for i, name := range l.Between {
		if !claims[name] {
			c.Bad(fmt.Sprintf("%s.between[%d]", at, i), "%q is not the name of a device asked for", name)
		}
	}
	if len(claims) == 0 {
		c.Bad(at, "joins devices, but none are asked for")
	}
}

func (r *Resources) checkNeighbours(c *Checker, at string) {
	near := map[string]bool{}
	for i, name := range r.Near {
		near[name] = true
		c.reference(fmt.Sprintf("%s.near[%d]", at, i), name)
	}
	for i, name := range r.Apart {
		path := fmt.Sprintf("%s.apart[%d]", at, i)
		c.reference(path, name)
		if near[name] {
			c.Bad(path, "%q cannot be both near and apart", name)
		}
	}
	if len(r.Near)+len(r.Apart) > maxNeighbours {
		c.Bad(at+".near", "near and apart together name more than %d", maxNeighbours)
	}
	if g := r.Gang; g != nil {
		if err := CheckName(g.Name); err != nil {
			c.Bad(at+".gang.name", "%v", err)
		}
		if g.Size < 1 || g.Size > maxGang {
			c.Bad(at+".gang.size", "must be from 1 to %d, got %d", maxGang, g.Size)
		}
	}
}

// reference checks a name in near or apart: "name", of a workload, or
// "Kind/name", of a kind that is placed.
func (c *Checker) reference(at, text string) {
	key := reference(text)
	if row, ok := c.kinds.Find(key.Kind); ok && validName(key.Name) {
		if _, placed := row.New().(Placeable); placed {
			return
		}
	}
	c.Bad(at, "must be NAME of a workload or KIND/NAME, such as Model/digits, got %s", quote(text))
}
