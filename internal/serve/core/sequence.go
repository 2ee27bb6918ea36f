package core

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/tensor"
)

// Sequencing says that a model has state, which the registry keeps between the
// requests of a sequence: what an output gave goes into an input of the next.
// Clients see neither.
type Sequencing struct {
	States []KeptState   // none: the model has no state
	Most   int           // sequences at once; 0: DefaultSequences
	Idle   time.Duration // after which a sequence ends by itself; 0: DefaultIdle
}

// KeptState is one tensor of a model's state. It is zero at a sequence's start.
type KeptState struct {
	Input, Output string
	Shape         tensor.Shape    // at a sequence's start; nil: the input's, where open dimensions are 1
	Type          tensor.DataType // of Status
}

// Bounds of sequences.
const (
	DefaultSequences = 64
	MostSequences    = 4096
	DefaultIdle      = time.Minute
	maxStates        = 16
	// maxStateBytes bounds the states of all models' sequences, where the daemon may
	// have eight times that.
	maxStateBytes = 1 << 30
)

// states are the bytes that the states of all models' sequences take.
type states struct {
	room *semaphore.Weighted
	all  int64 // of room
}

func newStates(all int64) *states { return &states{semaphore.NewWeighted(all), all} }

func (s *Sequencing) check() error {
	if len(s.States) > maxStates {
		return fmt.Errorf("%d states: at most %d are kept", len(s.States), maxStates)
	}
	if s.Most < 0 || s.Most > MostSequences || s.Idle < 0 {
		return fmt.Errorf("%d sequences that may be idle for %v: choose at most %d", s.Most, s.Idle, MostSequences)
	}
	return nil
}

// Sequence says to which sequence a request belongs, as Triton's clients do.
type Sequence struct {
	ID         string // by which its client names it; "": none
	Start, End bool   // it is the first request, or the last
}

// hash is the same for all requests of a sequence.
func (s *Sequence) hash(ctx context.Context) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%q %q", ClientOf(ctx), s.ID)
	return h.Sum64()
}

// sequences are those of one load of a model.
type sequences struct {
	Sequencing
	inputs, outputs []tensor.Spec // that clients see
	names           []string      // of outputs
	initial         []Input       // the states of a new sequence
	kept            *states       // of all models

	mu     sync.Mutex
	all    map[sequenceKey]*sequence
	closed bool // none is kept any more
}

// sequenceKey is by what a sequence is found: clients have their own names.
type sequenceKey struct{ client, id string }

// sequence is the state between two requests.
type sequence struct {
	key  sequenceKey
	turn chan struct{} // holds a token while a request has the sequence
	idle *time.Timer
	last time.Time // that a request gave it back; guarded by sequences.mu
	// The rest belongs to whom the turn is.
	states []Input // nil: no request has succeeded
	bytes  int64
	over   bool // guarded by sequences.mu
}

// newSequences finds the states in what a worker says of its model.
func newSequences(s Sequencing, meta *channel.Metadata, kept *states) (*sequences, error) {
	all := &sequences{Sequencing: s, kept: kept, all: map[sequenceKey]*sequence{}}
	if all.Most == 0 {
		all.Most = DefaultSequences
	}
	if all.Idle == 0 {
		all.Idle = DefaultIdle
	}
	if meta.Streams {
		return nil, errors.New("a model that streams its answers keeps no state")
	}
	find := func(specs []tensor.Spec, kind, name string) (tensor.Spec, error) {
		i := tensor.Find(specs, name)
		if i < 0 {
			return tensor.Spec{}, fmt.Errorf("%s %q of the state is not known (%s)", kind, name, names("the model's "+kind+"s are", specs))
		}
		return specs[i], nil
	}
	all.States = slices.Clone(s.States)
	for i, state := range s.States {
		in, err := find(meta.Inputs, "input", state.Input)
		if err != nil {
			return nil, err
		}
		out, err := find(meta.Outputs, "output", state.Output)
		if err != nil {
			return nil, err
		}
		shape := state.Shape
		if shape == nil {
			shape = in.Concrete(1, 1)
		}
		n, err := shape.Bytes(in.Type)
		switch {
		case in.Type != out.Type:
			return nil, fmt.Errorf("state: input %q is %s and output %q is %s", in.Name, in.Type, out.Name, out.Type)
		case in.Type == tensor.Bytes || err != nil:
			return nil, fmt.Errorf("state %q: %s of %s cannot be kept", in.Name, in.Type, shape)
		}
		if err := in.Accepts(shape); err != nil {
			return nil, fmt.Errorf("state %q: %w", in.Name, err)
		}
		all.States[i].Shape, all.States[i].Type = shape, in.Type
		all.initial = append(all.initial, Input{in.Name, in.Type, shape, make(Bytes, n)})
	}
	isState := func(input bool) func(tensor.Spec) bool {
		return func(spec tensor.Spec) bool {
			return slices.ContainsFunc(s.States, func(state KeptState) bool {
				return input && state.Input == spec.Name || !input && state.Output == spec.Name
			})
		}
	}
	all.inputs = slices.DeleteFunc(slices.Clone(meta.Inputs), isState(true))
	all.outputs = slices.DeleteFunc(slices.Clone(meta.Outputs), isState(false))
	for _, out := range all.outputs {
		all.names = append(all.names, out.Name)
	}
	if len(all.names) == 0 {
		return nil, errors.New("all outputs are state: nothing is left to answer")
	}
	return all, nil
}

