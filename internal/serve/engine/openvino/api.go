package openvino

import (
	"fmt"
	"strings"

	"oscine.dev/oscine/internal/serve/engine/clib"
	"oscine.dev/oscine/internal/serve/worker"
	"oscine.dev/oscine/internal/tensor"
)

// Library is a loaded OpenVINO with its core.
type Library struct {
	core    uintptr
	version string

	lastError, free, coreCreate, readModel, modelFree, compile, compiledFree clib.Func
	inputsSize, outputsSize, inputAt, outputAt, portFree                     clib.Func
	anyName, elementType, partialShape, partialShapeFree                     clib.Func
	createRequest, requestFree, setInput, infer, cancel, getOutput           clib.Func
	startAsync, wait                                                         clib.Func
	tensorFromMemory, tensorFree, tensorShape, shapeFree                     clib.Func
	tensorBytes, tensorData, getVersion, versionFree                         clib.Func
}

// Load loads the library from a path, or by name from the system's paths. Its
// readers of formats and its plugin for the CPU are beside it.
func Load(path string) (*Library, error) {
	lib, err := clib.Load(path)
	if err != nil {
		return nil, err
	}
	l := new(Library)
	if err := lib.Bind(map[string]*clib.Func{
		"ov_get_last_err_msg": &l.lastError, "ov_free": &l.free, "ov_core_create": &l.coreCreate, "ov_core_read_model": &l.readModel,
		"ov_model_free": &l.modelFree, "ov_core_compile_model_props": &l.compile, "ov_compiled_model_free": &l.compiledFree,
		"ov_compiled_model_inputs_size": &l.inputsSize, "ov_compiled_model_outputs_size": &l.outputsSize,
		"ov_compiled_model_input_by_index": &l.inputAt, "ov_compiled_model_output_by_index": &l.outputAt, "ov_output_const_port_free": &l.portFree,
		"ov_port_get_any_name": &l.anyName, "ov_port_get_element_type": &l.elementType,
		"ov_port_get_partial_shape": &l.partialShape, "ov_partial_shape_free": &l.partialShapeFree,
		"ov_compiled_model_create_infer_request": &l.createRequest, "ov_infer_request_free": &l.requestFree,
		"ov_infer_request_set_input_tensor_by_index": &l.setInput, "ov_infer_request_infer": &l.infer, "ov_infer_request_cancel": &l.cancel,
		"ov_infer_request_start_async": &l.startAsync, "ov_infer_request_wait": &l.wait,
		"ov_infer_request_get_output_tensor_by_index": &l.getOutput,
		"ov_tensor_create_from_host_ptr":              &l.tensorFromMemory, "ov_tensor_free": &l.tensorFree,
		"ov_tensor_get_shape": &l.tensorShape, "ov_shape_free": &l.shapeFree,
		"ov_tensor_get_byte_size": &l.tensorBytes, "ov_tensor_data": &l.tensorData,
		"ov_get_openvino_version": &l.getVersion, "ov_version_free": &l.versionFree,
	}); err != nil {
		return nil, err
	}
	// ov_version_t: build number, description.
	version := clib.NewWords(2)
	if err := l.call(l.getVersion, version.Address()); err != nil {
		return nil, err
	}
	l.version, _, _ = strings.Cut(clib.Text(version[0]), "-")
	l.versionFree.Call(version.Address())
	out := clib.NewWords(1)
	if err := l.call(l.coreCreate, out.Address()); err != nil {
		return nil, fmt.Errorf("start OpenVINO: %w", err)
	}
	l.core = out[0]
	return l, nil
}

// cancelled is INFER_CANCELLED of ov_status_e.
const cancelled = -13

// call calls a function that returns an ov_status_e.
func (l *Library) call(f clib.Func, args ...uintptr) error {
	status := int32(f.Call(args...))
	if status == 0 {
		return nil
	}
	if status == cancelled {
		return fmt.Errorf("%w: the run was stopped", worker.ErrEngine)
	}
	// The text belongs to the thread, which may be another by now.
	message := plain(clib.Text(l.lastError.Call()))
	if message == "" {
		message = fmt.Sprintf("OpenVINO's status %d", status)
	}
	return fmt.Errorf("%w: %s", worker.ErrEngine, message)
}

// plain leaves out of OpenVINO's message the places in its own source and the
// conditions that did not hold, and takes the first lines of the rest.
func plain(message string) string {
	var lines []string
	for line := range strings.Lines(message) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "Exception from src/") || strings.HasPrefix(line, "Check '") && strings.Contains(line, "failed at src/") {
			continue
		}
		if lines = append(lines, strings.TrimSuffix(line, ":")); len(lines) == 4 {
			break
		}
	}
	return strings.Join(lines, ": ")
}

// types maps ov_element_type_e to the protocol's types.
var types = map[uint32]tensor.DataType{
	1: tensor.Bool, 2: tensor.BF16, 3: tensor.FP16, 4: tensor.FP32, 5: tensor.FP64, 7: tensor.Int8, 8: tensor.Int16, 9: tensor.Int32,
	10: tensor.Int64, 16: tensor.Uint8, 17: tensor.Uint16, 18: tensor.Uint32, 19: tensor.Uint64,
}

func elementOf(d tensor.DataType) uintptr {
	for element, t := range types {
		if t == d {
			return uintptr(element)
		}
	}
	return 0
}
