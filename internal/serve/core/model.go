package core

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"oscine.dev/oscine/internal/pattern"
	"oscine.dev/oscine/internal/serve/ensemble"
	"oscine.dev/oscine/internal/tensor"
)

// Model is a model to serve.
type Model struct {
	Name     string // by which the registry's owner names it
	ServedAs string // by which clients name it; "" means Name
	Version  string // "" means "1"
	// Instances are its workers, at least one.
	Instances []Instance
	// Ensemble makes it one of other models, without workers; nil: it is none.
	Ensemble *Ensemble
	// Platform is what clients see as the kind of engine and format, for example
	// onnxruntime_onnx; "" means unknown.
	Platform string
	Timeout  time.Duration // of one inference; 0 means 60 s. A worker that takes longer is killed.
	// MaxRequest is how many bytes the inputs and outputs of one request may have,
	// from LeastMaxRequest to MostMaxRequest; 0 means DefaultMaxRequest, or what a
	// model of larger fixed shapes needs.
	MaxRequest int64
	// Objective is by when a request should be answered after its arrival; 0:
	// none. Requests are served in the order of their deadlines, and those
	// answered later are counted.
	Objective time.Duration
	// DefaultTimeout is the timeout of requests that name none; 0: never.
	DefaultTimeout time.Duration
	// Precedence orders models on the same CPUs before any deadline does: the
	// higher goes first.
	Precedence int
	Routing
	Batching Batching
	// Curve is what was learned of the costs of batches before, and KeepCurve gets
	// what is known when the model is served no more; it may be nil.
	Curve     []CurvePoint
	KeepCurve func([]CurvePoint)
	Cache     Caching
	// Sequencing says whether the model has state.
	Sequencing Sequencing
	Loading    Loading
	// Reshapes are the tensors that clients know by other shapes.
	Reshapes Reshapes
	// Examine is called with the model that this one takes the place of. What it returns
	// holds this one to the same answers once it is ready, before it gets requests; its
	// error keeps it from that. Models with a state are not examined. May be nil.
	Examine func(ctx context.Context, old Examined) (check func(ctx context.Context, next Examined) error)
	// OnChange is called after each change of State, without locks held, and must
	// return at once; may be nil.
	OnChange func()
}