// withState returns the request that the engine gets: with the states among its
// inputs, and behind the outputs that are wanted.
func (s *sequences) withState(q *Request, states []Input) (Request, error) {
	for i := range q.Inputs {
		if tensor.Find(s.inputs, q.Inputs[i].Name) < 0 {
			return Request{}, fmt.Errorf("%w: input %q is not known, or kept by the node (%s)", ErrInvalid, q.Inputs[i].Name, names("the model's inputs are", s.inputs))
		}
	}
	for _, name := range q.Outputs {
		if !slices.Contains(s.names, name) {
			return Request{}, fmt.Errorf("%w: output %q is not known, or kept by the node (%s)", ErrInvalid, name, names("the model's outputs are", s.outputs))
		}
	}
	full := *q
	full.Part = nil
	full.Inputs = append(slices.Clip(q.Inputs), states...)
	if full.Outputs = slices.Clip(q.Outputs); len(full.Outputs) == 0 {
		full.Outputs = slices.Clip(s.names)
	}
	for _, state := range s.States {
		full.Outputs = append(full.Outputs, state.Output)
	}
	return full, nil
}

// checkSequence refuses a request whose sequence does not suit the model.
func (m *model) checkSequence(q *Request) error {
	switch has := len(m.Sequencing.States) > 0; {
	case m.Ensemble != nil: // its steps say
	case !has && q.Sequence != (Sequence{}):
		return fmt.Errorf("%w: %s keeps no state: sequences need spec.sequenceBatching of the Model", ErrInvalid, m.Name)
	case has && q.Sequence.ID == "":
		return fmt.Errorf("%w: %s keeps state: the request needs a sequence_id that is not 0 or empty", ErrInvalid, m.Name)
	}
	return nil
}

// inferNext answers one request of a sequence. Those of one sequence come one
// after the other; one that fails leaves the state as it was, and begins no sequence.
func (m *model) inferNext(ctx context.Context, c *call, a *answer, q *Request) (err error) {
	if _, _, err = m.ready(ctx); err != nil {
		return err
	}
	all := m.sequences.Load()
	s, err := all.take(ctx, m, q)
	if err != nil {
		return err
	}
	defer func() { all.give(s, err == nil && q.Sequence.End) }()
	states := s.states
	if q.Sequence.Start || states == nil {
		states = all.initial
	}
	full, err := all.withState(q, states)
	if err != nil {
		return err
	}
	if err = m.infer(ctx, c, a, &full); err != nil {
		return err
	}
	n := len(a.outputs) - len(all.States)
	err = all.keep(s, a.outputs[n:])
	a.outputs = a.outputs[:n]
	return err
}

// take finds the sequence of a request, or begins it, and waits for the requests
// before it.
func (s *sequences) take(ctx context.Context, m *model, q *Request) (*sequence, error) {
	expires := m.rank(q).expires
	var late <-chan time.Time
	if !expires.IsZero() {
		timer := time.NewTimer(time.Until(expires))
		defer timer.Stop()
		late = timer.C
	}
	key := sequenceKey{ClientOf(ctx), q.Sequence.ID}
	for {
		found, begun, err := s.find(m, key, q.Sequence.Start)
		if begun || err != nil {
			return found, err
		}
		select {
		case found.turn <- struct{}{}:
		case <-ctx.Done():
			return nil, m.left(ctx)
		case <-late:
			return nil, m.late()
		}
		s.mu.Lock()
		over := found.over
		if !over {
			found.idle.Stop()
		}
		s.mu.Unlock()
		if !over {
			return found, nil
		}
		<-found.turn // it ended meanwhile
	}
}

