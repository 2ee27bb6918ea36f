package allocate

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

// Drivers are the driver programs of the machine: those of the installed packs,
// and those that lie beside the daemon. It is safe for concurrent use.
type Drivers struct {
	// KernelDriver is called before the programs of a pack are asked that brings a
	// driver of the kernel, with the pack's mounted root; nil: nothing is done. Set it
	// before the first use.
	KernelDriver func(p *pack.Info, root string)

	packs   *pack.Store
	log     *slog.Logger
	changed chan struct{} // holds one token where drivers are to be asked again

	asking sync.Mutex // held while programs are asked for the map

	mu     sync.Mutex
	found  *hardware.Machine // as the kernel has it
	m      *hardware.Machine // completed
	known  []hardware.Driver // that answered
	warned map[string]string // by program, what it failed of
	silent map[string]int    // by program, how often it did not answer since it did
}

// patience is how often a program may fail before its report no longer counts:
// a driver that is busy must not cost the workloads that run on its devices.
const patience = 3

// NewDrivers finds the programs of packs and those beside the daemon.
func NewDrivers(packs *pack.Store, log *slog.Logger) *Drivers {
	return &Drivers{packs: packs, log: log, changed: make(chan struct{}, 1), warned: map[string]string{}, silent: map[string]int{}}
}

// programs lists what may be asked of a map. A program of a pack stands before
// one of the same name beside the daemon.
func (d *Drivers) programs(m *hardware.Machine) ([]string, error) {
	packs, err := d.packs.List()
	if err != nil {
		return nil, err
	}
	var all []string
	var errs []error
	// Of two packs with one program, that with the kernel's driver has the libraries too.
	slices.SortStableFunc(packs, func(a, b pack.Info) int {
		switch {
		case a.Kernel != nil && b.Kernel == nil:
			return -1
		case a.Kernel == nil && b.Kernel != nil:
			return 1
		}
		return 0
	})
	for i := range packs {
		p := &packs[i]
		if len(p.Drivers) == 0 {
			continue
		}
		_, root, err := d.packs.Mount(p.Name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if p.Kernel != nil && d.KernelDriver != nil {
			d.KernelDriver(p, root)
		}
		list, err := hardware.DriverPrograms(filepath.Join(root, pack.DriversPath))
		errs = append(errs, err)
		for _, program := range list {
			if !slices.ContainsFunc(all, func(other string) bool { return filepath.Base(other) == filepath.Base(program) }) {
				all = append(all, program)
			}
		}
	}
	for _, beside := range hardware.Companions(m) {
		if !slices.ContainsFunc(all, func(p string) bool { return filepath.Base(p) == filepath.Base(beside) }) {
			all = append(all, beside)
		}
	}
	return all, errors.Join(errs...)
}

// Complete adds to a map, as the kernel has it, what only drivers know. Where a
// program fails the map has a gap.
func (d *Drivers) Complete(ctx context.Context, found *hardware.Machine) *hardware.Machine {
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
func (d *Drivers) remember(m *hardware.Machine, programs []string, answered []hardware.Driver) (kept []hardware.Driver) {
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
func (d *Drivers) warn(m *hardware.Machine, programs []string) {
	for _, p := range programs {
		reason := ""
		for _, g := range m.Gaps {
			if g.Path == p {
				reason = g.Reason
			}
		}
		if reason != "" && d.warned[p] != reason {
			d.log.Warn("a driver program does not report its devices", "program", p, "reason", reason)
		}
		d.warned[p] = reason
	}
}

// Machine is the completed map, nil before the first.
func (d *Drivers) Machine() *hardware.Machine {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.m
}

// List are the drivers that answered last.
func (d *Drivers) List() []hardware.Driver {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.known)
}

// sharer is the driver that can divide a device, nil where there is none.
func (d *Drivers) sharer(address string) *hardware.Driver {
	for _, known := range d.List() {
		if known.Can("share") && slices.Contains(known.Devices, address) {
			return &known
		}
	}
	return nil
}

// Changes is what changed between two completed maps, with what only drivers
// know. Devices that no driver reports any more are gone.
func Changes(before, after *hardware.Machine) []hardware.Change {
	if before == nil {
		return nil
	}
	changes := hardware.Differences(before, after)
	for _, old := range before.Accelerators {
		if after.Accelerator(old.Address) == nil {
			changes = append(changes, hardware.NewChange(hardware.DeviceRemoved, old.ID, "no driver reports it any more"))
		}
	}
	return changes
}

// driverInterval is how often drivers are asked; what they report in between
// comes as events.
const driverInterval = 30 * time.Second

// Watch calls refresh, which asks the drivers again, from time to time and
// after Wake, and event with each event of a driver, until ctx ends. Nothing
// that it began outlives it.
func (d *Drivers) Watch(ctx context.Context, refresh func(context.Context), event func(hardware.DriverEvent)) {
	tick := time.NewTicker(driverInterval)
	defer tick.Stop()
	l := listeners{drivers: d, event: event, ends: map[string]context.CancelFunc{}}
	defer l.stop()
	for {
		l.follow(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-d.changed:
		}
		refresh(ctx)
	}
}

// Wake has the drivers asked again soon.
func (d *Drivers) Wake() {
	select {
	case d.changed <- struct{}{}:
	default: // they will be
	}
}

// Found is the last map as the kernel has it, for drivers to be asked about
// again; nil if there is no driver now and was none before.
func (d *Drivers) Found() *hardware.Machine {
	d.mu.Lock()
	found := d.found
	d.mu.Unlock()
	if found == nil {
		return nil
	}
	if programs, err := d.programs(found); err == nil && len(programs) == 0 && len(d.List()) == 0 {
		return nil
	}
	return found
}

// listeners follow the events of drivers.
type listeners struct {
	drivers *Drivers
	event   func(hardware.DriverEvent)
	ends    map[string]context.CancelFunc // by driver
	wg      sync.WaitGroup
}

// follow starts to listen to drivers that are new and stops where they are
// gone.
func (l *listeners) follow(ctx context.Context) {
	wanted := map[string]bool{}
	for _, known := range l.drivers.List() {
		if !known.Can("events") {
			continue
		}
		key := fmt.Sprint(known.Program, known.Devices)
		wanted[key] = true
		if _, ok := l.ends[key]; ok {
			continue
		}
		life, end := context.WithCancel(ctx)
		l.ends[key] = end
		l.wg.Go(func() {
			err := known.Events(life, l.event)
			if err != nil && life.Err() == nil {
				l.drivers.log.Warn("a driver's events are not heard any more", "program", known.Program, "error", err)
			}
		})
	}
	for key, end := range l.ends {
		if !wanted[key] {
			end()
			delete(l.ends, key)
		}
	}
}

func (l *listeners) stop() {
	for _, end := range l.ends {
		end()
	}
	l.wg.Wait()
}
