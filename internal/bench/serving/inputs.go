package serving

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"

	"oscine.dev/oscine/internal/serve/oip"
	"oscine.dev/oscine/internal/tensor"
)

// InputOptions say what generated inputs look like.
type InputOptions struct {
	Batch  int                     // of the first dimension where it is open
	Shapes map[string]tensor.Shape // of inputs by name; others take 1 for what is open
	Seed   uint64
}

// maxRequest bounds what one generated request holds, in bytes.
const maxRequest = 256 << 20

// Inputs generates random inputs that a model's description accepts: floats
// from 0 to 1, the whole numbers 0 and 1 (which are rows of any table), bytes
// of any value, short words.
func Inputs(m *oip.Model, o InputOptions) ([]oip.Tensor, error) {
	random := rand.New(rand.NewPCG(o.Seed, 1))
	for name := range o.Shapes {
		if !has(m.Inputs, name) {
			return nil, fmt.Errorf("model %s has no input %q: it has %s", m.Name, name, describe(m.Inputs))
		}
	}
	var inputs []oip.Tensor
	total := 0
	for _, spec := range m.Inputs {
		shape, chosen := o.Shapes[spec.Name]
		if !chosen {
			shape = spec.Concrete(int64(o.Batch), 1)
		}
		if err := spec.Shape.Accepts(shape); err != nil {
			return nil, fmt.Errorf("input %q: %w", spec.Name, err)
		}
		size, err := spec.LeastBytes(shape)
		if err != nil {
			return nil, fmt.Errorf("input %q: %w", spec.Name, err)
		}
		if total += size; total > maxRequest {
			return nil, fmt.Errorf("inputs of more than %d bytes: choose a smaller batch or shape", maxRequest)
		}
		elements, err := shape.Elements()
		if err != nil {
			return nil, fmt.Errorf("input %q: %w", spec.Name, err)
		}
		inputs = append(inputs, oip.Tensor{Spec: tensor.Spec{Name: spec.Name, Type: spec.Type, Shape: shape}, Data: values(random, spec.Type, elements)})
	}
	return inputs, nil
}

func has(specs []tensor.Spec, name string) bool {
	for _, s := range specs {
		if s.Name == name {
			return true
		}
	}
	return false
}

// describe lists inputs as name TYPE[shape].
func describe(specs []tensor.Spec) string {
	words := make([]string, len(specs))
	for i, s := range specs {
		words[i] = fmt.Sprintf("%s %s%s", s.Name, s.Type, s.Shape)
	}
	return strings.Join(words, ", ")
}

func values(random *rand.Rand, kind tensor.DataType, elements int) []byte {
	data := make([]byte, 0, elements*max(kind.Size(), 8))
	order := binary.LittleEndian
	for range elements {
		switch f := random.Float32(); kind {
		case tensor.FP16:
			data = order.AppendUint16(data, 0x3800|uint16(random.Uint32()&0x3ff)) // from 0.5 to 1
		case tensor.BF16:
			data = order.AppendUint16(data, uint16(math.Float32bits(f)>>16))
		case tensor.FP32:
			data = order.AppendUint32(data, math.Float32bits(f))
		case tensor.FP64:
			data = order.AppendUint64(data, math.Float64bits(float64(f)))
		case tensor.Uint8:
			data = append(data, byte(random.Uint32()))
		case tensor.Bytes:
			data = tensor.AppendString(data, strconv.AppendUint(nil, random.Uint64(), 36))
		default: // the whole numbers 0 and 1, or false and true
			data = append(data, byte(random.Uint32()&1))
			data = append(data, make([]byte, kind.Size()-1)...)
		}
	}
	return data
}

// ParseShape reads an input's shape as NAME:1,3,224,224.
func ParseShape(text string) (name string, shape tensor.Shape, err error) {
	at := strings.LastIndexByte(text, ':')
	if at <= 0 {
		return "", nil, fmt.Errorf("shape %q: write NAME:1,3,224,224", text)
	}
	for word := range strings.SplitSeq(text[at+1:], ",") {
		d, err := strconv.ParseInt(word, 10, 64)
		if err != nil || d < 0 {
			return "", nil, fmt.Errorf("shape %q: %q is no dimension; write NAME:1,3,224,224", text, word)
		}
		shape = append(shape, d)
	}
	return text[:at], shape, nil
}
