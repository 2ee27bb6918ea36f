package core

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/tensor"
)

// Bounds of a request.
const (
	// MaxPriority is the priority that is served last.
	MaxPriority = 1000
	// UsualPriority is that of requests that name none. Triton's clients count
	// from 1, the first to be served.
	UsualPriority = 100
	// MaxTensors is how many inputs, or outputs, a model may have.
	MaxTensors = channel.MaxTensors
	// MaxTimeout is the longest Timeout of a request.
	MaxTimeout = time.Hour
)

// Request asks a model for one inference. It is only read, and not after Infer
// has returned.
type Request struct {
	Model    string        // as clients name it
	Version  string        // "" means whichever is served
	Arrived  time.Time     // when the front received it; zero means now
	Priority int           // from 1, served first, to MaxPriority; 0 means UsualPriority
	Timeout  time.Duration // after which nobody wants the answer; 0 means the model's default
	Sequence Sequence      // to which it belongs, where the model keeps state
	Inputs   []Input       // in any order
	Outputs  []string      // which are wanted, in this order; none means all
	// Part takes the parts of an answer that comes as a stream, where the model
	// streams; what Infer returns is then the rest, most often nothing. A part's
	// memory is used again after the call. An error stops the inference.
	Part func(*Response) error

	step  bool   // it is one of an ensemble
	holds bool   // answers of other steps are held for it
	times *Times // nil: nobody wants them

	unloaded error // why the model was not loaded for it; nil: it was, or needs not be
}

// Input is one input tensor of a request. Its elements are little-endian, in
// row-major order.
type Input struct {
	Name  string
	Type  tensor.DataType
	Shape tensor.Shape
	Data  Source
}

// Source writes the elements of an input to where the engine reads them. It
// must not wait for a client: a slot is taken meanwhile.
type Source interface {
	// Put fills dst, which has as many bytes as the input's shape needs. Its
	// error refuses the request.
	Put(dst []byte) error
}

// Sized is a Source that knows its size, as those of byte strings must: it
// does not follow from the shape.
type Sized interface {
	Source
	Size() int
}

// bytes is the size of the input in a slot.
func (in *Input) bytes() (int, error) {
	if in.Type != tensor.Bytes {
		return in.Shape.Bytes(in.Type)
	}
	sized, ok := in.Data.(Sized)
	if !ok {
		return 0, fmt.Errorf("%w: byte strings of unknown size", tensor.ErrData)
	}
	return sized.Size(), nil
}

// Bytes is a Source of elements that lie in memory already.
type Bytes []byte

// Size implements Sized.
func (b Bytes) Size() int { return len(b) }

// Put implements Source.
func (b Bytes) Put(dst []byte) error {
	if len(b) != len(dst) {
		return fmt.Errorf("%w: got %d bytes, the shape needs %d", tensor.ErrData, len(b), len(dst))
	}
	copy(dst, b)
	return nil
}

// Response is the answer to a Request. Its memory is its own.
type Response struct {
	Model   string
	Version string
	Outputs []Output
	memory  *answer
}

// Output is one output tensor. Data holds little-endian elements.
type Output struct {
	Name  string
	Type  tensor.DataType
	Shape tensor.Shape
	Data  []byte
}

// Free lets later responses use the memory of this one, which counts until then.
// It must be called once the answer is on its way to the client.
func (r *Response) Free() {
	if r.memory != nil {
		r.memory.pool.put(r.memory)
	}
	*r = Response{}
}

// answer is the memory of a Response.
type answer struct {
	pool    *answers
	outputs []Output
	data    []byte
	held    int64 // bytes of data, of those that all answers may have
	// holds: other answers are held for this one. It does not wait for room then:
	// many that wait while they hold would wait for each other.
	holds bool
}

// keepBuffer bounds the data that a pooled answer keeps.
const keepBuffer = 1 << 20

// answers are those that are in nobody's use.
type answers struct {
	sync.Pool
	room *semaphore.Weighted // bytes of the answers that are in use
	all  int64               // of room
}

