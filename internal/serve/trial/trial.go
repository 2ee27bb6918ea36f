package trial

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/serve/language"
	"oscine.dev/oscine/internal/tensor"
)

// Worker is a living worker that has loaded no model yet.
type Worker interface {
	Socket() string
	Owns(pid int) bool
	Load() channel.Load
	Wait() error
	Kill() error
}

// Batches are the numbers of rows that are tried; the second only where all inputs
// have an open first dimension.
var Batches = [2]int64{1, 8}

// Result is what one engine did with the model.
type Result struct {
	Metadata channel.Metadata
	Load     time.Duration
	// Latency is the shortest of the runs, for each of Batches; 0: it was not run.
	Latency [len(Batches)]time.Duration
	// Problem is why the model could not be run on made-up inputs; "" where it was.
	Problem string
	// Outputs are those of one row of made-up inputs; none where there was no such run.
	Outputs []Output
}

// Output is an output of a run.
type Output struct {
	Name  string
	Type  tensor.DataType
	Shape tensor.Shape
	Data  []byte
}

// Bounds of a trial.
const (
	slotBytes = 256 << 20 // of inputs and outputs
	mostRun   = time.Minute
	leastRuns = 3 // where the limit allows: the first of all prepares the engine
)

// opens returns sizes for open dimensions but the first, of which the first that a
// model runs with is taken. One comes last: pictures of one pixel can vanish in a
// model, which engines answer differently.
func opens() []int64 { return []int64{64, 224, 512, 1} }

// Run has the worker load its model, runs it for no longer than limit, or once
// where once takes longer, and ends the worker. Its error wraps a
// *channel.ModelError where the engine refuses the model.
func Run(ctx context.Context, w Worker, limit time.Duration) (*Result, error) {
	return attend(ctx, w, func(t *trial) error { return t.measure(ctx, limit) })
}

// attend has the worker load its model, does something with it, and ends it.
func attend(ctx context.Context, w Worker, do func(*trial) error) (*Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		err := w.Wait()
		ended <- err
		time.AfterFunc(time.Second, cancel) // what it said before it ended is read
	}()
	defer context.AfterFunc(ctx, func() { _ = w.Kill() })() // a run under way ends with it
	result, err := run(ctx, w, do)
	killed := w.Kill()
	how := <-ended
	switch {
	case err == nil:
		return result, nil
	case errors.As(err, new(*channel.ModelError)):
		return nil, err
	case how != nil && killed != nil: // it had ended before
		return nil, fmt.Errorf("%w: %w", err, how)
	}
	return nil, err
}

func run(ctx context.Context, w Worker, do func(*trial) error) (*Result, error) {
	l, err := channel.Listen(w.Socket())
	if err != nil {
		return nil, fmt.Errorf("listen for the worker: %w", err)
	}
	defer l.Close()
	conn, err := l.Accept(ctx, w.Owns)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	begin := time.Now()
	if err := conn.Load(ctx, w.Load()); err != nil {
		return nil, err
	}
	r := &Result{Metadata: *conn.Metadata(), Load: time.Since(begin)}
	region, err := channel.NewRegion(channel.Size{Slots: 1, SlotBytes: slotBytes})
	if err != nil {
		return nil, err
	}
	defer runtime.KeepAlive(region)
	defer region.Close()
	if err := conn.Share(region); err != nil {
		return nil, err
	}
	return r, do(&trial{conn: conn, result: r, slot: region.Slot(0)})
}

// trial is one engine's, under way.
type trial struct {
	conn   *channel.Conn
	slot   []byte
	result *Result
	ids    uint64
	open   int64 // of the open dimensions but the first
}

func (t *trial) measure(ctx context.Context, limit time.Duration) error {
	if meta := &t.result.Metadata; language.Is(meta.Inputs, meta.Outputs) {
		t.result.Problem = "how fast a language model answers depends on the request"
		return nil
	}
	for i, batch := range Batches {
		if i > 0 && (t.result.Problem != "" || !batched(&t.result.Metadata)) {
			break
		}
		if err := t.batch(ctx, i, batch, limit/time.Duration(len(Batches))); err != nil {
			return err
		}
	}
	return nil
}

// batched reports whether all inputs have an open first dimension.
func batched(meta *channel.Metadata) bool {
	return len(meta.Inputs) > 0 && !slices.ContainsFunc(meta.Inputs, func(s tensor.Spec) bool { return len(s.Shape) == 0 || s.Shape[0] != -1 })
}

