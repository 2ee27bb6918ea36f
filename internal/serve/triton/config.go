package triton

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"oscine.dev/oscine/internal/object"
	pb "oscine.dev/oscine/internal/serve/triton/modelconfigpb"
	"oscine.dev/oscine/internal/tensor"
)

// cacheBytes is the size of a response cache: Triton has one size for all models,
// on the command line of its server.
const cacheBytes = "64Mi"

// reading is one configuration on its way to a Model.
type reading struct {
	name    string // of the model's folder
	config  *pb.ModelConfig
	ignored []string // fields that the caller does without
	errs    []error
	without []string // fields with no effect
}

// bad notes a mistake that nothing but another configuration helps.
func (r *reading) bad(format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf("model %s: %s", r.name, fmt.Sprintf(format, args...)))
}

// refuse notes a field that is not supported, unless the caller does without it.
func (r *reading) refuse(field, format string, args ...any) {
	if r.ignores(field) {
		return
	}
	err := fmt.Errorf("model %s: %s is not supported: %s; --ignore %s imports the model without it", r.name, field, fmt.Sprintf(format, args...), field)
	if !slices.ContainsFunc(r.errs, func(other error) bool { return other.Error() == err.Error() }) {
		r.errs = append(r.errs, err)
	}
}

// ignores reports whether the caller does without a field that is set.
func (r *reading) ignores(field string) bool {
	ignored := slices.ContainsFunc(r.ignored, func(i string) bool { return field == i || strings.HasPrefix(field, i+".") })
	if ignored {
		r.leave(field)
	}
	return ignored
}

func (r *reading) ensemble() bool {
	return r.config.GetEnsembleScheduling() != nil || r.config.GetPlatform() == "ensemble"
}

// model is the configuration as a Model without name, version and source.
func (r *reading) model() *object.Model {
	c := r.config
	m := &object.Model{Header: object.Header{APIVersion: object.APIVersion, Kind: object.KindModel}}
	if c.GetName() != "" && c.GetName() != r.name {
		r.bad("name is %q: it must be the name of the folder, or left out", c.GetName())
	}
	if c.GetMaxBatchSize() < 0 {
		r.bad("max_batch_size is %d: it must be 0, for a model without batches, or more", c.GetMaxBatchSize())
	}
	r.walk(c.ProtoReflect(), "")
	if r.ensemble() {
		m.Spec.Ensemble = r.steps()
	} else {
		r.backend()
	}
	m.Spec.Instances, m.Spec.Resources.Devices = r.instances()
	m.Spec.Reshape = r.reshape()
	m.Spec.DynamicBatching = r.batching(&m.Spec.DefaultTimeout)
	m.Spec.SequenceBatching = r.sequences()
	if c.GetResponseCache().GetEnable() {
		switch {
		case m.Spec.Ensemble != nil:
			r.refuse("response_cache.enable", "an ensemble keeps no responses, the models of its steps may")
		case m.Spec.SequenceBatching != nil:
			r.refuse("response_cache.enable", "responses of a model with state depend on it")
		default:
			m.Spec.ResponseCache = &object.ResponseCache{Size: quantity(cacheBytes)}
		}
	}
	m.Spec.Options = r.options()
	r.parameters(m)
	return m
}

// backend refuses models that no pack reads.
func (r *reading) backend() {
	c := r.config
	asked := cmp.Or(c.GetPlatform(), c.GetBackend())
	if asked == "onnx" {
		r.bad("there is no backend %q: write backend: \"onnxruntime\" or platform: \"onnxruntime_onnx\"", asked)
	} else if _, known := backends[asked]; !known {
		r.bad("no pack of Oscine runs models of the backend %q: export the model to a format of docs/packs.md, such as ONNX, or leave the folder out", asked)
	}
}

