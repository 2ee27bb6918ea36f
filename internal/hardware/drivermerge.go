package hardware

import (
	"cmp"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/pattern"
)

var kindRule = pattern.New(`^[a-z][a-z-]{0,30}$`)

// maxAccelerators bounds the devices that programs may add to a map.
const maxAccelerators = 512

// maxSlices bounds what a device can be cut into, as placement counts it.
const maxSlices = 64

// merge takes a report into the map.
func merge(m *Machine, report *DriverReport, program string) {
	clean(reflect.ValueOf(report))
	s := &scan{m: m}
	if m.Facts == nil {
		m.Facts = map[string][]Fact{}
	}
	for _, d := range report.Devices {
		a := m.Accelerator(d.Address)
		if a == nil {
			if len(m.Accelerators) >= maxAccelerators {
				s.gap(program, "more than %d devices: the others were left out", maxAccelerators)
				break
			}
			if !kindRule.MatchString(d.Kind) || d.Address == "" {
				s.gap(program, "a device without kind or address was left out")
				continue
			}
			d.ID = freeID(m, d.Kind)
			d.Bus = cmp.Or(d.Bus, "virtual")
			if d.Health.State == "" {
				d.Health.State = "ok"
			}
			if d.LocalCPUs.Empty() {
				d.LocalCPUs, d.LocalNodes, d.Node = m.Online, s.nodeSet(), -1
			}
			m.Accelerators = append(m.Accelerators, d)
			a = &m.Accelerators[len(m.Accelerators)-1]
		} else {
			a.adopt(d)
		}
		a.DeviceNodes = slices.DeleteFunc(slices.Clone(a.DeviceNodes), func(n string) bool {
			return !strings.HasPrefix(filepath.Clean(n), "/dev/")
		})
		a.Files = slices.DeleteFunc(slices.Clone(a.Files), func(f DeviceFile) bool {
			below := strings.HasPrefix(f.Container, "/usr/local/") || strings.HasPrefix(f.Container, "/opt/")
			return !below || filepath.Clean(f.Container) != f.Container || !filepath.IsAbs(f.Host) || filepath.Clean(f.Host) != f.Host
		})
		a.Profiles = slices.DeleteFunc(slices.Clone(a.Profiles), func(p PartitionProfile) bool {
			outside := func(start int) bool { return start < 0 || start+p.Slices > maxSlices }
			return p.Slices < 1 || p.Slices > maxSlices || p.Compute < 0 || len(p.Starts) == 0 || slices.ContainsFunc(p.Starts, outside)
		})
		for p := range a.Partitions {
			if !strings.HasPrefix(a.Partitions[p].ID, a.ID+"-") {
				a.Partitions[p].ID = a.ID + "-" + a.Partitions[p].ID
			}
		}
		m.Facts[a.ID] = append(m.Facts[a.ID], Fact{Name: "driver program", Value: cmp.Or(d.DriverVersion, d.Model, "reported"), Path: program})
		extra := a.Attributes
		s.finish(a)
		for _, told := range []map[string]any{d.Attributes, extra} {
			for name, value := range told {
				if _, ours := a.Attributes[name]; !ours {
					a.Attributes[name] = value
				}
			}
		}
	}
	mergeLinks(s, report, program)
	sortAccelerators(m)
}

// mergeLinks takes over what a report says of the ways between devices.
func mergeLinks(s *scan, report *DriverReport, program string) {
	m := s.m
	for _, l := range report.Links {
		l.A, l.B, l.Source = s.nameOf(l.A), s.nameOf(l.B), program
		if l.A != l.B && l.Kind != "" && m.linkBetween(l.A, l.B) == nil {
			m.Links = append(m.Links, l)
		}
	}
	for _, p := range report.Pairs {
		p.A, p.B = s.nameOf(p.A), s.nameOf(p.B)
		if m.Accelerator(p.A) != nil && m.Accelerator(p.B) != nil && p.A != p.B {
			m.Pairs = append(m.Pairs, p)
		}
	}
}

// adopt takes over what a report says of a known device.
func (a *Accelerator) adopt(d Accelerator) {
	for _, field := range []struct {
		to   *string
		from string
	}{
		{&a.Vendor, d.Vendor}, {&a.Model, d.Model}, {&a.DriverVersion, d.DriverVersion},
		{&a.Firmware, d.Firmware}, {&a.Architecture, d.Architecture},
	} {
		if field.from != "" {
			*field.to = field.from
		}
	}
	if d.Memory > 0 {
		a.Memory = d.Memory
	}
	if d.DeviceNodes != nil {
		a.DeviceNodes = d.DeviceNodes
	}
	if d.Partitions != nil || d.Profiles != nil { // who knows the sizes knows whether there are any
		a.Partitions = d.Partitions
	}
	if d.Files != nil {
		a.Files = d.Files
	}
	if d.Profiles != nil {
		a.Profiles = d.Profiles
	}
	if d.PartitionModes != nil {
		a.PartitionModes = d.PartitionModes
	}
	if d.Health.State != "" {
		a.Health = d.Health
	}
	if d.Missing != nil {
		a.Missing = d.Missing
	}
}
