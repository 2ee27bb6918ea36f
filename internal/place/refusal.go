package place

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/printable"
)

// cpuShortage words the lack of CPUs: none suit, or others hold them.
func (o *offer) cpuShortage(have int64) Failure {
	what := "shared CPU time"
	if o.req.Exclusive {
		what = "exclusive CPUs"
	}
	if o.req.WholeCore {
		what += " on cores of their own"
	}
	if o.req.CoreKind != "" {
		what += " of kind " + o.req.CoreKind
	}
	if len(o.req.Features) > 0 {
		what += " with " + strings.Join(o.req.Features, ", ")
	}
	if o.req.CPUs.String() != "" {
		what += " that match " + o.req.CPUs.String()
	}
	f := Failure{Constraint: "cpu", Problem: fmt.Sprintf("%s %s asked for, %s free", formatMilli(o.req.MilliCPU), what, formatMilli(have))}
	if o.req.MilliCPU == 0 {
		f.Problem = "no CPU is left for " + what
	}
	suitable, split := 0, 0
	for i := range o.s.cells {
		if o.s.suits(&o.s.cells[i], o.req) {
			suitable += len(o.s.cells[i].cpus)
			split += countFunc(o.s.cells[i].cpus, func(c *CPU) bool { return c.Split })
		}
	}
	holders := o.s.cpuHolders()
	switch {
	case o.selectorErr() != nil:
		f.Problem, f.Remedy = fmt.Sprintf("the selector %s fails: %v", o.req.CPUs, o.selectorErr()), "correct the expression"
	case suitable == 0:
		f.Remedy = o.s.cpuKindsHere()
	case o.req.WholeCore && int64(suitable-split)*1000 < o.req.MilliCPU && split > 0:
		f.Remedy = fmt.Sprintf("work of others runs on the sibling threads of %d of the %d CPUs, outside this node's cpuset: give the node whole cores, or ask without a core of one's own", split, suitable)
	case int64(suitable)*1000 < o.req.MilliCPU:
		f.Remedy = fmt.Sprintf("the whole machine has %d; ask for less or use a larger machine", suitable)
	case len(holders) > 0:
		f.Remedy = fmt.Sprintf("release some of %s%s", strings.Join(holders, ", "), orAtMost(have))
		if !o.req.Exclusive && have < 100 {
			f.Remedy += ", or have each ask for a smaller share, such as cpu: 100m (--cpu 100m)"
		}
	case have == 0:
		f.Remedy = "use a machine with more CPUs: one stays with the system"
	default:
		f.Remedy = fmt.Sprintf("ask for at most %s: one CPU stays with the system", formatMilli(have))
	}
	return f
}

func orAtMost(milli int64) string {
	if milli == 0 {
		return ""
	}
	return ", or ask for at most " + formatMilli(milli)
}

// cpuHolders names the placements on CPUs that would suit, at most five.
func (s *State) cpuHolders() []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(s.placed)) {
		if p := s.placed[name]; p.Request.MilliCPU > 0 {
			names = append(names, fmt.Sprintf("%q (%s)", name, formatMilli(p.Request.MilliCPU)))
		}
	}
	if len(names) > 5 {
		names = append(names[:5], fmt.Sprintf("%d more", len(names)-5))
	}
	return names
}

// cpuKindsHere lists what CPUs the machine has where none suits.
func (s *State) cpuKindsHere() string {
	kinds := map[string]int{}
	for i := range s.cells {
		kind := s.cells[i].kind
		if kind == "" {
			kind = "one kind"
		}
		kinds[kind] += len(s.cells[i].cpus)
	}
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(kinds)) {
		parts = append(parts, fmt.Sprintf("%d of %s", kinds[k], k))
	}
	return "no CPU here suits; this machine has " + strings.Join(parts, " and ")
}

func (o *offer) memoryShortage(have int64) Failure {
	kind := o.req.MemKind
	if kind == "" {
		kind = DRAM
	}
	var total int64
	kinds := map[MemoryKind]bool{}
	for _, n := range o.s.nodes {
		if n.Memory > 0 {
			kinds[n.Kind] = true
		}
		if n.Kind == kind {
			total += n.Memory
		}
	}
	f := Failure{Constraint: "memory", Problem: fmt.Sprintf("%s of %s are asked for, %s are free of %s", printable.Bytes(o.req.Memory), kind, printable.Bytes(have), printable.Bytes(total))}
	switch {
	case total == 0:
		f.Remedy = fmt.Sprintf("this machine has %s only", joinKinds(kinds))
	case total < o.req.Memory:
		f.Remedy = fmt.Sprintf("ask for at most %s or use a larger machine", printable.Bytes(total))
	default:
		f.Remedy = fmt.Sprintf("release %s held by others, or ask for at most %s", printable.Bytes(o.req.Memory-have), printable.Bytes(have))
	}
	return f
}

