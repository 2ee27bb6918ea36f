package metrics

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"oscine.dev/oscine/internal/printable"
)

// family is one metric: its name without oscine_, its labels and what it means.
type family struct {
	name   string
	kind   prometheus.ValueType // 0: a histogram
	labels []string
	help   string
}

const histogramKind prometheus.ValueType = 0

func (f *family) fullName() string { return "oscine_" + f.name }

func (f *family) desc() *prometheus.Desc {
	return prometheus.NewDesc(f.fullName(), f.help, f.labels, nil)
}

// The labels of more than one metric.
func objectLabels(more ...string) []string { return append([]string{"kind", "name"}, more...) }
func containerLabels(more ...string) []string {
	return objectLabels(append([]string{"class"}, more...)...)
}

// families lists every metric. docs/metrics.md shows the same.
func families() []family {
	const counter, gauge = prometheus.CounterValue, prometheus.GaugeValue
	device, class, model := []string{"device"}, []string{"class"}, []string{"model"}
	return []family{
		{"build_info", gauge, []string{"version", "kernel", "mode"}, "Always 1; the release, the kernel and how the node runs (image or hosted)."},
		{"boot_time_seconds", gauge, nil, "When the kernel started, in seconds since 1970."},
		{"certificate_expiry_time_seconds", gauge, nil, "When the node's own certificate expires, in seconds since 1970."},
		{"missing_guarantees", gauge, nil, "Guarantees that this host cannot give; oscine info lists them."},
		{"cpus", gauge, nil, "CPUs that are online."},
		{"reserved_cpus", gauge, nil, "CPUs that real-time workloads have for themselves."},
		{"memory_bytes", gauge, []string{"numa_node"}, "Memory of a NUMA node."},
		{"memory_used_bytes", gauge, []string{"numa_node"}, "Memory of a NUMA node in use."},
		{"data_size_bytes", gauge, nil, "Size of the data partition."},
		{"data_free_bytes", gauge, nil, "Free space on the data partition, including what is reserved for the system."},
		{"data_inodes", gauge, nil, "Files and folders that the data partition has room for."},
		{"data_free_inodes", gauge, nil, "Files and folders that can still be created on the data partition."},
		{"objects_left_out", gauge, nil, "Objects that are in no metric, because there are more than a scrape shows."},
		{"slot_info", gauge, []string{"slot", "version", "health", "running"}, "Always 1; what each slot of the machine's disk holds: good, trial, bad, staged or empty."},
		{"upgrade_info", gauge, []string{"to", "stage"}, "Always 1; the upgrade that is under way."},
		{"upgrades_ended_total", counter, []string{"outcome"}, "Upgrades that ended as good, failed or cancelled, since the machine was installed."},
		{"upgrade_locks", gauge, nil, "Locks that keep the machine from restarting for an upgrade."},
		{"release_received_bytes_total", counter, []string{"from"}, "Bytes of releases that were downloaded from a peer or the source, since the daemon started."},
		{"release_sent_bytes_total", counter, nil, "Bytes of releases that were sent to peers, since the daemon started."},
		{"release_shared_bytes", gauge, nil, "What files of releases that are kept for peers take of the data partition."},

		{"object_phase", gauge, objectLabels("phase"), "1 for the phase that an object is in, 0 for the others."},
		{"object_restarts_total", counter, objectLabels(), "Starts after the first, since the daemon started."},
		{"object_start_time_seconds", gauge, objectLabels(), "When the running process started, in seconds since 1970."},

		{"container_cpu_usage_seconds_total", counter, containerLabels(), "CPU time used since the cgroup was made."},
		{"container_cpu_throttled_seconds_total", counter, containerLabels(), "Time held back by its own CPU limit."},
		{"container_memory_usage_bytes", gauge, containerLabels(), "Memory charged to it, pages of files too."},
		{"container_memory_limit_bytes", gauge, containerLabels(), "Its memory limit, if it has one."},
		{"container_memory_limit_hits_total", counter, containerLabels(), "Times that its memory limit made it give memory back."},
		{"container_oom_kills_total", counter, containerLabels(), "Processes killed at its memory limit."},
		{"container_processes", gauge, containerLabels(), "Processes and threads."},
		{"container_forks_refused_total", counter, containerLabels(), "Processes and threads refused at its bound."},
		{"container_pressure_waiting_seconds_total", counter, containerLabels("resource"), "Time in which some of its threads waited for cpu, memory or io."},
		{"container_pressure_stalled_seconds_total", counter, containerLabels("resource"), "Time in which all of its threads waited for cpu, memory or io."},
		{"container_promises", gauge, containerLabels(), "Promises made to it; oscine describe lists them."},
		{"container_promises_broken", gauge, containerLabels(), "Promises that do not hold now."},
		{"container_wakeup_latency_seconds", histogramKind, containerLabels(), "How long its threads waited for a processor after they were woken."},
		{"container_wakeups_missed_total", counter, containerLabels(), "Wake-ups that took longer than its latency."},

		{"model_ready", gauge, model, "1 while the model answers requests; on demand also before it is loaded."},
		{"model_requests_total", counter, append(model, "result"), "Inferences answered, by result: success, error, or expired (its timeout had passed before it was computed, or would have)."},
		{"model_deadline_misses_total", counter, model, "Inferences answered after the model's latency or their own timeout."},
		{"model_instances", gauge, model, "Workers that the model is to have."},
		{"model_instances_ready", gauge, model, "Of those, the ones that have loaded the model."},
		{"model_runs_total", counter, model, "Runs of the engine, each for one request or several, as its workers last said."},
		{"model_rows_total", counter, model, "Rows that the engine computed; divided by the runs they are the mean batch."},
		{"model_queue_duration_seconds_total", counter, model, "Time that computed requests waited, from their arrival to their run."},
		{"model_loads_total", counter, model, "Times that a worker loaded the model."},
		{"model_evictions_total", counter, model, "Times that the model was unloaded to make room for another one."},
		{"model_pending_requests", gauge, model, "Requests that wait for a slot or for their run."},
		{"model_compute_seconds_total", counter, model, "Time inside the engine, as its workers last said."},
		{"model_prompt_tokens_total", counter, model, "Prompt tokens that a language model processed, without those in its cache, as its worker last reported."},
		{"model_generated_tokens_total", counter, model, "Tokens that a language model generated, as its worker last reported."},
		{"model_cache_hits_total", counter, model, "Requests answered from the model's response cache."},
		{"model_cache_misses_total", counter, model, "Requests looked for in the model's response cache in vain."},
		{"model_cache_hit_duration_seconds_total", counter, model, "Time of looking for, and answering, the requests in the response cache."},
		{"model_cache_miss_duration_seconds_total", counter, model, "Time of looking in vain for requests in the response cache."},
		{"model_cache_bytes", gauge, model, "Responses that the model's cache keeps."},
		{"model_sequences", gauge, model, "Sequences whose state is kept."},
		{"model_request_duration_seconds", histogramKind, model, "Time of successful inferences inside the node."},
		{"client_requests_total", counter, []string{"client", "result"}, "Requests of each client with a token, by result: admitted, or refused (by the token's bounds)."},

		{"class_cpu_usage_seconds_total", counter, class, "CPU time used by a class."},
		{"class_memory_usage_bytes", gauge, class, "Memory charged to a class."},
		{"class_processes", gauge, class, "Processes and threads of a class."},
		{"class_pressure_waiting_seconds_total", counter, append(class, "resource"), "Time in which some threads of a class waited for cpu, memory or io."},
		{"class_pressure_stalled_seconds_total", counter, append(class, "resource"), "Time in which all threads of a class waited for cpu, memory or io."},
		{"batch_held_back", gauge, nil, "1 while batch work is throttled or frozen for interactive work."},

		{"device_info", gauge, []string{"device", "kind", "vendor", "model", "driver"}, "Always 1; what an accelerator is."},
		{"device_healthy", gauge, device, "1 while work can be given to the device."},
		{"device_holders", gauge, device, "Workloads and models that have the device or a part of it."},
		{"device_memory_bytes", gauge, device, "Memory of the device."},
		{"device_memory_used_bytes", gauge, device, "Memory of the device in use."},
		{"device_busy_ratio", gauge, device, "Fraction of time in which the device was busy, from 0 to 1."},
		{"device_temperature_celsius", gauge, device, "Temperature of the device."},
		{"device_power_watts", gauge, device, "Power that the device takes."},
	}
}

// maxLabel bounds the value of a label, in bytes.
const maxLabel = 128

// label makes a text from outside, such as a device's own name, the value of a
// label: printable and of bounded length. Quotes and backslashes are escaped by
// the formats themselves.
func label(text string) string {
	text = printable.Text(text)
	if len(text) <= maxLabel {
		return text
	}
	return strings.ToValidUTF8(text[:maxLabel], "")
}
