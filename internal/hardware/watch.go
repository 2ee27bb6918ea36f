package hardware

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// coalesce is how long a burst of events may grow before it is looked at: a
// device with its children announces itself some twenty times.
const coalesce = 100 * time.Millisecond

// Watch maps the machine under root, hands the map to update, and again after
// every change, until the context ends. On the running machine ("/") changes
// come from the kernel's device events and its log; every interval the health
// of the devices is polled too, because a worn link sends no event. An
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
		if events, err = ListenEvents(ctx); err != nil {
			// A sandbox may forbid the socket: look at everything instead.
			w.m.Gaps = append(w.m.Gaps, Gap{Path: "/sys", Reason: "device events are not heard: " + reason(err)})
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
				if ctx.Err() != nil { // both ended, and this was seen first
					return nil
				}
				return errors.New("device events ended")
			}
			changes = w.apply(append(burst(ctx, events), e))
		case line, ok := <-records:
			if !ok {
				records = nil
				continue
			}
			changes = w.kernelRecord(line)
		case <-tick.C:
			if w.live && events == nil {
				changes = w.again()
			}
			changes = append(changes, w.poll()...)
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
	// counters are those of wear at the last look.
	counters map[string]int
	live     bool // the running machine: its device nodes can be looked at
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
				// What its driver splits is reported elsewhere, and changes together.
				a := w.m.Accelerator(address)
				whole = whole || a != nil && a.Driver == "amdgpu"
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
		clean(reflect.ValueOf(&s.m.Interfaces))
	}
	if disks {
		s.m.Disks = nil
		s.disks()
		clean(reflect.ValueOf(&s.m.Disks))
	}
	if usb {
		w.refreshUSB(s)
	}
	return Differences(before, w.m)
}

// again remaps the whole machine; devices keep their names.
func (w *watcher) again() []Change {
	before := w.m
	after := discover(w.tree, nil)
	for i := range before.Accelerators {
		old := before.Accelerators[i]
		if after.Accelerator(old.Address) == nil {
			after.Accelerators = append(after.Accelerators, lost(old))
		}
	}
	renumber(after, before)
	w.m = after
	return Differences(before, after)
}

// poll checks what no event reports: width of the links, error counts,
// devices that no longer answer.
func (w *watcher) poll() []Change {
	before := w.m
	s := w.edit()
	for i := range s.m.Accelerators {
		a := &s.m.Accelerators[i]
		d := s.m.Device(a.Function())
		if a.Bus != "pci" || d == nil || a.Health.State == "lost" {
			continue
		}
		dir := pciDir + "/" + a.Function()
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
			a.Health = silenced()
			continue
		}
		if link := s.pciLink(dir + "/current_link_"); link != nil && d.Best != nil {
			d.Link = link
			if d.Degraded = degraded(*link, *d.Best, s.m.Device(d.Parent)); d.Degraded {
				a.Health.State = "degraded"
				a.Health.Reasons = append(a.Health.Reasons, fmt.Sprintf(linkReason+"x%d of x%d", link.Width, d.Best.Width))
			}
		}
		s.errorCounters(a, dir)
	}
	return append(Differences(before, w.m), w.wear(s)...)
}

const slowedByHeat = "slowed down by heat"

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// wear looks at counters of the whole machine that only ever rise: how often
// heat slowed a package down, and errors of the memory controllers. The first
// look only takes them down.
func (w *watcher) wear(s *scan) []Change {
	now := map[string]int{}
	for _, p := range s.m.Packages {
		if n, ok := s.integer(cpuPath(p.CPUs.First(), "thermal_throttle/package_throttle_count")); ok {
			now[fmt.Sprintf("package%d %s", p.ID, slowedByHeat)] = n
		}
	}
	const edac = "/sys/devices/system/edac/mc"
	for _, id := range s.numbered(edac, "mc").IDs() {
		at := fmt.Sprintf("%s/mc%d", edac, id)
		for file, what := range map[string]string{"ue_count": "uncorrectable memory error", "ce_count": "corrected memory error"} {
			if n, ok := s.integer(at + "/" + file); ok {
				now[fmt.Sprintf("mc%d %s", id, what)] = n
			}
		}
	}
	var changes []Change
	for _, name := range slices.Sorted(maps.Keys(now)) {
		if was, ok := w.counters[name]; ok && now[name] > was {
			device, what, _ := strings.Cut(name, " ")
			reason := MemoryError
			if strings.HasPrefix(what, slowedByHeat) {
				reason = SlowedByHeat
			}
			changes = append(changes, NewChange(reason, device, fmt.Sprintf("%s, %s since the last look", what, times(now[name]-was))))
		}
	}
	w.counters = now
	return changes
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