// instances are how many workers the groups ask for, 0 for one, and the device that
// each needs: of several on one GPU each gets its share.
func (r *reading) instances() (instances int, devices []object.DeviceClaim) {
	groups := r.config.GetInstanceGroup()
	if r.ensemble() && len(groups) > 0 {
		r.leave("instance_group")
		return 0, nil
	}
	each, onGPU, onCPU := 1, false, false
	for _, g := range groups {
		count, gpus := max(int(g.GetCount()), 1), len(g.GetGpus())
		if gpus > 1 && r.ignores("instance_group.gpus") {
			gpus = 1
		}
		gpu := g.GetKind() == pb.ModelInstanceGroup_KIND_GPU || g.GetKind() == pb.ModelInstanceGroup_KIND_AUTO && gpus > 0
		if gpu && r.ignores("instance_group.kind") {
			gpu, gpus = false, 0
		}
		if onGPU, onCPU = onGPU || gpu, onCPU || !gpu; gpus > 0 {
			each = max(each, count)
		}
		instances += count * max(gpus, 1)
	}
	if instances < 2 || r.ignores("instance_group.count") {
		instances, each = 0, 1
	}
	if instances > object.MaxInstances {
		r.refuse("instance_group.count", "%d instances: a model has at most %d", instances, object.MaxInstances)
	}
	if onGPU && onCPU {
		r.refuse("instance_group.kind", "some instances on CPUs and some on GPUs: those of a model are alike; ignored, all are on CPUs")
	}
	if onGPU {
		claim := object.DeviceClaim{Name: "gpu", Selector: `device.driver == "gpu.nvidia.com"`}
		if each > 1 {
			claim.Fraction = &object.DeviceFraction{Share: quantity(fmt.Sprintf("%dm", 1000/each))}
		}
		devices = []object.DeviceClaim{claim}
	}
	return instances, devices
}

// reshape says which tensors clients know by other shapes than the model.
func (r *reading) reshape() *object.Reshape {
	out := &object.Reshape{}
	shape := func(dims []int64, to *pb.ModelTensorReshape) object.TensorReshape {
		return object.TensorReshape{Dims: r.whole(dims), Shape: r.whole(to.GetShape())}
	}
	for _, in := range r.config.GetInput() {
		if in.GetReshape() != nil && !r.ignores("input.reshape") {
			out.Inputs = set(out.Inputs, in.GetName(), shape(in.GetDims(), in.GetReshape()))
		}
	}
	for _, o := range r.config.GetOutput() {
		if o.GetReshape() != nil && !r.ignores("output.reshape") {
			out.Outputs = set(out.Outputs, o.GetName(), shape(o.GetDims(), o.GetReshape()))
		}
	}
	if len(out.Inputs)+len(out.Outputs) == 0 {
		return nil
	}
	return out
}

func set(m map[string]object.TensorReshape, name string, t object.TensorReshape) map[string]object.TensorReshape {
	if m == nil {
		m = map[string]object.TensorReshape{}
	}
	m[name] = t
	return m
}

// batching says how requests share runs; their default timeout goes to where it
// belongs.
func (r *reading) batching(timeout *object.Duration) *object.DynamicBatching {
	d := r.config.GetDynamicBatching()
	if d == nil {
		return nil
	}
	if level := d.GetDefaultPriorityLevel(); level != 0 && level != d.GetPriorityLevels() {
		r.refuse("dynamic_batching.default_priority_level", "%d of %d: requests without a priority come after those that name one of the first 99", level, d.GetPriorityLevels())
	}
	policy := d.GetDefaultQueuePolicy()
	if us := policy.GetDefaultTimeoutMicroseconds(); us > 0 {
		switch {
		case policy.GetTimeoutAction() == pb.ModelQueuePolicy_DELAY:
			r.refuse("dynamic_batching.default_queue_policy.timeout_action", "DELAY: a request whose timeout has passed is refused")
		case us < 1000 || us > uint64(time.Hour/time.Microsecond):
			r.refuse("dynamic_batching.default_queue_policy.default_timeout_microseconds", "%d: a default timeout is 1 ms to 1 h", us)
		default:
			*timeout = microseconds(us)
		}
	}
	if r.config.GetMaxBatchSize() < 1 { // Triton batches nothing then
		if *timeout == 0 {
			r.leave("dynamic_batching")
			return nil
		}
		if len(d.GetPreferredBatchSize()) > 0 {
			r.leave("dynamic_batching.preferred_batch_size")
		}
		if d.GetMaxQueueDelayMicroseconds() > 0 {
			r.leave("dynamic_batching.max_queue_delay_microseconds")
		}
		return nil
	}
	out := &object.DynamicBatching{MaxBatchSize: int(r.config.GetMaxBatchSize()), MaxQueueDelay: microseconds(d.GetMaxQueueDelayMicroseconds())}
	for _, n := range d.GetPreferredBatchSize() {
		if n < 1 || n > r.config.GetMaxBatchSize() {
			r.bad("dynamic_batching.preferred_batch_size %d: must be from 1 to max_batch_size, which is %d", n, r.config.GetMaxBatchSize())
		}
		out.PreferredBatchSizes = append(out.PreferredBatchSizes, int(n))
	}
	slices.Sort(out.PreferredBatchSizes)
	out.PreferredBatchSizes = slices.Compact(out.PreferredBatchSizes)
	return out
}

