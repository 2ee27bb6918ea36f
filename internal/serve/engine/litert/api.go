package litert

import (
	"fmt"
	"unsafe"

	"github.com/ebitengine/purego"

	"oscine.dev/oscine/internal/serve/engine/clib"
	"oscine.dev/oscine/internal/serve/worker"
	"oscine.dev/oscine/internal/tensor"
)

// Version is the version of LiteRT whose C API this package calls.
const Version = "2.3.0"

// Library is a loaded LiteRT with its environment.
type Library struct {
	env uintptr

	keep uintptr // a function that destroys nothing

	createEnvironment, createModel, destroyModel                 clib.Func
	countSignatures, getSignature, signatureKey                  clib.Func
	countInputs, inputName, inputTensor                          clib.Func
	countOutputs, outputName, outputTensor, rankedType           clib.Func
	createOptions, setAccelerators, createOpaque, addOpaque      clib.Func
	destroyOptions, createCompiled, destroyCompiled, resize, run clib.Func
	outputLayouts, createBuffer, destroyBuffer                   clib.Func
}

// Load loads the library from a path, or by name from the system's paths.
func Load(path string) (*Library, error) {
	lib, err := clib.Load(path)
	if err != nil {
		return nil, err
	}
	l := &Library{keep: purego.NewCallback(func(uintptr) uintptr { return 0 })}
	if err := lib.Bind(map[string]*clib.Func{
		"LiteRtCreateEnvironment": &l.createEnvironment, "LiteRtCreateModelFromFile": &l.createModel, "LiteRtDestroyModel": &l.destroyModel,
		"LiteRtGetNumModelSignatures": &l.countSignatures, "LiteRtGetModelSignature": &l.getSignature, "LiteRtGetSignatureKey": &l.signatureKey,
		"LiteRtGetNumSignatureInputs": &l.countInputs, "LiteRtGetSignatureInputName": &l.inputName, "LiteRtGetSignatureInputTensorByIndex": &l.inputTensor,
		"LiteRtGetNumSignatureOutputs": &l.countOutputs, "LiteRtGetSignatureOutputName": &l.outputName, "LiteRtGetSignatureOutputTensorByIndex": &l.outputTensor,
		"LiteRtGetRankedTensorType": &l.rankedType,
		"LiteRtCreateOptions":       &l.createOptions, "LiteRtSetOptionsHardwareAccelerators": &l.setAccelerators,
		"LiteRtCreateOpaqueOptions": &l.createOpaque, "LiteRtAddOpaqueOptions": &l.addOpaque, "LiteRtDestroyOptions": &l.destroyOptions,
		"LiteRtCreateCompiledModel": &l.createCompiled, "LiteRtDestroyCompiledModel": &l.destroyCompiled,
		"LiteRtCompiledModelResizeInputTensor": &l.resize, "LiteRtRunCompiledModel": &l.run,
		"LiteRtGetCompiledModelOutputTensorLayouts": &l.outputLayouts,
		"LiteRtCreateTensorBufferFromHostMemory":    &l.createBuffer, "LiteRtDestroyTensorBuffer": &l.destroyBuffer,
	}); err != nil {
		return nil, err
	}
	out := clib.NewWords(1)
	if err := call(l.createEnvironment, 0, 0, out.Address()); err != nil {
		return nil, fmt.Errorf("start LiteRT: %w", err)
	}
	l.env = out[0]
	return l, nil
}

// call calls a function that returns a LiteRtStatus, of which the library's log
// says more.
func call(f clib.Func, args ...uintptr) error {
	switch status := uint32(f.Call(args...)); status {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("%w: invalid argument", worker.ErrEngine)
	case 2:
		return fmt.Errorf("%w: out of memory", worker.ErrEngine)
	case 3:
		return fmt.Errorf("%w: LiteRT cannot run the model: oscine logs of it says why", worker.ErrEngine)
	case 5:
		return fmt.Errorf("%w: LiteRT does not support it", worker.ErrEngine)
	case 100:
		return fmt.Errorf("%w: the run was cancelled", worker.ErrEngine)
	case 500, 501, 502, 503, 504:
		return fmt.Errorf("%w: not a model that LiteRT can load", worker.ErrEngine)
	default:
		return fmt.Errorf("%w: LiteRT's status %d", worker.ErrEngine, status)
	}
}

// Layout of LiteRtRankedTensorType, in 32-bit words: the element's type, a word
// with the rank in its first 7 bits, the dimensions and the strides, which are
// not used here. LiteRtLayout is the same without the first.
const (
	maxRank     = 8
	layoutWords = 1 + 2*maxRank
	typeWords   = 1 + layoutWords
	rankMask    = 0x7f
)

// rankedType is memory for a LiteRtRankedTensorType.
type rankedType []uint32

func newRankedTypes(n int) rankedType {
	b := worker.NewBlock(4 * typeWords * max(n, 1))
	return words32(b)
}

// free gives the memory of what newRankedTypes returned back.
func (r rankedType) free() {
	worker.Block(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(r))), 4*len(r))).Free()
}

func (r rankedType) set(kind tensor.DataType, shape tensor.Shape) {
	clear(r[:typeWords])
	r[0], r[1] = elementType(kind), uint32(len(shape))
	for i, d := range shape {
		r[2+i] = uint32(int32(d))
	}
}

// shapeOf reads a LiteRtLayout.
func shapeOf(layout []uint32) (tensor.Shape, error) {
	rank := int(layout[0] & rankMask)
	if rank > maxRank {
		return nil, fmt.Errorf("has %d dimensions, at most %d can be served", rank, maxRank)
	}
	shape := make(tensor.Shape, rank)
	for i := range shape {
		shape[i] = max(int64(int32(layout[1+i])), -1)
	}
	return shape, nil
}

// types maps LiteRtElementType to the protocol's types.
var types = map[uint32]tensor.DataType{
	1: tensor.FP32, 2: tensor.Int32, 3: tensor.Uint8, 4: tensor.Int64, 6: tensor.Bool, 7: tensor.Int16, 9: tensor.Int8,
	10: tensor.FP16, 11: tensor.FP64, 13: tensor.Uint64, 16: tensor.Uint32, 17: tensor.Uint16, 19: tensor.BF16,
}

func elementType(d tensor.DataType) uint32 {
	for element, t := range types {
		if t == d {
			return element
		}
	}
	return 0
}
