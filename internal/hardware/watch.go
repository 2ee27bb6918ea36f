package hardware

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Change is a difference between two moments of a machine.
type Change struct {
	Device string `json:"device"` // an ID or address
	What   string `json:"what"`   // in words
}

// coalesce is how long a burst of events may grow before it is looked at: a
// device with its children announces itself some twenty times.
const coalesce = 100 * time.Millisecond

// Watch maps the machine under root, hands the map to update, and again after
// every change, until the context ends. On the running machine ("/") changes
// come from the kernel's device events and its log; every interval the health
// of the devices is looked at besides, for a worn link announces nothing. An
// update gets a map of its own that nothing writes to any more.
func Watch(ctx context.Context, root string, interval time.Duration, update func(*Machine, []Change)) error {
	t, gaps, err := openTree(root)
	if err != nil {
		return err
	}
	defer t.Close()
	w, err := newWatcher(t, gaps)
	if err != nil {
		return err
	}
	var events <-chan Event
	var records <-chan string
	if root == "/" {
		if events, err = listenEvents(ctx); err != nil {
			return err
		}
		if records, err = kernelLog(ctx); err != nil {
			w.m.Gaps = append(w.m.Gaps, Gap{Path: kernelLogFile, Reason: "error messages of drivers are not seen: " + reason(err)})
		}
	}
	w.live = root == "/"
	w.nodes()
	update(w.m, nil)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		var changes []Change
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-events:
			if !ok {
				return fmt.Errorf("device events ended: %w", cmp.Or(ctx.Err(), context.Canceled))
			}
			changes = w.apply(append(burst(ctx, events), e))
		case line, ok := <-records:
			if !ok {
				records = nil
				continue
			}
			changes = w.kernelRecord(line)
		case <-tick.C:
			changes = w.poll()
		}
		if len(changes) > 0 {
			w.nodes()
			update(w.m, changes)
		}
	}
}

// burst collects the events that follow the first closely.
func burst(ctx context.Context, events <-chan Event) []Event {
	var more []Event
	quiet := time.NewTimer(coalesce)
	defer quiet.Stop()
	for len(more) < 1024 {
		select {
		case e, ok := <-events:
			if !ok {
				return more
			}
			more = append(more, e)
		case <-quiet.C:
			return more
		case <-ctx.Done():
			return more
		}
	}
	return more
}

// watcher keeps a map up to date.
type watcher struct {
	tree  tree
	table *identities
	m     *Machine
	live  bool // the running machine: its device nodes can be looked at
}

// nodes looks at the device nodes of the running machine. The map is still
// the watcher's own here.
func (w *watcher) nodes() {
	if w.live {
		checkNodes(w.m, unix.Access)
	}
}

func newWatcher(t tree, gaps []Gap) (*watcher, error) {
	table, err := newIdentities(identityText)
	if err != nil {
		return nil, err
	}
	return &watcher{tree: t, table: table, m: discover(t, gaps)}, nil
}

// edit starts a new version of the map: the lists that may change are copied,
// so that readers of the old one are not disturbed.
func (w *watcher) edit() *scan {
	m := *w.m
	m.PCI = slices.Clone(m.PCI)
	m.Accelerators = slices.Clone(m.Accelerators)
	for i := range m.Accelerators {
		m.Accelerators[i].Health.Reasons = slices.Clone(m.Accelerators[i].Health.Reasons)
	}
	m.Gaps = slices.Clone(m.Gaps)
	facts := make(map[string][]Fact, len(m.Facts))
	for k, v := range m.Facts {
		facts[k] = v
	}
	m.Facts = facts
	w.m = &m
	s := &scan{tree: w.tree, m: &m, node: map[int]int{}, cpu: map[int]int{}, linkAttributes: atLeast(m.System.Kernel, 4, 13)}
	for i, n := range m.Nodes {
		s.node[n.ID] = i
	}
	for i, c := range m.CPUs {
		s.cpu[c.ID] = i
	}
	return s
}

// apply brings the map up to date after events and reads no more than what
// they name.
func (w *watcher) apply(events []Event) []Change {
	addresses := map[string]bool{}
	var whole, network, disks, usb bool
	for _, e := range events {
		switch e.Subsystem {
		case "cpu", "node", "memory":
			whole = true
		case "net", "infiniband":
			network = true
		case "block":
			disks = true
		case "usb":
			usb = true
		case "pci", "drm", "accel", "apex", "hailo_chardev", "neuron_device", "habanalabs", "misc", "platform":
			if address := lastPCI(e.Path); address != "" {
				addresses[address] = true
			}
		}
		whole = whole || e.Action == eventLost
	}
	if whole {
		return w.again()
	}
	if len(addresses) == 0 && !network && !disks && !usb {
		return nil
	}
	before := w.m
	s := w.edit()
	for address := range addresses {
		w.refresh(s, address)
	}
	if network {
		s.m.Interfaces = nil
		s.interfaces()
	}
	if disks {
		s.m.Disks = nil
		s.disks()
	}
	if usb {
		w.refreshUSB(s)
	}
	return differences(before, w.m)
}

// again maps the whole machine anew; devices keep their names.
func (w *watcher) again() []Change {
	before := w.m
	after := discover(w.tree, nil)
	for i := range before.Accelerators {
		old := before.Accelerators[i]
		if after.accelerator(old.Address) == nil {
			after.Accelerators = append(after.Accelerators, lost(old))
		}
	}
	renumber(after, before)
	w.m = after
	return differences(before, after)
}

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

// poll looks at what no event tells of: width of the links, error counts,
// devices that no longer answer.
func (w *watcher) poll() []Change {
	before := w.m
	s := w.edit()
	for i := range s.m.Accelerators {
		a := &s.m.Accelerators[i]
		d := s.m.device(a.Address)
		if a.Bus != "pci" || d == nil || a.Health.State == "lost" {
			continue
		}
		dir := pciDir + "/" + a.Address
		if status, _ := s.text(dir + "/power/runtime_status"); status == "suspended" {
			continue // asleep to save power: reading would wake it
		}
		a.Health.Reasons = slices.DeleteFunc(a.Health.Reasons, func(r string) bool { return !strings.HasPrefix(r, "driver: ") })
		a.Health.State = "ok"
		switch {
		case len(a.Missing) > 0:
			a.Health.State = "unusable"
		case len(a.Health.Reasons) > 0:
			a.Health.State = "degraded"
		}
		if s.silent(dir) {
			*a = lost(*a)
			continue
		}
		if link := s.pciLink(dir + "/current_link_"); link != nil && d.Best != nil {
			d.Link = link
			if d.Degraded = degraded(*link, *d.Best, s.m.device(d.Parent)); d.Degraded {
				a.Health.State = "degraded"
				a.Health.Reasons = append(a.Health.Reasons, fmt.Sprintf("PCI link runs at x%d of x%d", link.Width, d.Best.Width))
			}
		}
		s.errorCounters(a, dir)
	}
	return differences(before, w.m)
}

// silent reports a device that answers all ones, as one that fell off the bus.
func (s *scan) silent(dir string) bool {
	at, done, err := s.ranges(dir + "/config")
	if err != nil {
		return false
	}
	defer done()
	id := at(0, 4)
	return id != nil && id[0] == 0xff && id[1] == 0xff && id[2] == 0xff && id[3] == 0xff
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
