package place

import (
	"fmt"
	"slices"
	"strings"
)

// explain writes the reason of a choice and what came second.
func (s *State) explain(p *Placement, best, second *candidate) {
	p.Reason = s.reason(p, best)
	if second == nil {
		return
	}
	alt := &Alternative{Why: s.whySecond(best, second)}
	for _, c := range second.cpus {
		alt.CPUs = append(alt.CPUs, c.ID)
	}
	for _, n := range second.nodes.nodes {
		alt.NUMANodes = append(alt.NUMANodes, s.nodes[n].ID)
	}
	if !p.Request.Exclusive {
		alt.CPUs = s.pool(&p.Request, second.nodes.nodes)
	}
	for _, d := range second.devices.all() {
		alt.Devices = append(alt.Devices, s.machine.Devices[d].ID)
	}
	p.RunnerUp = alt
}

func (s *State) reason(p *Placement, c *candidate) string {
	var subject []string
	switch {
	case p.Request.Exclusive:
		subject = append(subject, "exclusive "+plural("CPU", len(p.CPUs))+" "+FormatCPUs(p.CPUs))
	case p.Request.MilliCPU > 0:
		subject = append(subject, fmt.Sprintf("cpu %s on shared %s %s", formatMilli(p.Request.MilliCPU), plural("CPU", len(p.CPUs)), FormatCPUs(p.CPUs)))
	default:
		subject = append(subject, "shared "+plural("CPU", len(p.CPUs))+" "+FormatCPUs(p.CPUs))
	}
	for _, g := range p.Devices {
		name := g.ID
		if g.Request != "" && !strings.HasPrefix(g.ID, g.Request) {
			name = g.Request + " " + g.ID
		}
		if !g.Fraction.Whole() {
			name = fmt.Sprintf("%s of %s (%s)", g.Fraction, name, g.Why)
		}
		subject = append(subject, name)
	}
	var facts []string
	facts = append(facts, s.locality(c))
	if l := s.cpuLocality(c.cpus); l != "" {
		facts = append(facts, l)
	}
	if l := s.deviceLocality(c.devices.all()); l != "" {
		facts = append(facts, l)
	}
	if len(p.Held) > 0 {
		facts = append(facts, fmt.Sprintf("SMT siblings %s stay idle", FormatCPUs(p.Held)))
	}
	return strings.Join(subject, ", ") + ": " + strings.Join(facts, "; ")
}

func plural(word string, n int) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

// locality says which NUMA nodes a candidate touches.
func (s *State) locality(c *candidate) string {
	nodes := slices.Clone(c.nodes.nodes)
	var unknown []string
	for _, d := range c.devices.all() {
		if n, ok := s.nodeAt[s.machine.Devices[d].NUMA]; !ok {
			unknown = append(unknown, s.machine.Devices[d].ID)
		} else if !slices.Contains(nodes, n) {
			nodes = append(nodes, n)
		}
	}
	ids := make([]int, len(nodes))
	for i, n := range nodes {
		ids[i] = s.nodes[n].ID
	}
	switch {
	case len(s.nodes) <= 1:
		return "the machine has one NUMA node"
	case len(unknown) > 0:
		return fmt.Sprintf("on NUMA %s %s, but the node of %s is unknown", plural("node", len(ids)), FormatCPUs(ids), strings.Join(unknown, ", "))
	case len(ids) == 1:
		return fmt.Sprintf("all on NUMA node %d", ids[0])
	case len(ids) == len(s.nodes):
		return fmt.Sprintf("anywhere on the %d NUMA nodes", len(ids))
	}
	near := "and nearest "
	for _, a := range nodes {
		for _, b := range nodes {
			if a != b && s.nodes[a].Distance[s.nodes[b].ID] <= 0 {
				near = ""
			}
		}
	}
	return fmt.Sprintf("on NUMA nodes %s, the fewest %sthat have it all", FormatCPUs(ids), near)
}

func (s *State) cpuLocality(cpus []*CPU) string {
	if len(cpus) == 0 {
		return ""
	}
	counts := countGroups(cpus)
	cores := "cores"
	if kind := cpus[0].Kind; kind != "" && !slices.ContainsFunc(cpus, func(c *CPU) bool { return c.Kind != kind }) {
		cores = kind + " cores"
	}
	words := fmt.Sprintf("%d %s under %d last-level caches", counts[levelCore], cores, counts[levelCache])
	switch {
	case counts[levelCore] == 1:
		words = "one " + strings.TrimSuffix(cores, "s")
	case slices.ContainsFunc(cpus, func(c *CPU) bool { return c.Cache < 0 }):
		words = fmt.Sprintf("%d %s; it is unknown which share a cache", counts[levelCore], cores)
	case counts[levelCache] == 1:
		words = fmt.Sprintf("%d %s under one last-level cache", counts[levelCore], cores)
	}
	if n := countFunc(cpus, func(c *CPU) bool { return c.Split }); n > 0 {
		words += fmt.Sprintf("; work of others runs on the sibling threads of %d", n)
	}
	return words
}

// deviceLocality says how the devices are joined, by their weakest pair.
func (s *State) deviceLocality(devices []int) string {
	if len(devices) < 2 {
		return ""
	}
	weakest, direct := int32(1<<30), true
	a, b := devices[0], devices[1]
	for i, x := range devices {
		for _, y := range devices[i+1:] {
			direct = direct && s.fabric.direct[x][y] > 0
			if score := s.fabric.score[x][y]; score < weakest {
				weakest, a, b = score, x, y
			}
		}
	}
	if direct {
		return "devices all joined by direct links"
	}
	da, db := &s.machine.Devices[a], &s.machine.Devices[b]
	switch n := sharedPath(da, db); {
	case n >= 2:
		return "devices share PCIe switch " + da.Path[n-1]
	case n == 1:
		return "devices share PCIe root " + da.Path[0]
	case da.NUMA < 0 || db.NUMA < 0:
		return fmt.Sprintf("the distance between %s and %s is unknown", da.ID, db.ID)
	case da.NUMA == db.NUMA:
		return "devices share their NUMA node"
	}
	return "devices are joined across NUMA nodes"
}

// whySecond names the first criterion by which the runner-up lost.
func (s *State) whySecond(best, second *candidate) string {
	a, b := best.nodes.cost, second.nodes.cost
	switch {
	case b.count > a.count:
		return fmt.Sprintf("it touches %d NUMA nodes instead of %d", b.count, a.count)
	case b.distance > a.distance:
		return fmt.Sprintf("its NUMA nodes are further apart (distance %d instead of %d)", b.distance, a.distance)
	case second.devices.score < best.devices.score:
		return fmt.Sprintf("its devices are joined less well (score %d instead of %d)", second.devices.score, best.devices.score)
	case second.devices.loss > best.devices.loss:
		return "it would break up devices that others can use better"
	case b.spared > a.spared:
		return fmt.Sprintf("it would take cores and memory beside %d free devices instead of %d", b.spared, a.spared)
	case b.waste > a.waste:
		return "it would leave a larger hole on its NUMA nodes"
	}
	x, y := countGroups(best.cpus), countGroups(second.cpus)
	for l, name := range []string{"packages", "NUMA nodes", "last-level caches", "cores"} {
		if cpuLevel(l) == levelCache && slices.ContainsFunc(best.cpus, func(c *CPU) bool { return c.Cache < 0 }) {
			continue
		}
		if y[l] > x[l] {
			return fmt.Sprintf("it touches %d %s instead of %d", y[l], name, x[l])
		}
	}
	return "it is equally good; the lower numbers win"
}
