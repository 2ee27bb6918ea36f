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
	// Reason is the kind of change in one word, for programs, and Warning
	// says that a person should look.
	Reason  ChangeReason `json:"reason"`
	Warning bool         `json:"warning,omitempty"`
}

// ChangeReason is a kind of change.
type ChangeReason string

// The kinds of changes.
const (
	DeviceAdded     ChangeReason = "DeviceAdded"
	DeviceRemoved   ChangeReason = "DeviceRemoved"
	DeviceLost      ChangeReason = "DeviceLost"     // gone from the bus without notice, or silent
	DeviceDegraded  ChangeReason = "DeviceDegraded" // works with errors
	DeviceUnusable  ChangeReason = "DeviceUnusable"
	DeviceRecovered ChangeReason = "DeviceRecovered"
	DriverChanged   ChangeReason = "DriverChanged"
	LinkDegraded    ChangeReason = "LinkDegraded" // fewer lanes than both ends can do
	NetworkUp       ChangeReason = "NetworkUp"
	NetworkDown     ChangeReason = "NetworkDown"
	CPUsChanged     ChangeReason = "CPUsChanged"
	MemoryChanged   ChangeReason = "MemoryChanged"
	MemoryError     ChangeReason = "MemoryError"
	SlowedByHeat    ChangeReason = "SlowedByHeat"
	ChangesMissed   ChangeReason = "ChangesMissed" // more came than were read
)

// Differences names what changed between two maps of a machine.
func Differences(before, after *Machine) []Change {
	var changes []Change
	add := func(reason ChangeReason, device, format string, args ...any) {
		changes = append(changes, NewChange(reason, device, fmt.Sprintf(format, args...)))
	}
	for i := range after.Accelerators {
		a := &after.Accelerators[i]
		old := before.Accelerator(a.Address)
		switch {
		case old == nil:
			add(DeviceAdded, a.ID, "added: %s", strings.TrimSpace(a.Vendor+" "+a.Model))
		case old.Health.State != a.Health.State || !slices.Equal(old.Health.Reasons, a.Health.Reasons):
			why := ""
			if len(a.Health.Reasons) > 0 {
				why = ": " + strings.Join(a.Health.Reasons, ", ")
			}
			add(healthReason(a), a.ID, "health %s, was %s%s", a.Health.State, old.Health.State, why)
		case !slices.Equal(old.Missing, a.Missing) || old.Driver != a.Driver:
			add(DriverChanged, a.ID, "driver %s, was %s", cmp.Or(a.Driver, "none"), cmp.Or(old.Driver, "none"))
		case !slices.Equal(old.DeviceNodes, a.DeviceNodes):
			add(DriverChanged, a.ID, "device nodes changed")
		}
	}
	byName(before.PCI, after.PCI, func(d PCIDevice) string { return d.Address }, func(d PCIDevice) string { return "PCI device " + d.ClassName() }, add)
	byName(before.Interfaces, after.Interfaces, func(i Interface) string { return i.Name }, func(i Interface) string { return "network" }, add)
	byName(before.Disks, after.Disks, func(d Disk) string { return d.Name }, func(d Disk) string { return "disk of " + d.Size.String() }, add)
	for _, n := range after.Interfaces {
		i := slices.IndexFunc(before.Interfaces, func(old Interface) bool { return old.Name == n.Name })
		if i < 0 || before.Interfaces[i].State == n.State {
			continue
		}
		reason := NetworkUp
		if n.State != "up" {
			reason = NetworkDown
		}
		add(reason, n.Name, "%s, was %s", n.State, before.Interfaces[i].State)
	}
	if !before.Online.Equal(after.Online) {
		add(CPUsChanged, "cpus", "online %s, were %s", after.Online, before.Online)
	}
	if before.Memory() != after.Memory() {
		add(MemoryChanged, "memory", "%s, was %s", after.Memory(), before.Memory())
	}
	return changes
}

// warns reports a reason that a person should know of.
func (r ChangeReason) warns() bool {
	switch r {
	case DeviceLost, DeviceDegraded, DeviceUnusable, LinkDegraded, NetworkDown, MemoryError, SlowedByHeat, ChangesMissed:
		return true
	}
	return false
}

// NewChange is a change of which the reason says how grave it is.
func NewChange(reason ChangeReason, device, what string) Change {
	return Change{Device: device, What: what, Reason: reason, Warning: reason.warns()}
}

// healthReason is what a device's new health means.
func healthReason(a *Accelerator) ChangeReason {
	switch a.Health.State {
	case "ok":
		return DeviceRecovered
	case "lost":
		return DeviceLost
	case "unusable", "failed":
		return DeviceUnusable
	}
	link := func(r string) bool { return strings.HasPrefix(r, linkReason) }
	if len(a.Health.Reasons) > 0 && !slices.ContainsFunc(a.Health.Reasons, func(r string) bool { return !link(r) }) {
		return LinkDegraded
	}
	return DeviceDegraded
}

// linkReason begins the reason of a device whose link has lost lanes.
const linkReason = "PCI link runs at "

// byName names what came and what went in a list.
func byName[T any](before, after []T, name, what func(T) string, add func(ChangeReason, string, string, ...any)) {
	in := func(list []T, wanted string) bool {
		return slices.ContainsFunc(list, func(t T) bool { return name(t) == wanted })
	}
	for _, t := range after {
		if !in(before, name(t)) {
			add(DeviceAdded, name(t), "added: %s", what(t))
		}
	}
	for _, t := range before {
		if !in(after, name(t)) {
			add(DeviceRemoved, name(t), "removed: %s", what(t))
		}
	}
}
