package node

import (
	"context"
	"fmt"
	"slices"

	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/node/allocate"
)

// sysRoot is where the live machine's sysfs and procfs hang.
const sysRoot = "/"

// hardwareFound completes a map of the kernel's and makes it the node's.
func (n *Node) hardwareFound(ctx context.Context, found *hardware.Machine, changes []hardware.Change) {
	n.finding.Lock()
	defer n.finding.Unlock()
	before := n.drivers.Machine()
	m := n.drivers.Complete(ctx, found)
	if ctx.Err() != nil {
		return // drivers were not asked to the end: the map says too little
	}
	for _, c := range allocate.Changes(before, m) {
		if !slices.Contains(changes, c) {
			changes = append(changes, c)
		}
	}
	if _, err := hardware.WriteCDI(n.cdiDir(), m); err != nil {
		n.log.Warn("devices cannot be given to containers", "error", err)
	}
	for _, c := range changes {
		n.log.Info("hardware changed", "device", c.Device, "what", c.What)
	}
	n.sawHardware(m, changes)
	if len(changes) > 0 {
		n.hardwareChanged(m)
	}
	n.placer.Existing(m)
}

// openPlacer reads what the machine is and has nothing of it given out yet.
func (n *Node) openPlacer(ctx context.Context) error {
	m, err := hardware.Discover(sysRoot)
	if err != nil {
		return fmt.Errorf("read the machine's hardware: %w", err)
	}
	// Hosted, the host has a name of its own.
	n.placer, err = allocate.NewPlacer(n.drivers.Complete(ctx, m), n.machine.Metadata.Name, n.log)
	return err
}

// refreshDrivers asks the drivers again, and retries what could not be undone on devices before.
func (n *Node) refreshDrivers(ctx context.Context) {
	n.askDrivers(ctx)
	n.shares.Sweep(ctx, n.has)
}

// askDrivers completes the kernel's last map again.
func (n *Node) askDrivers(ctx context.Context) {
	if found := n.drivers.Found(); found != nil {
		n.hardwareFound(ctx, found, nil)
	}
}

// driverEvent notes what a driver reports about one of its devices and has the drivers asked for the device's
// present state.
func (n *Node) driverEvent(e hardware.DriverEvent) {
	id := e.Device
	if a := n.drivers.Machine().Accelerator(e.Device); a != nil {
		id = a.ID
	}
	if e.Partition != "" {
		id += "-" + e.Partition
	}
	reason := hardware.DeviceDegraded
	switch {
	case e.State == "lost":
		reason = hardware.DeviceLost
	case e.Kind == "clocks":
		reason = hardware.SlowedByHeat
	case e.Kind == "ecc":
		reason = hardware.MemoryError
	}
	n.log.Warn("a driver reported an event of its device", "device", id, "kind", e.Kind, "what", e.Text)
	n.noteChange(hardware.NewChange(reason, id, e.Text))
	n.drivers.Wake()
}
