package node

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/isolate"
	"oscine.dev/oscine/internal/metrics"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/update/slot"
)

// loadTimeout is how long a scrape waits for the drivers' report about devices.
const loadTimeout = 2 * time.Second

// phases are all that an object may be in.
func phases() []string {
	var all []string
	for _, p := range object.Phases() {
		all = append(all, string(p))
	}
	return all
}

// Metrics answers Prometheus.
func (n *Node) Metrics() http.Handler { return metrics.Handler(n.snapshot) }

// snapshot reads what a scrape shows.
func (n *Node) snapshot() metrics.Snapshot {
	up, err := kernelUptime()
	s := metrics.Snapshot{
		Version: n.config.Version, Kernel: kernelRelease(), Mode: string(n.config.Mode), Phases: phases(),
		Missing: len(n.runtime.Missing()) + len(n.isolator.Gaps()), ReservedCPUs: n.isolator.Reserved().Len(),
		CertificateEnd: n.identity.Leaf().NotAfter,
		BatchHeldBack:  n.isolator.HeldBack() != "", Data: dataMetrics(n.config.StateDir),
	}
	if err == nil {
		s.Booted = time.Now().Add(-up)
	}
	held := map[string]int{} // objects, by device
	s.Objects, s.Models = n.objectMetrics(held)
	if n.tokens != nil {
		all, used := n.tokens.All()
		for i := range all {
			s.Clients = append(s.Clients, metrics.Client{Name: all[i].Name, Admitted: used[i].Requests, Refused: used[i].Refused})
		}
	}
	for _, c := range []object.Class{isolate.System, isolate.Realtime, isolate.Interactive, isolate.Batch} {
		s.Classes = append(s.Classes, metrics.Class{Name: string(c), Usage: usageMetrics(n.isolator.ClassUsage(c))})
	}
	n.machineMetrics(&s, held)
	n.upgradeMetrics(&s)
	return s
}

func (n *Node) upgradeMetrics(s *metrics.Snapshot) {
	slots, ok := n.upgrades.Known()
	if !ok {
		return
	}
	for _, v := range []slot.Version{slots.Active, slots.Idle} {
		s.Slots = append(s.Slots, metrics.Slot{Name: v.Slot, Version: v.Version, Health: string(v.Health), Running: v.Running})
	}
	s.Upgrade = metrics.Upgrade{Locks: n.upgrades.Held(), Ended: map[string]int{}}
	s.Upgrade.FromPeers, s.Upgrade.FromSource = n.upgrades.Received()
	if n.sharing != nil {
		s.Upgrade.Shared = &metrics.Shared{Sent: n.sharing.Sent(), Bytes: n.sharing.Cache.Bytes()}
	}
	for stage, count := range n.upgrades.Ended() {
		s.Upgrade.Ended[string(stage)] = count
	}
	if u := n.upgrades.Current(); u != nil {
		s.Upgrade.To, s.Upgrade.Stage = u.To, string(u.Stage)
	}
}

func (n *Node) objectMetrics(held map[string]int) (objects []metrics.Object, models []metrics.Model) {
	for _, state := range n.loop.Get("", "") {
		st := state.Status.Common()
		o := metrics.Object{Kind: string(state.Kind), Name: state.Name, Phase: string(st.Phase), Restarts: st.Restarts, Container: n.containersMetrics(state)}
		if st.StartedAt != nil {
			o.Started = *st.StartedAt
		}
		for _, placement := range placementsOf(state.Status) {
			for _, d := range placement.Devices {
				held[d]++
			}
		}
		objects = append(objects, o)
		if state.Kind == object.KindModel {
			if served, err := n.registry.Status(state.Name); err == nil { // else it is not served now
				models = append(models, n.modelMetrics(&served))
			}
		}
	}
	return objects, models
}

// placementsOf are those of an object, or of a model's instances.
func placementsOf(status object.Status) (all []*object.PlacementStatus) {
	if st, ok := status.(*object.ModelStatus); ok && len(st.Instances) > 0 {
		for i := range st.Instances {
			if p := st.Instances[i].Placement; p != nil {
				all = append(all, p)
			}
		}
		return all
	}
	if p := status.Common().Placement; p != nil {
		all = append(all, p)
	}
	return all
}

// containersMetrics is what the processes of an object's instances use together, nil
// before one starts.
func (n *Node) containersMetrics(state object.State) (all *metrics.Container) {
	instances := 1
	if m, ok := state.Object.(*object.Model); ok {
		instances = max(m.Workers(), 1)
	}
	for i := range instances {
		switch one := n.containerMetrics(object.InstanceKey(state.Key, i)); {
		case one == nil:
		case all == nil:
			all = one
		default:
			all.Add(one)
		}
	}
	return all
}