var (
	nameRE = pattern.New(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	// servedRE leaves out what a path would need escapes for.
	servedRE = pattern.New(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,254}$`)
)

// complete fills in what was left out and checks the rest. Its errors don't name the
// model: the caller knows it.
func (m *Model) complete() error {
	if m.Ensemble != nil {
		m.Platform = cmp.Or(m.Platform, "ensemble")
	}
	m.Version, m.ServedAs = cmp.Or(m.Version, "1"), cmp.Or(m.ServedAs, m.Name)
	if err := errors.Join(m.Routing.check(), m.Batching.check(), m.Cache.check(), m.Sequencing.check(), m.Reshapes.check()); err != nil {
		return err
	}
	if m.Cache.Bytes > 0 && len(m.Sequencing.States) > 0 {
		return errors.New("responses that depend on a state are not cached")
	}
	if !m.Reshapes.none() && (m.Ensemble != nil || len(m.Sequencing.States) > 0) {
		return errors.New("an ensemble, or a model that keeps state, is not reshaped")
	}
	return m.check()
}

func (m *Model) check() error {
	if !nameRE.MatchString(m.Name) {
		return fmt.Errorf("model name %q: must be letters, digits, '.', '_' or '-', at most 63", m.Name)
	}
	if !servedRE.MatchString(m.ServedAs) {
		return fmt.Errorf("served as %q: must be letters, digits, '.', '_' or '-', at most 255", m.ServedAs)
	}
	if !nameRE.MatchString(m.Version) {
		return fmt.Errorf("version %q: must be letters, digits, '.', '_' or '-', at most 63", m.Version)
	}
	if m.Timeout < 0 {
		return fmt.Errorf("timeout %v is negative", m.Timeout)
	}
	if m.Loading.Idle < 0 {
		return fmt.Errorf("unloaded after %v without a request", m.Loading.Idle)
	}
	if m.Objective < 0 {
		return fmt.Errorf("objective %v is negative", m.Objective)
	}
	if m.DefaultTimeout < 0 || m.DefaultTimeout > MaxTimeout {
		return fmt.Errorf("default timeout %v: choose at most %v", m.DefaultTimeout, MaxTimeout)
	}
	if m.MaxRequest != 0 && (m.MaxRequest < LeastMaxRequest || m.MaxRequest > MostMaxRequest) {
		return fmt.Errorf("requests of %d bytes: choose %d to %d", m.MaxRequest, LeastMaxRequest, MostMaxRequest)
	}
	if e := m.Ensemble; e != nil {
		if _, err := ensemble.Arrange(e.Steps, e.Outputs); err != nil {
			return fmt.Errorf("ensemble: %w", err)
		}
		if len(m.Instances) > 0 || m.Loading.OnDemand || m.Cache.Bytes > 0 || len(m.Sequencing.States) > 0 {
			return errors.New("an ensemble has no worker, cache or state of its own")
		}
		return nil
	}
	if len(m.Instances) == 0 {
		return errors.New("has no instance")
	}
	for _, in := range m.Instances {
		if in.Starter == nil {
			return errors.New("has no Starter")
		}
	}
	return nil
}

// State is where a model is in its life.
type State string

// The states of a model.
const (
	Starting State = "starting" // the worker starts or loads the model
	Ready    State = "ready"    // of a model: one of its instances is
	Idle     State = "idle"     // loaded on demand: it has no worker until a request comes
	Failed   State = "failed"   // the worker refused the model; only a new Add helps
	Waiting  State = "waiting"  // the worker ended; it is started again after a pause
)

// Reason says in a sentence why a model cannot answer.
func (s *Status) Reason() string {
	if s.Message == "" {
		return fmt.Sprintf("model %s is %s", s.Name, s.State)
	}
	return fmt.Sprintf("model %s is %s: %s", s.Name, s.State, s.Message)
}

// Answers reports whether requests are answered, on demand after the model is loaded
// for them.
func (s *Status) Answers() bool { return s.State == Ready || s.OnDemand && s.State != Failed }

// Status is what is known of a model.
type Status struct {
	Name      string
	ServedAs  string // by clients
	Version   string
	Versions  []string // that are served by the same name, the oldest first; of StatusOf
	State     State
	OnDemand  bool   // it is loaded by its requests
	Message   string // why, when the state is Failed or Waiting; which instances are not ready, when others are
	Platform  string // of Model
	Engine    string // name and version, once the worker has answered
	Inputs    []tensor.Spec
	Outputs   []tensor.Spec
	Restarts  int // workers started after the first of their instance
	Instances []InstanceStatus
	Requests  int64         // inferences answered, with errors
	Errors    int64         // inferences answered with an error
	P50, P99  time.Duration // of the time inside the daemon and worker, since Add
	Last      time.Time     // of the last answer without an error; zero: none yet
	Streams   bool          // an answer may come in parts
	Missed    int64         // inferences answered after the objective, or after their own timeout
	Expired   int64         // requests refused because their timeout had passed, or would have
	Loads     int64         // of the model by a worker
	Evicted   int64         // of those, ended to make room for another model
	Rows      int64         // that the engine computed
	Queued    time.Duration // that all computed requests together waited, from their arrival to their run
	Pending   int           // requests that wait for a slot or a run now
	Cache     CacheFigures
	Ensemble  *Ensemble    // nil: it is none
	Curve     []CurvePoint // what batches cost, by their rows; none where requests share no runs
	// Sequencing is set for a model that keeps state, with the shapes of it, and
	// Sequences is how many there are.
	Sequencing Sequencing
	Sequences  int
	// BatchingStopped says why requests share no runs any more, though the model
	// was taken for one of independent rows.
	BatchingStopped string
	// PriorityUnavailable says why deadlines set no priority in the kernel, where it
	// should be.
	PriorityUnavailable string
}