func microseconds(us uint64) object.Duration {
	return object.Duration(min(us, uint64(24*time.Hour/time.Microsecond)) * uint64(time.Microsecond))
}

// sequences says what state the model has.
func (r *reading) sequences() *object.SequenceBatching {
	s := r.config.GetSequenceBatching()
	if s == nil {
		return nil
	}
	if len(s.GetState()) == 0 {
		r.refuse("sequence_batching", "it names no state: the node keeps the tensors of sequence_batching.state, a model that keeps its own state cannot be told which sequence a request belongs to")
		return nil
	}
	out := &object.SequenceBatching{}
	if us := s.GetMaxSequenceIdleMicroseconds(); us > 0 && (us < 1000 || us > uint64(24*time.Hour/time.Microsecond)) {
		r.refuse("sequence_batching.max_sequence_idle_microseconds", "%d: a sequence ends after 1 ms to 24 h without a request", us)
	} else {
		out.MaxSequenceIdle = microseconds(us)
	}
	for _, state := range s.GetState() {
		kept := object.SequenceState{InputName: state.GetInputName(), OutputName: state.GetOutputName()}
		for _, initial := range state.GetInitialState() {
			if t := initial.GetDataType(); t != pb.DataType_TYPE_INVALID && state.GetDataType() != pb.DataType_TYPE_INVALID && t != state.GetDataType() {
				r.bad("sequence_batching.state %q is %s, its initial_state %s", state.GetInputName(), state.GetDataType(), t)
			}
		}
		if dims := state.GetDims(); len(dims) > 0 && !slices.ContainsFunc(dims, func(d int64) bool { return d < 1 }) {
			kept.Dims = r.whole(dims)
			if r.config.GetMaxBatchSize() > 0 {
				kept.Dims[0] = 1
			}
		}
		out.State = append(out.State, kept)
	}
	return out
}

// whole are dimensions with that of the batch, which a configuration leaves out
// where it has a max_batch_size.
func (r *reading) whole(dims []int64) []int64 {
	if r.config.GetMaxBatchSize() > 0 {
		return slices.Concat([]int64{-1}, dims)
	}
	return append([]int64{}, dims...) // never nil
}

// steps are those of an ensemble.
func (r *reading) steps() *object.Ensemble {
	out := &object.Ensemble{}
	for _, s := range r.config.GetEnsembleScheduling().GetStep() {
		step := object.EnsembleStep{ModelName: s.GetModelName(), InputMap: s.GetInputMap(), OutputMap: s.GetOutputMap()}
		if s.GetModelVersion() > 0 {
			step.ModelVersion = strconv.FormatInt(s.GetModelVersion(), 10)
		}
		out.Steps = append(out.Steps, step)
	}
	for _, o := range r.config.GetOutput() {
		out.Outputs = append(out.Outputs, o.GetName())
	}
	for _, in := range r.config.GetInput() {
		if !slices.ContainsFunc(out.Steps, func(s object.EnsembleStep) bool {
			return slices.Contains(slices.Collect(maps.Values(s.InputMap)), in.GetName())
		}) {
			r.bad("input %q is taken by no step of the ensemble", in.GetName())
		}
	}
	if len(out.Steps) == 0 {
		r.bad("is an ensemble without steps: ensemble_scheduling must have them")
	}
	return out
}

