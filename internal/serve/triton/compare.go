package triton

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/serve/rows"
	pb "oscine.dev/oscine/internal/serve/triton/modelconfigpb"
)

// compare refuses a configuration that contradicts the ONNX model that it is for, as
// Triton does. A file that cannot be read is its engine's to refuse.
func (r *reading) compare(source string) {
	if !strings.EqualFold(filepath.Ext(source), ".onnx") {
		return
	}
	f, err := os.Open(source)
	if err != nil {
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return
	}
	inputs, outputs, err := rows.Ports(f, info.Size())
	if err != nil || len(outputs) == 0 {
		return
	}
	for _, t := range r.config.GetInput() {
		r.compareTensor("input", inputs, t)
	}
	for _, t := range r.config.GetOutput() {
		r.compareTensor("output", outputs, t)
	}
	for _, s := range r.config.GetSequenceBatching().GetState() {
		r.comparePort("sequence_batching.state.input_name", inputs, s.GetInputName(), s.GetDataType())
		r.comparePort("sequence_batching.state.output_name", outputs, s.GetOutputName(), s.GetDataType())
	}
}

// comparePort compares the name and type of a tensor with the model's.
func (r *reading) comparePort(field string, ports map[string]rows.Port, name string, kind pb.DataType) (port rows.Port, ok bool) {
	port, ok = ports[name]
	if !ok {
		r.bad("%s %q: the model has none of that name, it has %s", field, name, names(ports))
		return port, false
	}
	if own := configType(port.Type); own != pb.DataType_TYPE_INVALID && kind != pb.DataType_TYPE_INVALID && kind != own {
		r.bad("%s %q is %s, in the model it is %s", field, name, kind, own)
	}
	return port, true
}

// compareTensor compares an input or output with the model's.
func (r *reading) compareTensor(field string, ports map[string]rows.Port, t configTensor) {
	port, ok := r.comparePort(field, ports, t.GetName(), t.GetDataType())
	dims := t.GetDims()
	if s := t.GetReshape(); s != nil {
		dims = s.GetShape()
	}
	if !ok || port.Dims == nil || len(t.GetDims()) == 0 {
		return
	}
	whole := r.whole(dims)
	if !port.Dims.Matches(whole) {
		r.bad("%s %q has the dims %v, which with max_batch_size %d are %v; in the model it has %v", field, t.GetName(), dims, r.config.GetMaxBatchSize(), whole, []int64(port.Dims))
	}
}

// names lists the tensors of a model.
func names(ports map[string]rows.Port) string {
	list := slices.Sorted(maps.Keys(ports))
	if len(list) > 8 {
		list = append(list[:8], "…")
	}
	return strings.Join(list, ", ")
}