// containerMetrics is what an object's processes use, nil before they start.
func (n *Node) containerMetrics(key object.Key) *metrics.Container {
	u, err := n.isolator.Usage(key.ID(), metrics.WakeupBounds())
	if err != nil {
		return nil
	}
	c := &metrics.Container{
		Usage: usageMetrics(u.Usage), Class: string(u.Class), MemoryLimit: u.MemoryLimit,
		LimitHits: u.Reclaimed, Killed: u.Killed, ForksRefused: u.ForksRefused, Promises: u.Promises, Broken: u.Broken,
	}
	if w := u.Wakeups; w != nil {
		c.Wakeups, c.WakeupsMissed = &metrics.Distribution{Count: w.Count, Sum: w.Sum, Within: w.Within}, w.Missed
	}
	return c
}

func usageMetrics(u isolate.Usage) metrics.Usage {
	m := metrics.Usage{CPU: u.CPUTime, Throttled: u.Throttled, Memory: u.Memory, Processes: u.Processes}
	for _, resource := range slices.Sorted(maps.Keys(u.Pressure)) {
		p := u.Pressure[resource]
		m.Pressure = append(m.Pressure, metrics.Pressure{Resource: resource, Some: time.Duration(p.Some), All: time.Duration(p.Full)})
	}
	return m
}

func (n *Node) modelMetrics(st *core.Status) metrics.Model {
	m := metrics.Model{Name: st.Name, Ready: st.Answers(), Loads: st.Loads, Evictions: st.Evicted, Requests: st.Requests, Errors: st.Errors, Expired: st.Expired, Missed: st.Missed,
		Rows: st.Rows, Queued: st.Queued, Pending: st.Pending}
	m.Instances = len(st.Instances)
	for _, in := range st.Instances {
		if in.State == core.Ready {
			m.ReadyInstances++
		}
	}
	m.Stateful, m.Sequences = len(st.Sequencing.States) > 0, st.Sequences
	if c := st.Cache; c.On {
		m.Cache = &metrics.Cache{Hits: c.Hits, Misses: c.Misses, Bytes: c.Bytes, HitTime: c.HitTime, MissTime: c.MissTime}
	}
	if d, err := n.registry.Durations(st.Name, metrics.RequestBounds()); err == nil { // or it has just gone
		m.Durations = metrics.Distribution{Count: d.Count, Sum: d.Sum, Within: d.Within}
	}
	if w, err := n.registry.Work(st.Name); err == nil {
		m.Runs, m.Compute = max(0, w.Runs), time.Duration(max(0, w.ComputeNS))
		m.PromptTokens, m.Generated = max(0, w.PromptTokens), max(0, w.GeneratedTokens)
	}
	return m
}

// machineMetrics is what the map of the machine and its load say.
func (n *Node) machineMetrics(s *metrics.Snapshot, held map[string]int) {
	m := n.live.Machine()
	if m == nil { // in the first moment
		return
	}
	ctx, cancel := context.WithTimeout(n.life, loadTimeout)
	defer cancel()
	load, err := n.live.Load(ctx)
	if err != nil {
		n.log.Warn("metrics", "error", err)
	}
	s.CPUs = m.Online.Len()
	for _, node := range m.Nodes {
		s.Memory = append(s.Memory, metrics.NodeMemory{Node: node.ID, Bytes: int64(node.Bytes), Used: int64(load.Used[node.ID])})
	}
	for i := range m.Accelerators {
		s.Devices = append(s.Devices, deviceMetrics(&m.Accelerators[i], load, held))
	}
}

func deviceMetrics(a *hardware.Accelerator, load hardware.Load, held map[string]int) metrics.Device {
	known := func(v float64) float64 {
		if v == 0 {
			return -1
		}
		return v
	}
	d := metrics.Device{ID: a.ID, Kind: a.Kind, Vendor: a.Vendor, Model: a.Model, Driver: a.Driver, Healthy: a.Usable(),
		Held: held[a.ID], Memory: known(float64(a.Memory)), MemoryUsed: -1, Busy: -1, Celsius: -1, Watts: -1}
	for _, p := range a.Partitions {
		d.Held += held[p.ID]
	}
	if l, ok := load.Devices[a.ID]; ok {
		d.MemoryUsed, d.Busy, d.Celsius, d.Watts = known(float64(l.Used)), l.Busy, known(l.Celsius), known(l.Watts)
	}
	return d
}

func dataMetrics(dir string) metrics.FileSystem {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return metrics.FileSystem{}
	}
	block := uint64(st.Frsize)
	return metrics.FileSystem{Bytes: st.Blocks * block, FreeBytes: st.Bfree * block, Inodes: st.Files, FreeInodes: st.Ffree}
}
