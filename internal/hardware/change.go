package hardware

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Change is a difference between two moments of a machine.
type Change struct {
	Device string `json:"device"` // an ID or address
	What   string `json:"what"`   // in words
}

// differences names what changed between two maps.
func differences(before, after *Machine) []Change {
	var changes []Change
	add := func(device, format string, args ...any) {
		changes = append(changes, Change{device, fmt.Sprintf(format, args...)})
	}
	for _, a := range after.Accelerators {
		old := before.accelerator(a.Address)
		switch {
		case old == nil:
			add(a.ID, "added: %s", strings.TrimSpace(a.Vendor+" "+a.Model))
		case old.Health.State != a.Health.State || !slices.Equal(old.Health.Reasons, a.Health.Reasons):
			add(a.ID, "health %s, was %s%s", a.Health.State, old.Health.State, when(len(a.Health.Reasons) > 0, ": "+strings.Join(a.Health.Reasons, ", ")))
		case !slices.Equal(old.Missing, a.Missing) || old.Driver != a.Driver:
			add(a.ID, "driver %s, was %s", cmp.Or(a.Driver, "none"), cmp.Or(old.Driver, "none"))
		case !slices.Equal(old.DeviceNodes, a.DeviceNodes):
			add(a.ID, "device nodes changed")
		}
	}
	byName(before.PCI, after.PCI, func(d PCIDevice) string { return d.Address }, func(d PCIDevice) string { return "PCI device " + className(d.Class) }, add)
	byName(before.Interfaces, after.Interfaces, func(i Interface) string { return i.Name }, func(i Interface) string { return "network" }, add)
	byName(before.Disks, after.Disks, func(d Disk) string { return d.Name }, func(d Disk) string { return "disk of " + d.Size.String() }, add)
	for i, n := range after.Interfaces {
		if i < len(before.Interfaces) && before.Interfaces[i].Name == n.Name && before.Interfaces[i].State != n.State {
			add(n.Name, "%s, was %s", n.State, before.Interfaces[i].State)
		}
	}
	if !before.Online.Equal(after.Online) {
		add("cpus", "online %s, were %s", after.Online, before.Online)
	}
	if before.Memory() != after.Memory() {
		add("memory", "%s, was %s", after.Memory(), before.Memory())
	}
	return changes
}

// byName names what came and what went in a list.
func byName[T any](before, after []T, name, what func(T) string, add func(string, string, ...any)) {
	in := func(list []T, wanted string) bool {
		return slices.ContainsFunc(list, func(t T) bool { return name(t) == wanted })
	}
	for _, t := range after {
		if !in(before, name(t)) {
			add(name(t), "added: %s", what(t))
		}
	}
	for _, t := range before {
		if !in(after, name(t)) {
			add(name(t), "removed: %s", what(t))
		}
	}
}