// find returns the sequence of a request, or begins it: then its turn is the
// request's.
func (s *sequences) find(m *model, key sequenceKey, start bool) (found *sequence, begun bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found = s.all[key]
	switch {
	case found != nil:
		return found, false, nil
	case !start:
		return nil, false, fmt.Errorf("%w: %s has no sequence %.64s of this client: the first request of a sequence needs sequence_start, and one ends after %v without a request, to make room for another client, or when the model is loaded again", ErrInvalid, m.Name, key.id, s.Idle)
	case len(s.all) >= s.Most && !s.makeRoom(key.client):
		return nil, false, &overload{fmt.Errorf("%w: %s has %d sequences, as many as spec.sequenceBatching.maxSequences allows, and this client has its share of them: end one", ErrOverloaded, m.Name, s.Most), min(s.Idle, time.Minute)}
	}
	found = &sequence{key: key, turn: make(chan struct{}, 1)}
	found.turn <- struct{}{}
	found.idle = time.AfterFunc(s.Idle, func() { s.expire(found) })
	found.idle.Stop() // give starts it
	s.all[key] = found
	return found, true, nil
}

// makeRoom ends the sequence that has been idle longest, of the client that has
// most, for a client that has less than its share. The caller holds mu.
func (s *sequences) makeRoom(client string) bool {
	counts := map[string]int{client: 0}
	for key := range s.all {
		counts[key.client]++
	}
	if counts[client] >= s.Most/len(counts) {
		return false
	}
	most := slices.Max(slices.Collect(maps.Values(counts)))
	var idle *sequence
	for key, q := range s.all {
		if counts[key.client] == most && len(q.turn) == 0 && (idle == nil || q.last.Before(idle.last)) {
			idle = q
		}
	}
	if idle == nil {
		return false
	}
	select {
	case idle.turn <- struct{}{}:
		s.end(idle)
		<-idle.turn
		return true
	default: // a request has just taken it
		return false
	}
}

// expire ends a sequence that has been idle, unless a request has just taken it.
func (s *sequences) expire(q *sequence) {
	select {
	case q.turn <- struct{}{}:
		s.mu.Lock()
		s.end(q)
		s.mu.Unlock()
		<-q.turn
	default: // give sets the timer again
	}
}

// end forgets a sequence. The caller holds mu, and its turn.
func (s *sequences) end(q *sequence) {
	if q.over {
		return
	}
	q.over = true
	q.idle.Stop()
	delete(s.all, q.key)
	s.kept.room.Release(q.bytes)
	q.states, q.bytes = nil, 0
}

// give lets the next request have the sequence. One that never got a state is
// none.
func (s *sequences) give(q *sequence, last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last || q.states == nil || s.closed {
		s.end(q)
	} else {
		q.idle.Reset(s.Idle)
		q.last = time.Now()
	}
	<-q.turn
}

// close ends all sequences, those that requests have when they give them back.
// There may be none.
func (s *sequences) close() {
	if s == nil {
		return
	}
	s.mu.Lock()
	s.closed = true
	all := slices.Collect(maps.Values(s.all))
	s.mu.Unlock()
	for _, q := range all {
		s.expire(q)
	}
}

// keep copies what the engine gave as the state for the next request.
func (s *sequences) keep(q *sequence, outputs []Output) error {
	var bytes int64
	for i := range outputs {
		bytes += int64(len(outputs[i].Data))
	}
	if bytes > q.bytes && !s.kept.room.TryAcquire(bytes-q.bytes) {
		return &overload{fmt.Errorf("%w: the states of all models' sequences take %d bytes at most: end some", ErrOverloaded, s.kept.all), min(s.Idle, time.Minute)}
	}
	if bytes < q.bytes {
		s.kept.room.Release(q.bytes - bytes)
	}
	q.bytes = bytes
	if q.states == nil {
		q.states = make([]Input, len(outputs))
	}
	for i := range outputs {
		out, state := &outputs[i], &q.states[i]
		data, _ := state.Data.(Bytes)
		if len(data) != len(out.Data) {
			data = make(Bytes, len(out.Data)) // as many as are counted
		}
		copy(data, out.Data)
		*state = Input{s.States[i].Input, out.Type, append(state.Shape[:0], out.Shape...), data}
	}
	return nil
}

// count is how many sequences there are.
func (s *sequences) count() int {
	if s == nil {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}
