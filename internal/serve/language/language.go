package language

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"oscine.dev/oscine/internal/tensor"
)

// Names of the tensors. All have one element.
const (
	Path   = "path"   // BYTES: one of Paths
	Body   = "body"   // BYTES: JSON of the request, or a piece of the answer
	Status = "status" // INT32: of HTTP, the same in each part of an answer
)

// Paths of requests. Their bodies are those of OpenAI's API; Tokenize and
// Detokenize are the engine's own.
const (
	Chat        = "/v1/chat/completions"
	Completions = "/v1/completions"
	Responses   = "/v1/responses"
	Embeddings  = "/v1/embeddings"
	Rerank      = "/v1/rerank"
	Tokenize    = "/tokenize"
	Detokenize  = "/detokenize"
)

// Paths returns all paths.
func Paths() []string {
	return []string{Chat, Completions, Responses, Embeddings, Rerank, Tokenize, Detokenize}
}

// Inputs returns the inputs of a language model.
func Inputs() []tensor.Spec {
	return []tensor.Spec{{Name: Path, Type: tensor.Bytes, Shape: tensor.Shape{1}}, {Name: Body, Type: tensor.Bytes, Shape: tensor.Shape{1}}}
}

// Outputs returns the outputs of a language model. A part whose body is empty
// says only that the model is still at work.
func Outputs() []tensor.Spec {
	return []tensor.Spec{{Name: Status, Type: tensor.Int32, Shape: tensor.Shape{1}}, {Name: Body, Type: tensor.Bytes, Shape: tensor.Shape{1}}}
}

// Is reports whether a model with these tensors is a language model.
func Is(inputs, outputs []tensor.Spec) bool {
	return slices.EqualFunc(inputs, Inputs(), tensor.Spec.Equal) && slices.EqualFunc(outputs, Outputs(), tensor.Spec.Equal)
}

// ErrTensor is wrapped by the errors of reading tensors.
var ErrTensor = errors.New("not a tensor of a language model")

// Text reads a tensor of one byte string. The result shares its memory.
func Text(data []byte) (text []byte, err error) {
	err = tensor.Strings(data, 1, func(s []byte) error { text = s; return nil })
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTensor, err)
	}
	return text, nil
}

// AppendText appends a tensor of one byte string.
func AppendText(dst, text []byte) []byte { return tensor.AppendString(dst, text) }

// Code reads the tensor of a status.
func Code(data []byte) (int, error) {
	if len(data) != 4 {
		return 0, fmt.Errorf("%w: a status of %d bytes", ErrTensor, len(data))
	}
	code := int(int32(binary.LittleEndian.Uint32(data)))
	if code < 100 || code > 599 {
		return 0, fmt.Errorf("%w: the status %d", ErrTensor, code)
	}
	return code, nil
}

// AppendCode appends the tensor of a status.
func AppendCode(dst []byte, code int) []byte {
	return binary.LittleEndian.AppendUint32(dst, uint32(int32(code)))
}