// DefaultAnswers bounds the bytes of all models' answers that are in memory until
// their clients have read them, where the daemon may have four times that;
// answerWait how long an answer waits for room.
const (
	DefaultAnswers = 1 << 30
	answerWait     = 5 * time.Second
)

func newAnswers(all int64) *answers { return &answers{room: semaphore.NewWeighted(all), all: all} }

// hold empties an answer, and counts and makes room for the bytes that it is about
// to have.
func (a *answer) hold(ctx context.Context, n int) error {
	if more := min(int64(n), a.pool.all) - a.held; more > 0 {
		if err := a.wait(ctx, more); err != nil {
			return err
		}
		a.held += more
	}
	a.data, a.outputs = slices.Grow(a.data[:0], n), a.outputs[:0]
	return nil
}

// wait takes more of the bytes that all answers may have.
func (a *answer) wait(ctx context.Context, more int64) error {
	if !a.pool.room.TryAcquire(more) {
		if a.holds {
			return fmt.Errorf("%w: answers of %d bytes wait for their clients to read them, and no step of an ensemble waits for them", ErrOverloaded, a.pool.all)
		}
		ctx, cancel := context.WithTimeout(ctx, answerWait)
		defer cancel()
		if a.pool.room.Acquire(ctx, more) != nil {
			return fmt.Errorf("%w: answers of %d bytes wait for their clients to read them", ErrOverloaded, a.pool.all)
		}
	}
	return nil
}

// add copies an output into the room of an answer.
func (a *answer) add(name string, kind tensor.DataType, shape tensor.Shape, data []byte) {
	from := len(a.data)
	a.data, a.outputs = append(a.data, data...), grow(a.outputs)
	out := &a.outputs[len(a.outputs)-1]
	out.Name, out.Type, out.Shape, out.Data = name, kind, append(out.Shape[:0], shape...), a.data[from:len(a.data):len(a.data)]
}

func (p *answers) get() *answer {
	if a, ok := p.Get().(*answer); ok {
		return a
	}
	return &answer{pool: p}
}

func (p *answers) put(a *answer) {
	if a.held > 0 {
		p.room.Release(a.held)
		a.held = 0
	}
	a.holds = false
	if cap(a.data) > keepBuffer {
		a.data = nil
	}
	p.Put(a)
}

// check refuses what no model can serve.
func (q *Request) check() error {
	if q.Priority < 0 || q.Priority > MaxPriority {
		return fmt.Errorf("%w: priority %d: choose 1, served first, to %d, or 0 for the usual, which is %d", ErrInvalid, q.Priority, MaxPriority, UsualPriority)
	}
	if q.Timeout < 0 || q.Timeout > MaxTimeout {
		return fmt.Errorf("%w: timeout %v: choose at most %v, or 0 for the model's default", ErrInvalid, q.Timeout, MaxTimeout)
	}
	return nil
}

// bind checks the request against the model. It fills the request of the
// channel and returns, for each input of the model, its place in q.Inputs.
func (q *Request) bind(meta *channel.Metadata, run *channel.Request, order []int) ([]int, error) {
	if err := q.check(); err != nil {
		return nil, err
	}
	order = order[:0]
	run.Shapes, run.Sizes, run.Wanted = run.Shapes[:0], run.Sizes[:0], run.Wanted[:0]
	for _, want := range meta.Inputs {
		i := slices.IndexFunc(q.Inputs, func(in Input) bool { return in.Name == want.Name })
		if i < 0 {
			return nil, fmt.Errorf("%w: input %q is missing (%s)", ErrInvalid, want.Name, names("the model's inputs are", meta.Inputs))
		}
		in := &q.Inputs[i]
		if in.Type != want.Type {
			return nil, fmt.Errorf("%w: input %q: datatype is %s, the model wants %s", ErrInvalid, in.Name, in.Type, want.Type)
		}
		if err := want.Accepts(in.Shape); err != nil {
			return nil, fmt.Errorf("%w: input %q: %w", ErrInvalid, in.Name, err)
		}
		order = append(order, i)
		n, err := in.bytes()
		if err != nil {
			return nil, fmt.Errorf("%w: input %q: %w", ErrInvalid, in.Name, err)
		}
		run.Shapes, run.Sizes = append(run.Shapes, in.Shape), append(run.Sizes, n)
	}
	if len(q.Inputs) != len(meta.Inputs) {
		for i, in := range q.Inputs {
			if !slices.Contains(order, i) {
				return nil, fmt.Errorf("%w: input %q is not known, or given twice (%s)", ErrInvalid, in.Name, names("the model's inputs are", meta.Inputs))
			}
		}
	}
	for _, name := range q.Outputs {
		i := tensor.Find(meta.Outputs, name)
		if i < 0 {
			return nil, fmt.Errorf("%w: output %q is not known (%s)", ErrInvalid, name, names("the model's outputs are", meta.Outputs))
		}
		if slices.Contains(run.Wanted, i) {
			return nil, fmt.Errorf("%w: output %q is asked for twice", ErrInvalid, name)
		}
		run.Wanted = append(run.Wanted, i)
	}
	return order, nil
}

