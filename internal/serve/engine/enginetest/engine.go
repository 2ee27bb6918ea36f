package enginetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/serve/worker"
	"oscine.dev/oscine/internal/tensor"
)

// Magic is what a model file of the engine begins with. The rest of its first
// line is the kind of the model, see Kinds.
const Magic = "oscine-test-model "

// Engine implements worker.Engine.
type Engine struct {
	prefix string
	adds   float64
}

// Flags implements worker.Engine.
func (e *Engine) Flags(f *flag.FlagSet) {
	f.StringVar(&e.prefix, "prefix", "", "text before each token of a stream")
	f.Float64Var(&e.adds, "adds", 1, "what models add that are said to add 1")
}

// model is one kind of model.
type model struct {
	meta channel.Metadata
	run  func(s *session, ctx context.Context, in []worker.Tensor, out *worker.Output) error
}

func spec(name string, kind tensor.DataType, shape ...int64) []tensor.Spec {
	return []tensor.Spec{{Name: name, Type: kind, Shape: shape}}
}

// kinds are the models that a file may name.
func kinds() map[string]model {
	number := spec("n", tensor.Int32, 1)
	return map[string]model{
		// add answers x + 1, and joins requests.
		"add": {channel.Metadata{Inputs: spec("x", tensor.FP32, -1, 4), Outputs: spec("y", tensor.FP32, -1, 4), Batch: true}, add},
		// mean answers x plus the mean of all x of the run: its rows are not
		// independent, though it says so. It takes 2 ms.
		"mean": {channel.Metadata{Inputs: spec("x", tensor.FP32, -1, 4), Outputs: spec("y", tensor.FP32, -1, 4), Batch: true}, mean},
		// upper answers byte strings in upper case, once more as often as there are.
		"upper": {channel.Metadata{Inputs: spec("text", tensor.Bytes, -1), Outputs: spec("upper", tensor.Bytes, -1)}, upper},
		// count streams n tokens, one each 5 ms.
		"count": {channel.Metadata{Inputs: number, Outputs: spec("token", tensor.Bytes, 1), Streams: true}, count},
		// sleep sleeps n ms, four at once, and can be stopped.
		"sleep": {channel.Metadata{Inputs: number, Outputs: number, Parallel: 4}, sleep},
		// total adds n to its state, which it gives as the answer and as the next state.
		"total": {channel.Metadata{Inputs: append(number, spec("before", tensor.Int32, -1)...), Outputs: append(spec("total", tensor.Int32, 1), spec("after", tensor.Int32, 1)...)}, total},
		// hoard has a state of n bytes.
		"hoard": {channel.Metadata{Inputs: append(number, spec("before", tensor.Uint8, -1)...), Outputs: append(spec("total", tensor.Int32, 1), spec("after", tensor.Uint8, -1)...)}, hoard},
		// grow answers n bytes, which nobody knows before.
		"grow": {channel.Metadata{Inputs: number, Outputs: spec("bytes", tensor.Uint8, -1)}, grow},
		// once works once only.
		"once": {channel.Metadata{Inputs: number, Outputs: number}, once},
		// short puts fewer outputs than it has.
		"short": {channel.Metadata{Inputs: number, Outputs: number}, short},
	}
}

// Options implements worker.Engine.
func (*Engine) Options() []string { return []string{"prefix"} }

// Open implements worker.Engine.
func (e *Engine) Open(path string, o worker.Options) (worker.Session, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	name, found := strings.CutPrefix(strings.SplitN(string(text), "\n", 2)[0], Magic)
	m, known := kinds()[name]
	if !found || !known {
		return nil, fmt.Errorf("not a model of the engine for tests: it begins with %.40q", text)
	}
	m.meta.Engine = "test 1"
	return &session{model: m, prefix: e.prefix + o.Values["prefix"], adds: float32(e.adds)}, nil
}

type session struct {
	model
	prefix string
	adds   float32
	runs   int
}

func (s *session) Metadata() channel.Metadata { return s.meta }

