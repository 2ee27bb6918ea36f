package hardware

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// refresh reads one PCI device again.
func (w *watcher) refresh(s *scan, address string) {
	s.m.PCI = slices.DeleteFunc(s.m.PCI, func(d PCIDevice) bool { return d.Address == address })
	i := slices.IndexFunc(s.m.Accelerators, func(a Accelerator) bool { return a.Address == address })
	var old Accelerator
	if i >= 0 {
		old = s.m.Accelerators[i]
		s.m.Accelerators = slices.Delete(s.m.Accelerators, i, i+1)
	}
	if !s.exists(pciDir + "/" + address) {
		if i >= 0 {
			s.m.Accelerators = append(s.m.Accelerators, lost(old))
			sortAccelerators(s.m)
		}
		return
	}
	d := s.pciDevice(address)
	byAddress := map[string]*PCIDevice{}
	for j := range s.m.PCI {
		byAddress[s.m.PCI[j].Address] = &s.m.PCI[j]
	}
	s.locality(&d, byAddress)
	if d.Link != nil && d.Best != nil {
		d.Degraded = degraded(*d.Link, *d.Best, byAddress[d.Parent])
	}
	at, _ := slices.BinarySearchFunc(s.m.PCI, address, func(d PCIDevice, a string) int { return cmp.Compare(d.Address, a) })
	s.m.PCI = slices.Insert(s.m.PCI, at, d)
	count := len(s.m.Accelerators)
	s.pciAccelerator(w.table, &s.m.PCI[at])
	if len(s.m.Accelerators) > count {
		a := &s.m.Accelerators[count]
		a.ID = cmp.Or(old.ID, freeID(s.m, a.Kind))
		for p := range a.Partitions {
			a.Partitions[p].ID = a.ID + "-" + a.Partitions[p].ID
		}
		s.m.Facts[a.ID] = s.m.Facts[address]
		delete(s.m.Facts, address)
		s.finish(a)
		clean(reflect.ValueOf(a))
		sortAccelerators(s.m)
	}
}

// refreshUSB looks for accelerators on USB again.
func (w *watcher) refreshUSB(s *scan) {
	var old []Accelerator
	s.m.Accelerators = slices.DeleteFunc(s.m.Accelerators, func(a Accelerator) bool {
		if a.Bus == "usb" {
			old = append(old, a)
		}
		return a.Bus == "usb"
	})
	count := len(s.m.Accelerators)
	s.usbAccelerators(w.table)
	for i := count; i < len(s.m.Accelerators); i++ {
		a := &s.m.Accelerators[i]
		if j := slices.IndexFunc(old, func(o Accelerator) bool { return o.Address == a.Address }); j >= 0 {
			a.ID = old[j].ID
			old = slices.Delete(old, j, j+1)
		} else {
			a.ID = freeID(s.m, a.Kind)
		}
		s.m.Facts[a.ID] = s.m.Facts[a.Address]
		delete(s.m.Facts, a.Address)
		s.finish(a)
		clean(reflect.ValueOf(a))
	}
	for _, o := range old {
		s.m.Accelerators = append(s.m.Accelerators, lost(o))
	}
	sortAccelerators(s.m)
}

// lost marks a device that is no longer there. It keeps its name, so that
// what ran on it can be told.
func lost(a Accelerator) Accelerator {
	a.Health = Health{State: "lost", Reasons: []string{"the device is gone from the bus"}}
	return a
}

// silenced is the health of a device that is there by name only.
func silenced() Health {
	return Health{State: "lost", Reasons: []string{"its configuration space reads all ones: it fell off the bus; a cold restart of the machine may bring it back"}}
}

// freeID is the first name of a kind that no device has or had.
func freeID(m *Machine, kind string) string {
	for n := 0; ; n++ {
		id := fmt.Sprintf("%s%d", kind, n)
		if !slices.ContainsFunc(m.Accelerators, func(a Accelerator) bool { return a.ID == id }) {
			return id
		}
	}
}

// renumber gives the devices of a new map the names they had before.
func renumber(after, before *Machine) {
	names := map[string]string{}
	for _, a := range before.Accelerators {
		names[a.Address] = a.ID
	}
	facts := after.Facts
	after.Facts = map[string][]Fact{}
	fresh := map[string]string{}
	for i := range after.Accelerators {
		a := &after.Accelerators[i]
		if name, ok := names[a.Address]; ok && name != a.ID {
			fresh[a.ID] = name
		}
	}
	for i := range after.Accelerators {
		a := &after.Accelerators[i]
		old := a.ID
		if name, ok := names[a.Address]; ok {
			a.ID = name
		} else if slices.ContainsFunc(before.Accelerators, func(b Accelerator) bool { return b.ID == old }) {
			a.ID = freeID(&Machine{Accelerators: append(slices.Clone(before.Accelerators), after.Accelerators...)}, a.Kind)
		}
		after.Facts[a.ID] = facts[old]
		for p := range a.Partitions {
			a.Partitions[p].ID = a.ID + strings.TrimPrefix(a.Partitions[p].ID, old)
		}
	}
	for i, l := range after.Links {
		after.Links[i].A, after.Links[i].B = cmp.Or(fresh[l.A], l.A), cmp.Or(fresh[l.B], l.B)
	}
	sortAccelerators(after)
}

func sortAccelerators(m *Machine) {
	slices.SortStableFunc(m.Accelerators, func(a, b Accelerator) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Address, b.Address))
	})
}