func names(intro string, specs []tensor.Spec) string {
	for i, s := range specs {
		if i > 0 {
			intro += ","
		}
		intro += " " + s.Name
	}
	return intro
}

// call is the memory of one request, reused by later ones.
type call struct {
	job     job
	order   []int
	offsets []int
}

// calls are those that are in nobody's use.
type calls struct{ sync.Pool }

func (p *calls) get() *call {
	if c, ok := p.Get().(*call); ok {
		return c
	}
	c := new(call)
	c.job.wake = make(chan bool, 1)
	return c
}

func (p *calls) put(c *call) {
	clear(c.job.request.Shapes) // they are the request's
	c.job.ctx = nil
	clear(c.job.runs)
	p.Put(c)
}

// fill puts all inputs into the slot.
func (c *call) fill(q *Request, meta *channel.Metadata, slot []byte) error {
	for i := range meta.Inputs {
		in, n := &q.Inputs[c.order[i]], c.job.request.Sizes[i]
		if err := in.Data.Put(slot[c.offsets[i] : c.offsets[i]+n]); err != nil {
			return fmt.Errorf("%w: input %q: %w", ErrInvalid, in.Name, err)
		}
		if in.Type != tensor.Bytes {
			continue
		}
		// A run joins the strings of several requests: each must have as many as its
		// shape says, or it would get those of another client.
		elements, err := in.Shape.Elements()
		if err == nil {
			err = tensor.Strings(slot[c.offsets[i]:c.offsets[i]+n], elements, func([]byte) error { return nil })
		}
		if err != nil {
			return fmt.Errorf("%w: input %q: %w", ErrInvalid, in.Name, err)
		}
	}
	return nil
}

// collect copies the outputs out of the slot. It also says how many bytes of
// the slot they reach up to.
func (c *call) collect(a *answer, meta *channel.Metadata, slot []byte) (used int, err error) {
	return c.job.collectFrom(&c.job.result, a, meta, slot)
}

// collectFrom does so for one part of an answer.
func (j *job) collectFrom(result *channel.Result, a *answer, meta *channel.Metadata, slot []byte) (used int, err error) {
	total := 0
	for i, n := range result.Sizes[:len(result.Shapes)] {
		total += n
		used = max(used, result.Offsets[i]+n)
	}
	if err := a.hold(j.ctx, total); err != nil {
		return used, err
	}
	for i, shape := range result.Shapes {
		spec, at := &meta.Outputs[j.outputIndex(i)], result.Offsets[i]
		a.add(spec.Name, spec.Type, shape, slot[at:at+result.Sizes[i]])
	}
	return used, nil
}

// outputIndex is the model's index of the i-th output of the answer.
func (j *job) outputIndex(i int) int {
	if wanted := j.request.Wanted; len(wanted) > 0 {
		return wanted[i]
	}
	return i
}

// grow appends one element, keeping what its memory held.
func grow[T any](s []T) []T {
	if len(s) < cap(s) {
		return s[:len(s)+1]
	}
	var zero T
	return append(s, zero)
}