func joinKinds(kinds map[MemoryKind]bool) string {
	var names []string
	for k := range kinds {
		names = append(names, string(k))
	}
	slices.Sort(names)
	if len(names) == 0 {
		return "no memory to give"
	}
	return strings.Join(names, " and ")
}

// localityFailures words a refusal where the machine has enough of all, but
// not within the NUMA nodes allowed.
func (o *offer) localityFailures() []Failure {
	need := &o.need0
	var failures []Failure
	if need.one {
		failures = append(failures, Failure{
			Constraint: "one NUMA node",
			Problem:    "no single NUMA node has all that is asked for; " + o.largestNode(),
			Remedy:     "ask for less, or allow several NUMA nodes",
		})
	}
	if slices.Contains(need.barred, true) {
		failures = append(failures, Failure{
			Constraint: "apart",
			Problem:    fmt.Sprintf("the NUMA nodes without %s lack what is asked for", strings.Join(o.req.Apart, ", ")),
			Remedy:     "drop the constraint or release something",
		})
	}
	if len(need.near) > 0 {
		failures = append(failures, Failure{
			Constraint: "near",
			Problem:    fmt.Sprintf("the NUMA nodes of %s lack what is asked for", strings.Join(o.req.Near, ", ")),
			Remedy:     "drop the constraint or release something there",
		})
	}
	if len(failures) == 0 {
		failures = append(failures, Failure{Constraint: "locality", Problem: "no set of NUMA nodes supplies all that is asked for together", Remedy: "ask for less"})
	}
	return failures
}

func (o *offer) largestNode() string {
	best := -1
	for n := range o.need0.supply {
		if best < 0 || o.need0.supply[n][0] > o.need0.supply[best][0] {
			best = n
		}
	}
	if best < 0 {
		return "the machine has none"
	}
	row := o.need0.supply[best]
	return fmt.Sprintf("the largest, node %d, has %s CPUs and %s", o.s.nodes[best].ID, formatMilli(row[0]), printable.Bytes(row[1]))
}

func formatMilli(milli int64) string {
	if milli%1000 == 0 {
		return fmt.Sprint(milli / 1000)
	}
	return fmt.Sprintf("%dm", milli)
}

func (s *State) deviceShortage(dr *DeviceRequest, all matched, free int, refusal string) Failure {
	f := Failure{Constraint: fmt.Sprintf("device %q", dr.Name)}
	what := "any device"
	if dr.Selector.String() != "" {
		what = dr.Selector.String()
	}
	switch {
	case len(all.devices) == 0 && all.err != nil:
		f.Problem = fmt.Sprintf("the selector %s fails: %v", what, all.err)
		f.Remedy = "correct the expression"
	case len(all.devices) == 0 && all.missing != "":
		f.Problem = fmt.Sprintf("the selector %s matches none of %d devices: %s", what, len(s.machine.Devices), all.missing)
		f.Remedy = "see the devices' attributes with oscine hardware, or test with has()"
	case len(all.devices) == 0:
		f.Problem = fmt.Sprintf("the selector %s matches none of %d devices", what, len(s.machine.Devices))
		f.Remedy = s.devicesHere()
	case len(all.devices) < dr.count():
		f.Problem = fmt.Sprintf("%d asked for, %d of this machine's devices match %s", dr.count(), len(all.devices), what)
		f.Remedy = fmt.Sprintf("ask for at most %d, loosen the selector or use another machine", len(all.devices))
	case !dr.Fraction.Whole():
		f.Problem = fmt.Sprintf("%d asked for, %d of %d matching devices have %s free", dr.count(), free, len(all.devices), dr.Fraction)
		if refusal != "" {
			f.Problem += " (" + refusal + ")"
		}
		f.Remedy = s.fractionRemedy(dr, all.devices)
	default:
		f.Problem = fmt.Sprintf("%d asked for, %d of %d matching devices are free", dr.count(), free, len(all.devices))
		f.Remedy = "release " + strings.Join(s.deviceHolders(all.devices), ", ")
	}
	return f
}