func (s *session) Run(ctx context.Context, in []worker.Tensor, out *worker.Output) error {
	return s.run(s, ctx, in, out)
}

func (s *session) Close() error { return nil }

func add(s *session, _ context.Context, in []worker.Tensor, out *worker.Output) error {
	y := slices.Clone(in[0].Data)
	for at := 0; at < len(y); at += 4 {
		v := math.Float32frombits(binary.LittleEndian.Uint32(y[at:]))
		if v == 666 { // a row that spoils its batch
			return errors.New("666 cannot be added to")
		}
		binary.LittleEndian.PutUint32(y[at:], math.Float32bits(v+s.adds))
	}
	return out.Put(in[0].Shape, y)
}

func mean(_ *session, _ context.Context, in []worker.Tensor, out *worker.Output) error {
	time.Sleep(2 * time.Millisecond)
	y, sum := slices.Clone(in[0].Data), float32(0)
	each := func(do func(float32) float32) {
		for at := 0; at < len(y); at += 4 {
			binary.LittleEndian.PutUint32(y[at:], math.Float32bits(do(math.Float32frombits(binary.LittleEndian.Uint32(y[at:])))))
		}
	}
	each(func(v float32) float32 { sum += v; return v })
	each(func(v float32) float32 { return v + sum/float32(len(y)/4) })
	return out.Put(in[0].Shape, y)
}

func upper(_ *session, _ context.Context, in []worker.Tensor, out *worker.Output) error {
	var data []byte
	for range 2 {
		err := tensor.Strings(in[0].Data, int(in[0].Shape[0]), func(s []byte) error {
			data = tensor.AppendString(data, bytes.ToUpper(s))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return out.Put(tensor.Shape{2 * in[0].Shape[0]}, data)
}

func number(in []worker.Tensor) int { return int(int32(binary.LittleEndian.Uint32(in[0].Data))) }

func count(s *session, ctx context.Context, in []worker.Tensor, out *worker.Output) error {
	var whole []byte
	for i := range number(in) {
		token := []byte(s.prefix + strconv.Itoa(i))
		if whole = append(whole, token...); !out.Streams() {
			continue
		}
		if err := out.Put(tensor.Shape{1}, tensor.AppendString(nil, token)); err != nil {
			return err
		}
		if err := out.Send(); err != nil {
			return err
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	if out.Streams() {
		return nil
	}
	return out.Put(tensor.Shape{1}, tensor.AppendString(nil, whole))
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func sleep(_ *session, ctx context.Context, in []worker.Tensor, out *worker.Output) error {
	if err := pause(ctx, time.Duration(number(in))*time.Millisecond); err != nil {
		return err
	}
	return out.Put(in[0].Shape, in[0].Data)
}

func total(_ *session, _ context.Context, in []worker.Tensor, out *worker.Output) error {
	if number(in) == 666 {
		return errors.New("666 cannot be added")
	}
	sum := binary.LittleEndian.AppendUint32(nil, uint32(number(in))+binary.LittleEndian.Uint32(in[1].Data))
	for range out.Wanted() {
		if err := out.Put(tensor.Shape{1}, sum); err != nil {
			return err
		}
	}
	return nil
}

func hoard(_ *session, _ context.Context, in []worker.Tensor, out *worker.Output) error {
	if err := out.Put(tensor.Shape{1}, in[0].Data); err != nil {
		return err
	}
	n := number(in)
	return out.Put(tensor.Shape{int64(n)}, make([]byte, n))
}

func grow(_ *session, _ context.Context, in []worker.Tensor, out *worker.Output) error {
	n := number(in)
	memory, err := out.Reserve(tensor.Shape{int64(n)}, n)
	for i := range memory {
		memory[i] = byte(i)
	}
	return err
}

func once(s *session, _ context.Context, in []worker.Tensor, out *worker.Output) error {
	if s.runs++; s.runs > 1 {
		return fmt.Errorf("%w: it has run before", worker.ErrEngine)
	}
	return out.Put(in[0].Shape, in[0].Data)
}

func short(*session, context.Context, []worker.Tensor, *worker.Output) error { return nil }