// batch finds inputs that the model takes, and then runs it again and again.
func (t *trial) batch(ctx context.Context, i int, batch int64, limit time.Duration) error {
	end := time.Now().Add(limit)
	for runs := 0; ; runs++ {
		took, problem, err := t.first(batch, runs == 0 && i == 0)
		if err != nil || problem != "" {
			if i == 0 {
				t.result.Problem = problem
			}
			return err
		}
		if best := t.result.Latency[i]; best == 0 || took < best {
			t.result.Latency[i] = took
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if left := time.Until(end); left < took || runs >= leastRuns && left < 0 {
			return nil
		}
	}
}

// first runs the model once. At the very first time it looks for a size of the
// open dimensions.
func (t *trial) first(batch int64, search bool) (took time.Duration, problem string, err error) {
	if !search {
		return t.once(batch, t.open)
	}
	for _, open := range opens() {
		took, problem, err = t.once(batch, open)
		if err != nil {
			return 0, "", err
		}
		if problem == "" {
			t.open = open
			return took, "", nil
		}
	}
	return 0, problem, nil
}

// once runs the model once. A problem is what it says of the inputs.
func (t *trial) once(batch, open int64) (took time.Duration, problem string, err error) {
	meta := &t.result.Metadata
	shapes, sizes := shapesFor(meta, batch, open)
	offsets, end, err := channel.Layout(meta.Inputs, shapes, sizes, nil)
	if err != nil || end > len(t.slot)/2 {
		return 0, "made-up inputs are too large", nil
	}
	for i, spec := range meta.Inputs {
		fill(&spec, t.slot[offsets[i]:][:sizes[i]])
	}
	took, r, err := t.run(shapes, sizes)
	switch {
	case err != nil:
		return 0, "", err
	case r.Code != channel.OK:
		return 0, r.Err, nil
	}
	if batch == Batches[0] {
		t.result.Outputs = t.outputs(r)
	}
	return took, "", nil
}

// run runs the model on the inputs in the slot.
func (t *trial) run(shapes []tensor.Shape, sizes []int) (took time.Duration, _ *channel.Result, err error) {
	t.ids++
	request := channel.Request{ID: t.ids, Shapes: shapes, Sizes: sizes}
	results := make([]channel.Result, 1)
	begin := time.Now()
	err = t.conn.Run([]channel.Request{request}, results, mostRun, nil)
	return max(time.Since(begin), 1), &results[0], err
}

// outputs copies those of a run out of the slot.
func (t *trial) outputs(r *channel.Result) []Output {
	var list []Output
	for i, spec := range t.result.Metadata.Outputs {
		data := bytes.Clone(t.slot[r.Offsets[i]:][:r.Sizes[i]])
		list = append(list, Output{spec.Name, spec.Type, slices.Clone(r.Shapes[i]), data})
	}
	return list
}

// shapesFor are the shapes and bytes of inputs with a number of rows and a size for
// all other open dimensions.
func shapesFor(meta *channel.Metadata, batch, open int64) ([]tensor.Shape, []int) {
	shapes, sizes := make([]tensor.Shape, len(meta.Inputs)), make([]int, len(meta.Inputs))
	for i, spec := range meta.Inputs {
		shapes[i] = spec.Concrete(batch, open)
		if n, err := spec.LeastBytes(shapes[i]); err == nil {
			sizes[i] = n
		} else {
			sizes[i] = slotBytes
		}
	}
	return shapes, sizes
}

// fill writes numbers that depend on the input's name alone, so that all engines
// get the same: floats from 0 to 1, and ones, which index where others may not.
func fill(spec *tensor.Spec, data []byte) {
	seed := fnv.New64a()
	_, _ = seed.Write([]byte(spec.Name))
	random := rand.New(rand.NewPCG(seed.Sum64(), 1))
	clear(data)
	switch spec.Type {
	case tensor.Bytes:
	case tensor.FP32:
		for at := 0; at+4 <= len(data); at += 4 {
			binary.LittleEndian.PutUint32(data[at:], math.Float32bits(random.Float32()))
		}
	case tensor.FP64:
		for at := 0; at+8 <= len(data); at += 8 {
			binary.LittleEndian.PutUint64(data[at:], math.Float64bits(random.Float64()))
		}
	case tensor.FP16, tensor.BF16:
		half := map[tensor.DataType]uint16{tensor.FP16: 0x3800, tensor.BF16: 0x3f00}[spec.Type]
		for at := 0; at+2 <= len(data); at += 2 {
			binary.LittleEndian.PutUint16(data[at:], half|uint16(random.IntN(0x80)))
		}
	default:
		for at := 0; at+spec.Type.Size() <= len(data); at += spec.Type.Size() {
			data[at] = 1
		}
	}
}