// options tell engines of formats that do not tell their tensors what the
// configuration says of them.
func (r *reading) options() map[string]string {
	c := r.config
	file := c.GetDefaultModelFilename()
	usual := backends[cmp.Or(c.GetPlatform(), c.GetBackend())]
	if !strings.HasPrefix(usual, "model.pt") && !strings.HasSuffix(file, ".pt") && !strings.HasSuffix(file, ".pt2") {
		return nil
	}
	options := map[string]string{}
	for name, list := range map[string][]configTensor{"inputs": list(c.GetInput()), "outputs": list(c.GetOutput())} {
		if len(list) == 0 {
			r.bad("has no %[1]s: PyTorch's models do not tell them, so its %[2]s must", strings.TrimSuffix(name, "s"), ConfigFile)
			continue
		}
		text, err := r.tensors(list)
		if err != nil {
			r.bad("%s: %v", strings.TrimSuffix(name, "s"), err)
		}
		options[name] = text
	}
	return options
}

// configTensor is an input or output of a configuration.
type configTensor interface {
	GetName() string
	GetDataType() pb.DataType
	GetDims() []int64
	GetReshape() *pb.ModelTensorReshape
}

func list[T configTensor](tensors []T) (list []configTensor) {
	for _, t := range tensors {
		list = append(list, t)
	}
	return list
}

// tensors writes inputs or outputs as the engines' options state them, in the order
// of the indices that Triton's convention for names, NAME__INDEX, ends with.
func (r *reading) tensors(list []configTensor) (string, error) {
	index := func(t configTensor) int {
		_, digits, _ := strings.Cut(t.GetName(), "__")
		n, err := strconv.ParseUint(digits, 10, 16)
		if err != nil {
			return -1
		}
		return int(n)
	}
	if !slices.ContainsFunc(list, func(t configTensor) bool { return index(t) < 0 }) {
		slices.SortStableFunc(list, func(a, b configTensor) int { return cmp.Compare(index(a), index(b)) })
	}
	var out []string
	for _, t := range list {
		kind, err := dataType(t.GetDataType())
		if err != nil {
			return "", fmt.Errorf("%s: %w", t.GetName(), err)
		}
		own := t.GetDims()
		if s := t.GetReshape(); s != nil {
			own = s.GetShape()
		}
		var dims []string
		for _, d := range r.whole(own) {
			dims = append(dims, strconv.FormatInt(d, 10))
		}
		out = append(out, fmt.Sprintf("%s:%s[%s]", t.GetName(), kind, strings.Join(dims, ",")))
	}
	return strings.Join(out, " "), nil
}

// configType is a type as configurations name it.
func configType(d tensor.DataType) pb.DataType {
	if d == tensor.Bytes {
		return pb.DataType_TYPE_STRING
	}
	return pb.DataType(pb.DataType_value["TYPE_"+d.String()])
}

// dataType is the protocol's name of a type.
func dataType(t pb.DataType) (string, error) {
	if t == pb.DataType_TYPE_INVALID {
		return "", errors.New("has no data_type")
	}
	if t == pb.DataType_TYPE_STRING {
		return "BYTES", nil
	}
	return strings.TrimPrefix(t.String(), "TYPE_"), nil
}

// parameters of Triton's backends that mean something to Oscine's engines.
var (
	threadCounts = []string{"intra_op_thread_count", "INTRA_OP_THREAD_COUNT", "INFERENCE_NUM_THREADS", "TF_NUM_INTRA_THREADS"}
	optionNames  = map[string]string{"TF_SIGNATURE_DEF": "signature"}
)

// parameters takes those that mean something to Oscine's engines.
func (r *reading) parameters(m *object.Model) {
	all := r.config.GetParameters()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		value := all[name].GetStringValue()
		switch option, known := optionNames[name]; {
		case known:
			if m.Spec.Options == nil {
				m.Spec.Options = map[string]string{}
			}
			m.Spec.Options[option] = value
		case slices.Contains(threadCounts, name):
			if n, err := strconv.Atoi(value); err != nil || n < 0 || n > 4096 {
				r.bad("parameters.%s must be a number of threads, got %q", name, value)
			} else if n > 0 && m.Spec.Ensemble == nil {
				m.Spec.Resources.CPU = quantity(strconv.Itoa(n)) // a thread for each
			}
		default:
			r.refuse("parameters."+name, "it is a parameter of Triton's backends")
		}
	}
}

// quantity is one that is known to be valid.
func quantity(text string) object.Quantity {
	q, _ := object.MakeQuantity(text)
	return q
}
