package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/pack"
)

// drivers are the driver programs of the machine: those of the installed packs,
// and those that lie beside the daemon.
type drivers struct {
	packs *pack.Store
	log   *slog.Logger

	finding sync.Mutex // held while a new map is made the node's
	asking  sync.Mutex // held while programs are asked for the map

	mu     sync.Mutex
	found  *hardware.Machine // as the kernel has it
	m      *hardware.Machine // completed
	known  []hardware.Driver // that answered
	warned map[string]string // by program, what it failed of
	silent map[string]int    // by program, how often it did not answer since it did
}

// patience is how often a program may fail before what it told counts no more:
// a driver that is busy must not cost the workloads that run on its devices.
const patience = 3

func newDrivers(packs *pack.Store, log *slog.Logger) *drivers {
	return &drivers{packs: packs, log: log, warned: map[string]string{}, silent: map[string]int{}}
}

// programs lists what may be asked of a map. A program of a pack stands before
// one of the same name beside the daemon.
func (d *drivers) programs(m *hardware.Machine) ([]string, error) {
	packs, err := d.packs.List()
	if err != nil {
		return nil, err
	}
	var all []string
	var errs []error
	for _, p := range packs {
		if len(p.Drivers) == 0 {
			continue
		}
		_, root, err := d.packs.Mount(p.Name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		list, err := hardware.DriverPrograms(filepath.Join(root, pack.DriversPath))
		errs = append(errs, err)
		all = append(all, list...)
	}
	for _, beside := range hardware.Companions(m) {
		if !slices.ContainsFunc(all, func(p string) bool { return filepath.Base(p) == filepath.Base(beside) }) {
			all = append(all, beside)
		}
	}
	return all, errors.Join(errs...)
}

// complete adds to a map, as the kernel has it, what only drivers know. Where a
// program fails the map has a gap of it.
func (d *drivers) complete(ctx context.Context, found *hardware.Machine) *hardware.Machine {
	d.asking.Lock()
	defer d.asking.Unlock()
	m, err := found.Clone()
	if err != nil {
		d.log.Error("the map of the hardware cannot be copied; drivers are not asked", "error", err)
		return found
	}
	programs, err := d.programs(m)
	if err != nil {
		d.log.Warn("some driver programs cannot be used", "error", err)
	}
	known, err := hardware.AskDrivers(ctx, m, programs...)
	if err != nil && ctx.Err() == nil {
		d.log.Warn("drivers cannot be asked", "error", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	known = append(known, d.remember(m, programs, known)...)
	d.found, d.m, d.known = found, m, known
	d.warn(m, programs)
	return m
}

// remember puts on a map what programs told before that do not answer now, and
// returns their drivers. The caller holds d.mu.
func (d *drivers) remember(m *hardware.Machine, programs []string, answered []hardware.Driver) (kept []hardware.Driver) {
	for _, k := range answered {
		d.silent[k.Program] = 0
	}
	for _, old := range d.known {
		there := slices.ContainsFunc(answered, func(k hardware.Driver) bool { return k.Program == old.Program })
		if there || !slices.Contains(programs, old.Program) {
			continue
		}
		if d.silent[old.Program]++; d.silent[old.Program] >= patience {
			continue
		}
		kept = append(kept, old)
		for _, before := range d.m.Accelerators {
			if !slices.Contains(old.Devices, before.Address) {
				continue
			}
			now := m.Accelerator(before.Address)
			switch {
			case now == nil && before.Bus == "virtual":
				m.Accelerators = append(m.Accelerators, before)
			case now != nil && now.Health.State != "lost" && len(now.Missing) == 0:
				*now = before
			}
		}
		m.Links = append(m.Links, slices.DeleteFunc(slices.Clone(d.m.Links), func(l hardware.Link) bool { return l.Source != old.Program })...)
	}
	return kept
}

// warn logs what a program fails of, once. The caller holds d.mu.
func (d *drivers) warn(m *hardware.Machine, programs []string) {
	for _, p := range programs {
		reason := ""
		for _, g := range m.Gaps {
			if g.Path == p {
				reason = g.Reason
			}
		}
		if reason != "" && d.warned[p] != reason {
			d.log.Warn("a driver program does not tell of its devices", "program", p, "reason", reason)
		}
		d.warned[p] = reason
	}
}

// machine is the completed map, nil before the first.
func (d *drivers) machine() *hardware.Machine {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.m
}

// list are the drivers that answered last.
func (d *drivers) list() []hardware.Driver {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.known)
}

// sharer is the driver that can divide a device, nil where there is none.
func (d *drivers) sharer(address string) *hardware.Driver {
	for _, known := range d.list() {
		if known.Can("share") && slices.Contains(known.Devices, address) {
			return &known
		}
	}
	return nil
}

// hardwareFound completes a map of the kernel's and makes it the node's.
func (n *Node) hardwareFound(ctx context.Context, found *hardware.Machine, changes []hardware.Change) {
	n.drivers.finding.Lock()
	defer n.drivers.finding.Unlock()
	before := n.drivers.machine()
	m := n.drivers.complete(ctx, found)
	if ctx.Err() != nil {
		return // drivers were not asked to the end: the map says too little
	}
	for _, c := range sinceBefore(before, m) {
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
	n.placer.existing(m)
}

// sinceBefore is what changed between two completed maps, with what only
// drivers know. Devices that no driver tells of any more are gone.
func sinceBefore(before, after *hardware.Machine) []hardware.Change {
	if before == nil {
		return nil
	}
	changes := hardware.Differences(before, after)
	for _, old := range before.Accelerators {
		if after.Accelerator(old.Address) == nil {
			changes = append(changes, hardware.NewChange(hardware.DeviceRemoved, old.ID, "no driver tells of it any more"))
		}
	}
	return changes
}

// driverInterval is how often drivers are asked anew; what they tell of between
// comes as events.
const driverInterval = 30 * time.Second

// watchDrivers asks drivers anew from time to time and listens to their events,
// until ctx ends.
func (n *Node) watchDrivers(ctx context.Context) {
	tick := time.NewTicker(driverInterval)
	defer tick.Stop()
	listening := map[string]context.CancelFunc{}
	defer func() {
		for _, end := range listening {
			end()
		}
	}()
	for {
		n.listenDrivers(ctx, listening)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-n.driversChanged:
		}
		n.askDrivers(ctx)
		n.shares.sweep(ctx, n.has)
	}
}

// askDrivers completes the last map of the kernel's anew.
func (n *Node) askDrivers(ctx context.Context) {
	n.drivers.mu.Lock()
	found := n.drivers.found
	n.drivers.mu.Unlock()
	if found == nil {
		return
	}
	programs, err := n.drivers.programs(found)
	if err == nil && len(programs) == 0 && len(n.drivers.list()) == 0 {
		return // nobody to ask, and nobody was asked
	}
	n.hardwareFound(ctx, found, nil)
}

// has reports whether there is an object with that ID, one that is being deleted
// included.
func (n *Node) has(id string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for key := range n.controllers {
		if key.id() == id {
			return true
		}
	}
	return false
}

// listenDrivers starts to listen to drivers that are new and stops where they
// are gone.
func (n *Node) listenDrivers(ctx context.Context, listening map[string]context.CancelFunc) {
	wanted := map[string]bool{}
	for _, known := range n.drivers.list() {
		if !known.Can("events") {
			continue
		}
		key := fmt.Sprint(known.Program, known.Devices)
		wanted[key] = true
		if _, ok := listening[key]; ok {
			continue
		}
		life, end := context.WithCancel(ctx)
		listening[key] = end
		n.wg.Go(func() {
			err := known.Events(life, n.driverEvent)
			if err != nil && life.Err() == nil {
				n.log.Warn("a driver's events are not heard any more", "program", known.Program, "error", err)
			}
		})
	}
	for key, end := range listening {
		if !wanted[key] {
			end()
			delete(listening, key)
		}
	}
}

// driverEvent notes what a driver tells of one of its devices and has the
// drivers asked how the device fares now.
func (n *Node) driverEvent(e hardware.DriverEvent) {
	id := e.Device
	if a := n.drivers.machine().Accelerator(e.Device); a != nil {
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
	n.log.Warn("a driver tells of its device", "device", id, "kind", e.Kind, "what", e.Text)
	n.noteChange(hardware.NewChange(reason, id, e.Text))
	n.ringDrivers()
}

// ringDrivers has the drivers asked anew soon.
func (n *Node) ringDrivers() {
	select {
	case n.driversChanged <- struct{}{}:
	default: // they will be
	}
}