// String words a fraction, such as "500 thousandths and 8Gi".
func (f Fraction) String() string {
	var parts []string
	if f.Profile != "" {
		parts = append(parts, "a partition "+f.Profile)
	}
	if f.Milli > 0 {
		parts = append(parts, fmt.Sprintf("%d thousandths", f.Milli))
	}
	if f.Memory > 0 {
		parts = append(parts, printable.Bytes(f.Memory))
	}
	if len(parts) == 0 {
		return "the whole"
	}
	return strings.Join(parts, " and ")
}

func (s *State) fractionRemedy(dr *DeviceRequest, devices []int) string {
	for _, d := range devices {
		dev := &s.machine.Devices[d]
		if dr.Fraction.Profile != "" && slices.ContainsFunc(dev.Profiles, func(p Profile) bool { return p.Name == dr.Fraction.Profile }) ||
			dr.Fraction.Profile == "" && dev.Shares > 1 {
			return "release " + strings.Join(s.deviceHolders(devices), ", ") + " or ask for less"
		}
	}
	if dr.Fraction.Profile != "" {
		return "no matching device can be cut into such a partition here; ask for whole devices or a share"
	}
	return "no matching device can be shared here; ask for whole devices"
}

func (s *State) devicesHere() string {
	if len(s.machine.Devices) == 0 {
		return "this machine has no devices to give"
	}
	drivers := map[string]int{}
	for i := range s.machine.Devices {
		drivers[s.machine.Devices[i].Driver]++
	}
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(drivers)) {
		parts = append(parts, fmt.Sprintf("%d of %s", drivers[k], k))
	}
	return "this machine has " + strings.Join(parts, ", ") + " (see oscine hardware)"
}

func (s *State) deviceHolders(devices []int) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(s.placed)) {
		for _, g := range s.placed[name].Devices {
			if slices.Contains(devices, s.deviceIndex(g.ID)) {
				names = append(names, fmt.Sprintf("%q", name))
				break
			}
		}
	}
	if len(names) > 5 {
		names = append(names[:5], fmt.Sprintf("%d more", len(names)-5))
	}
	if len(names) == 0 {
		return []string{"nothing: the request names more than there is"}
	}
	return names
}

// linkFailures words a refusal where enough devices are free but not joined.
func (s *State) linkFailures(req *Request, match [][]int) []Failure {
	var failures []Failure
	for _, l := range req.Links {
		var all []int
		asked := 0
		for r := range req.Devices {
			if l.covers(req, r) {
				asked += req.Devices[r].count()
				all = append(all, match[r]...)
				failures = append(failures, s.unknownPlaces(&req.Devices[r], l.By, match[r])...)
			}
		}
		slices.Sort(all)
		all = slices.Compact(all)
		n := s.fabric.largestJoined(s.machine, l.By, all)
		if n < asked {
			failures = append(failures, Failure{
				Constraint: fmt.Sprintf("link %s", l.By),
				Problem:    fmt.Sprintf("%d devices joined by %s are asked for, at most %d free ones are", asked, l.By, n),
				Remedy:     fmt.Sprintf("ask for at most %d, or for a looser link", max(n, 1)),
			})
		}
	}
	if len(failures) == 0 {
		failures = append(failures, Failure{Constraint: "devices", Problem: "the device requests exclude each other: no set of free devices answers all of them with the links asked for", Remedy: "ask for fewer devices or looser links"})
	}
	return failures
}

// unknownPlaces words that devices for a request cannot be joined because
// their place is unknown: two unknown places are not the same.
func (s *State) unknownPlaces(dr *DeviceRequest, by LinkKind, match []int) []Failure {
	what, unknown := "", func(*Device) bool { return false }
	switch by {
	case LinkNUMA:
		what, unknown = "NUMA node", func(d *Device) bool { return d.NUMA < 0 }
	case LinkSwitch, LinkRoot:
		what, unknown = "place on PCIe", func(d *Device) bool { return len(d.Path) == 0 }
	}
	var names []string
	for _, d := range match {
		if unknown(&s.machine.Devices[d]) {
			names = append(names, s.machine.Devices[d].ID)
		}
	}
	if len(names) == 0 || len(match)-len(names) >= dr.count() {
		return nil
	}
	if len(names) > 5 {
		names = append(names[:5], fmt.Sprintf("%d more", len(names)-5))
	}
	return []Failure{{
		Constraint: fmt.Sprintf("link %s", by),
		Problem:    fmt.Sprintf("the %s of %s is unknown: the firmware names none", what, strings.Join(names, ", ")),
		Remedy:     "ask for a link that is known, or for none, or name the devices by a selector",
	}}
}
