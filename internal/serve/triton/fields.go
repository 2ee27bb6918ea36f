package triton

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// What becomes of a field that a configuration sets; any other text says why it is
// refused. A field that is in no list is refused.
const (
	taken  = "taken"
	within = "within" // its own fields say
	// without has no effect here and changes no answer: a hint for speed, a name.
	without = "without"
)

// fields has the fields of a configuration by their names and those above them.
var fields = map[string]string{
	"name": taken, "platform": taken, "backend": taken, "version_policy": taken, "max_batch_size": taken, "default_model_filename": taken,
	"input": within, "input.name": taken, "input.data_type": taken, "input.dims": taken, "input.format": without, "input.optional": "clients of Oscine send every input",
	"input.reshape":                 taken,
	"input.allow_ragged_batch":      "requests of different shapes share no run",
	"input.is_shape_tensor":         "only TensorRT has shape tensors",
	"input.is_non_linear_format_io": "only TensorRT has such formats",
	"output":                        within, "output.name": taken, "output.data_type": taken, "output.dims": taken, "output.label_filename": without,
	"output.reshape":                 taken,
	"output.is_shape_tensor":         "only TensorRT has shape tensors",
	"output.is_non_linear_format_io": "only TensorRT has such formats",
	"batch_input":                    "requests of different shapes share no run",
	"batch_output":                   "requests of different shapes share no run",

	"optimization": within, "optimization.graph": without, "optimization.priority": without, "optimization.cuda": without, "optimization.input_pinned_memory": without,
	"optimization.output_pinned_memory": without, "optimization.gather_kernel_buffer_threshold": without, "optimization.eager_batching": without,
	"optimization.execution_accelerators": "the node chooses the engine, or spec.engine does",

	"instance_group": within, "instance_group.name": without, "instance_group.kind": taken, "instance_group.count": taken, "instance_group.rate_limiter": without, "instance_group.host_policy": without,
	"instance_group.gpus":              taken,
	"instance_group.secondary_devices": "no engine that Oscine builds computes on such devices",
	"instance_group.profile":           "only TensorRT has profiles",
	"instance_group.passive":           "every model has a worker that answers",

	"dynamic_batching": within, "dynamic_batching.preferred_batch_size": taken, "dynamic_batching.max_queue_delay_microseconds": taken, "dynamic_batching.preserve_ordering": without,
	"dynamic_batching.priority_levels": without, "dynamic_batching.default_priority_level": taken,
	"dynamic_batching.default_queue_policy": within, "dynamic_batching.default_queue_policy.timeout_action": taken, "dynamic_batching.default_queue_policy.default_timeout_microseconds": taken,
	"dynamic_batching.default_queue_policy.allow_timeout_override": without,
	"dynamic_batching.default_queue_policy.max_queue_size":         "the node bounds what waits for a model by bytes and by client",
	"dynamic_batching.priority_queue_policy":                       "all priorities of a model share one queue",

	"sequence_batching": within, "sequence_batching.direct": within, "sequence_batching.direct.max_queue_delay_microseconds": without, "sequence_batching.direct.minimum_slot_utilization": without,
	"sequence_batching.max_sequence_idle_microseconds": taken,
	"sequence_batching.oldest":                         "sequences are computed each by itself, as with direct",
	"sequence_batching.control_input":                  "the node does not tell a model where a sequence begins and ends",
	"sequence_batching.iterative_sequence":             "a request is computed once",
	"sequence_batching.state":                          within, "sequence_batching.state.input_name": taken, "sequence_batching.state.output_name": taken, "sequence_batching.state.data_type": taken, "sequence_batching.state.dims": taken,
	"sequence_batching.state.use_same_buffer_for_input_output": without, "sequence_batching.state.use_growable_memory": without,
	"sequence_batching.state.initial_state": within, "sequence_batching.state.initial_state.data_type": taken, "sequence_batching.state.initial_state.dims": taken,
	"sequence_batching.state.initial_state.zero_data": taken, "sequence_batching.state.initial_state.name": taken,
	"sequence_batching.state.initial_state.data_file": "a state is zero at its sequence's start",

	"ensemble_scheduling": within, "ensemble_scheduling.max_inflight_requests": without,
	"ensemble_scheduling.step": within, "ensemble_scheduling.step.model_name": taken, "ensemble_scheduling.step.model_version": taken, "ensemble_scheduling.step.input_map": taken,
	"ensemble_scheduling.step.output_map": taken, "ensemble_scheduling.step.model_namespace": "a node has one name for each model",

	"response_cache": within, "response_cache.enable": taken,
	"parameters":               taken,
	"model_warmup":             without, // every model is run when it is loaded
	"metric_tags":              without,
	"model_metrics":            without,
	"model_transaction_policy": within, "model_transaction_policy.decoupled": "which models stream their answers their engines say",
	"model_repository_agents": "nothing is run over a model before it is loaded",
	"model_operations":        "engines load no libraries with a model",
	"cc_model_filenames":      "there is one file for all GPUs",
	"runtime":                 "the node chooses the engine, or spec.engine does",
}

// checkIgnored refuses fields that a configuration does not have.
func checkIgnored(ignored []string) (errs []error) {
	for _, field := range ignored {
		if _, known := fields[field]; !known && !strings.HasPrefix(field, "parameters.") {
			errs = append(errs, fmt.Errorf("--ignore %s: config.pbtxt has no such field: write it as the error that refuses it does", field))
		}
	}
	return errs
}

// walk decides on all fields that a message sets.
func (r *reading) walk(message protoreflect.Message, above string) {
	list := message.Descriptor().Fields()
	for i := range list.Len() {
		d := list.Get(i)
		if !message.Has(d) {
			continue
		}
		field, value := strings.TrimPrefix(above+"."+string(d.Name()), "."), message.Get(d)
		switch verdict := fields[field]; verdict {
		case taken:
		case without:
			r.leave(field)
		case within:
			if !d.IsList() {
				r.walk(value.Message(), field)
				break
			}
			for i := range value.List().Len() {
				r.walk(value.List().Get(i).Message(), field)
			}
		case "":
			r.refuse(field, "this release does not know it")
		default:
			r.refuse(field, "%s", verdict)
		}
	}
}

// leave notes a field that has no effect.
func (r *reading) leave(field string) {
	if !slices.Contains(r.without, field) {
		r.without = append(r.without, field)
		slices.Sort(r.without)
	}
}
