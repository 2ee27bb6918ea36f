package metrics

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// maxObjects bounds how many objects have metrics, and by that how many series
// there are.
const maxObjects = 1000

// collector reads a snapshot at each scrape.
type collector struct {
	source   func() Snapshot
	families map[string]family
	descs    map[string]*prometheus.Desc
}

func newCollector(source func() Snapshot) *collector {
	c := &collector{source: source, families: map[string]family{}, descs: map[string]*prometheus.Desc{}}
	for _, f := range families() {
		c.families[f.name], c.descs[f.name] = f, f.desc()
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	s := c.source()
	w := &writer{c, out}
	w.node(&s)
	w.upgrade(&s)
	for i := range s.Objects[:min(len(s.Objects), maxObjects)] {
		w.object(&s.Objects[i], s.Phases)
	}
	for i := range s.Models[:min(len(s.Models), maxObjects)] {
		w.model(&s.Models[i])
	}
	for _, c := range s.Clients[:min(len(s.Clients), maxObjects)] {
		w.value("client_requests_total", float64(c.Admitted), c.Name, "admitted")
		w.value("client_requests_total", float64(c.Refused), c.Name, "refused")
	}
	for i := range s.Classes {
		one := &s.Classes[i]
		w.usage("class", &one.Usage, one.Name)
	}
	for i := range s.Devices {
		w.device(&s.Devices[i])
	}
}

// writer hands metrics to one scrape.
type writer struct {
	*collector
	out chan<- prometheus.Metric
}

// value writes one series. A mistake in the table of families shows as an error
// of the scrape.
func (w *writer) value(name string, v float64, labels ...string) {
	f, d := w.families[name], w.descs[name]
	m, err := prometheus.NewConstMetric(d, f.kind, v, safe(labels)...)
	if err != nil {
		m = prometheus.NewInvalidMetric(d, err)
	}
	w.out <- m
}

func (w *writer) distribution(name string, bounds []time.Duration, values *Distribution, labels ...string) {
	buckets := map[float64]uint64{}
	for i, n := range values.Within {
		buckets[bounds[i].Seconds()] = n
	}
	d := w.descs[name]
	m, err := prometheus.NewConstHistogram(d, values.Count, values.Sum.Seconds(), buckets, safe(labels)...)
	if err != nil {
		m = prometheus.NewInvalidMetric(d, err)
	}
	w.out <- m
}

func safe(labels []string) []string {
	out := make([]string, len(labels))
	for i, l := range labels {
		out[i] = label(l)
	}
	return out
}

func (w *writer) upgrade(s *Snapshot) {
	if len(s.Slots) == 0 {
		return
	}
	for _, slot := range s.Slots {
		w.value("slot_info", 1, slot.Name, slot.Version, slot.Health, strconv.FormatBool(slot.Running))
	}
	if s.Upgrade.Stage != "" {
		w.value("upgrade_info", 1, s.Upgrade.To, s.Upgrade.Stage)
	}
	for _, outcome := range slices.Sorted(maps.Keys(s.Upgrade.Ended)) {
		w.value("upgrades_ended_total", float64(s.Upgrade.Ended[outcome]), outcome)
	}
	w.value("upgrade_locks", float64(s.Upgrade.Locks))
	w.value("release_received_bytes_total", float64(s.Upgrade.FromPeers), "peer")
	w.value("release_received_bytes_total", float64(s.Upgrade.FromSource), "source")
	if p := s.Upgrade.Shared; p != nil {
		w.value("release_sent_bytes_total", float64(p.Sent))
		w.value("release_shared_bytes", float64(p.Bytes))
	}
}

func (w *writer) node(s *Snapshot) {
	w.value("build_info", 1, s.Version, s.Kernel, s.Mode)
	if !s.CertificateEnd.IsZero() {
		w.value("certificate_expiry_time_seconds", float64(s.CertificateEnd.Unix()))
	}
	if !s.Booted.IsZero() {
		w.value("boot_time_seconds", float64(s.Booted.UnixMilli())/1000)
	}
	w.value("missing_guarantees", float64(s.Missing))
	w.value("cpus", float64(s.CPUs))
	w.value("reserved_cpus", float64(s.ReservedCPUs))
	for _, m := range s.Memory {
		w.value("memory_bytes", float64(m.Bytes), strconv.Itoa(m.Node))
		w.value("memory_used_bytes", float64(m.Used), strconv.Itoa(m.Node))
	}
	if d := s.Data; d.Bytes > 0 {
		w.value("data_size_bytes", float64(d.Bytes))
		w.value("data_free_bytes", float64(d.FreeBytes))
		w.value("data_inodes", float64(d.Inodes))
		w.value("data_free_inodes", float64(d.FreeInodes))
	}
	w.value("objects_left_out", float64(max(0, len(s.Objects)-maxObjects)))
	w.value("batch_held_back", truth(s.BatchHeldBack))
}

func (w *writer) object(o *Object, phases []string) {
	for _, p := range phases {
		w.value("object_phase", truth(p == o.Phase), o.Kind, o.Name, p)
	}
	w.value("object_restarts_total", float64(o.Restarts), o.Kind, o.Name)
	if !o.Started.IsZero() {
		w.value("object_start_time_seconds", float64(o.Started.UnixMilli())/1000, o.Kind, o.Name)
	}
	c := o.Container
	if c == nil {
		return
	}
	labels := []string{o.Kind, o.Name, c.Class}
	w.usage("container", &c.Usage, labels...)
	w.value("container_cpu_throttled_seconds_total", c.Throttled.Seconds(), labels...)
	if c.MemoryLimit > 0 {
		w.value("container_memory_limit_bytes", float64(c.MemoryLimit), labels...)
	}
	w.value("container_memory_limit_hits_total", float64(c.LimitHits), labels...)
	w.value("container_oom_kills_total", float64(c.Killed), labels...)
	w.value("container_forks_refused_total", float64(c.ForksRefused), labels...)
	w.value("container_promises", float64(c.Promises), labels...)
	w.value("container_promises_broken", float64(c.Broken), labels...)
	if c.Wakeups != nil {
		w.distribution("container_wakeup_latency_seconds", WakeupBounds(), c.Wakeups, labels...)
		w.value("container_wakeups_missed_total", float64(c.WakeupsMissed), labels...)
	}
}

// usage writes what containers and classes have in common.
func (w *writer) usage(of string, u *Usage, labels ...string) {
	w.value(of+"_cpu_usage_seconds_total", u.CPU.Seconds(), labels...)
	w.value(of+"_memory_usage_bytes", float64(u.Memory), labels...)
	w.value(of+"_processes", float64(u.Processes), labels...)
	for _, p := range u.Pressure {
		labelled := append(labels[:len(labels):len(labels)], p.Resource)
		w.value(of+"_pressure_waiting_seconds_total", p.Some.Seconds(), labelled...)
		w.value(of+"_pressure_stalled_seconds_total", p.All.Seconds(), labelled...)
	}
}

func (w *writer) model(m *Model) {
	w.value("model_ready", truth(m.Ready), m.Name)
	w.value("model_requests_total", float64(m.Requests-m.Errors), m.Name, "success")
	w.value("model_requests_total", float64(m.Errors-m.Expired), m.Name, "error")
	w.value("model_requests_total", float64(m.Expired), m.Name, "expired")
	w.value("model_deadline_misses_total", float64(m.Missed), m.Name)
	w.value("model_instances", float64(m.Instances), m.Name)
	w.value("model_instances_ready", float64(m.ReadyInstances), m.Name)
	w.value("model_runs_total", float64(m.Runs), m.Name)
	w.value("model_rows_total", float64(m.Rows), m.Name)
	w.value("model_queue_duration_seconds_total", m.Queued.Seconds(), m.Name)
	w.value("model_loads_total", float64(m.Loads), m.Name)
	w.value("model_evictions_total", float64(m.Evictions), m.Name)
	w.value("model_pending_requests", float64(m.Pending), m.Name)
	w.value("model_compute_seconds_total", m.Compute.Seconds(), m.Name)
	if m.PromptTokens > 0 || m.Generated > 0 {
		w.value("model_prompt_tokens_total", float64(m.PromptTokens), m.Name)
		w.value("model_generated_tokens_total", float64(m.Generated), m.Name)
	}
	if c := m.Cache; c != nil {
		w.value("model_cache_hits_total", float64(c.Hits), m.Name)
		w.value("model_cache_misses_total", float64(c.Misses), m.Name)
		w.value("model_cache_hit_duration_seconds_total", c.HitTime.Seconds(), m.Name)
		w.value("model_cache_miss_duration_seconds_total", c.MissTime.Seconds(), m.Name)
		w.value("model_cache_bytes", float64(c.Bytes), m.Name)
	}
	if m.Stateful {
		w.value("model_sequences", float64(m.Sequences), m.Name)
	}
	w.distribution("model_request_duration_seconds", RequestBounds(), &m.Durations, m.Name)
}

func (w *writer) device(d *Device) {
	w.value("device_info", 1, d.ID, d.Kind, d.Vendor, d.Model, d.Driver)
	w.value("device_healthy", truth(d.Healthy), d.ID)
	w.value("device_holders", float64(d.Held), d.ID)
	for name, v := range map[string]float64{
		"device_memory_bytes": d.Memory, "device_memory_used_bytes": d.MemoryUsed, "device_busy_ratio": d.Busy,
		"device_temperature_celsius": d.Celsius, "device_power_watts": d.Watts,
	} {
		if v >= 0 {
			w.value(name, v, d.ID)
		}
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
