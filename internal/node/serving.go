package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"oscine.dev/oscine/internal/isolate"
	"oscine.dev/oscine/internal/node/access"
	"oscine.dev/oscine/internal/node/kind/model"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/serve"
	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/tracing"
	"oscine.dev/oscine/internal/serve/trial"
)

// openRegistry begins to serve, without a model yet.
func (n *Node) openRegistry() {
	n.registry = core.NewRegistry()
	var o serve.Options
	if n.tracer != nil {
		n.registry.Observe(n.tracer)
		o.Trace = n.tracer.Handler
	}
	n.inference = access.NewFair().Handler(serve.NewHandler(n.registry, o))
}

// lastTraces is how long a daemon that ends waits for the collector.
const lastTraces = 3 * time.Second

// openTracing returns what exports the way of requests, nil where the Machine
// names no collector.
func openTracing(m *object.Machine) (*tracing.Tracer, error) {
	t := m.Spec.Tracing
	if t == nil {
		return nil, nil
	}
	percent := 100
	if t.Percent != nil {
		percent = *t.Percent
	}
	return tracing.New(tracing.Options{Endpoint: t.Endpoint, Percent: percent, Node: m.Spec.Hostname})
}

// Inference answers the protocols of inference for the node's models, at the
// routes of http.ServeMux that they claim. It is one handler for all listeners,
// whose requests share one bound on memory.
func (n *Node) Inference() (routes []string, handler http.Handler) {
	return serve.Routes(), n.inference
}

// server is the registry of internal/serve as the kind Model sees it.
type server struct {
	registry *core.Registry
	isolator *isolate.Isolator
}

var servingPhases = map[core.State]object.Phase{
	core.Starting: object.Starting, core.Ready: object.Running, core.Idle: object.Idle, core.Failed: object.Failed, core.Waiting: object.Waiting,
}

// workerPaths are where a worker finds what is its own.
func workerPaths() model.Paths {
	return model.Paths{SocketDir: core.SocketDir, SocketName: core.SocketName, Model: core.ModelPath, Folder: core.ModelFolder}
}

// Serve implements model.Server.
func (s server) Serve(m model.Served) error { return s.registry.Add(s.model(m)) }

// Replace implements model.Server.
func (s server) Replace(ctx context.Context, m model.Served) error {
	return s.registry.Replace(ctx, s.model(m))
}

// ReplaceInTurn implements model.Server.
func (s server) ReplaceInTurn(ctx context.Context, m model.Served) error {
	return s.registry.ReplaceInTurn(ctx, s.model(m))
}

// Route implements model.Server.
func (s server) Route(name string, traffic *int, shadow bool) error {
	return s.registry.Route(name, core.Routing{Traffic: traffic, Shadow: shadow})
}

// model is a model as the registry sees it.
func (s server) model(m model.Served) core.Model {
	served := core.Model{
		Name: m.Key.Name, Version: m.Version, ServedAs: m.ServedAs, Platform: m.Platform, OnChange: m.Changed,
		Timeout: m.Timeout, MaxRequest: m.MaxRequest, Objective: m.Objective, DefaultTimeout: m.DefaultTimeout, Routing: core.Routing{Traffic: m.Traffic, Shadow: m.Shadow},
		Cache: core.Caching{Bytes: m.CacheBytes, PerClient: m.CachePerClient},
	}
	if e := m.Ensemble; e != nil {
		served.Ensemble = &core.Ensemble{Steps: e.Arranged(), Outputs: e.Outputs}
		return served
	}
	for _, in := range m.Instances {
		instance := core.Instance{Starter: starter(in.Start), CPUs: in.CPUs, Unloaded: in.Unloaded}
		if m.Class == object.Interactive { // real-time work has its priority, batch needs none
			instance.Urgency = s.isolator.Priority(in.ID)
		}
		served.Instances = append(served.Instances, instance)
	}
	for _, cost := range m.Costs {
		served.Curve = append(served.Curve, core.CurvePoint(cost))
	}
	if m.KeepCosts != nil {
		served.KeepCurve = func(points []core.CurvePoint) {
			var costs []model.Cost
			for _, p := range points {
				costs = append(costs, model.Cost(p))
			}
			m.KeepCosts(costs)
		}
	}
	if b := m.Batching; b != nil {
		served.Batching = core.Batching{PreferredRows: b.PreferredBatchSizes, MostRows: b.MaxBatchSize, Delay: b.MaxQueueDelay.Std()}
	}
	if s := m.Sequences; s != nil {
		served.Sequencing = core.Sequencing{Most: s.MaxSequences, Idle: s.MaxSequenceIdle.Std()}
		for _, state := range s.State {
			served.Sequencing.States = append(served.Sequencing.States, core.KeptState{Input: state.InputName, Output: state.OutputName, Shape: state.Dims})
		}
	}
	if r := m.Reshape; r != nil {
		served.Reshapes = core.Reshapes{Inputs: reshapes(r.Inputs), Outputs: reshapes(r.Outputs)}
	}
	if m.SameAnswers {
		served.Examine = examine
	}
	served.Loading = core.Loading{OnDemand: m.OnDemand, Now: m.LoadNow, Idle: m.IdleTimeout}
	if m.Class == object.Batch {
		served.Precedence = -1
	}
	return served
}

// examine holds a model to the answers of the one in whose place it is served.
func examine(ctx context.Context, old core.Examined) func(context.Context, core.Examined) error {
	check := trial.Examine(ctx, examined(old))
	return func(ctx context.Context, next core.Examined) error { return check(ctx, examined(next)) }
}

func examined(m core.Examined) trial.Serving {
	return trial.Serving{
		Metadata: channel.Metadata{Engine: m.Status.Engine, Inputs: m.Status.Inputs, Outputs: m.Status.Outputs},
		Ask: func(ctx context.Context, given []trial.Input) ([]trial.Output, error) {
			inputs := make([]core.Input, len(given))
			for i, in := range given {
				inputs[i] = core.Input{Name: m.Status.Inputs[i].Name, Type: m.Status.Inputs[i].Type, Shape: in.Shape, Data: core.Bytes(in.Data)}
			}
			answer, err := m.Ask(ctx, inputs)
			var outputs []trial.Output
			for _, o := range answer {
				outputs = append(outputs, trial.Output(o))
			}
			return outputs, err
		},
	}
}

func reshapes(tensors map[string]object.TensorReshape) (list []core.Reshape) {
	for _, name := range slices.Sorted(maps.Keys(tensors)) {
		list = append(list, core.Reshape{Name: name, Client: tensors[name].Dims, Model: tensors[name].Shape})
	}
	return list
}

// makeRoom unloads the model that is loaded on demand and was used least recently,
// where an object would have room without all of these. A model makes no room for
// itself, and one that is loaded on demand none for instances after its first: they
// wait for room that is free.
func (n *Node) makeRoom(ctx context.Context, obj object.Placeable) bool {
	own, instance := obj.Key().Instance()
	if m, ok := obj.(*object.Model); ok && m.OnDemand() && instance > 0 {
		return false
	}
	idle := slices.DeleteFunc(n.registry.Evictable(), func(name string) bool {
		return own == object.Key{Kind: object.KindModel, Name: name}
	})
	var ids []string
	for _, name := range idle {
		now, err := n.registry.Status(name)
		if err != nil {
			continue // it was removed meanwhile
		}
		for i := range now.Instances {
			ids = append(ids, object.InstanceKey(object.Key{Kind: object.KindModel, Name: name}, i).ID())
		}
	}
	if len(idle) == 0 || !n.placer.FitsWithout(ctx, obj, ids) {
		return false
	}
	for _, name := range idle {
		if n.registry.Evict(ctx, name) {
			n.log.Info("a model was unloaded to make room", "model", name, "for", obj.Key().String())
			return true
		}
	}
	return false
}

// Withdraw implements model.Server.
func (s server) Withdraw(name string) error {
	if err := s.registry.Remove(name); !errors.Is(err, core.ErrNotFound) {
		return err
	}
	return nil
}

// Serving implements model.Server.
func (s server) Serving(name string) (model.Serving, bool) {
	now, err := s.registry.Status(name)
	if err != nil {
		return model.Serving{}, false
	}
	return model.Serving{
		Phase: servingPhases[now.State], Message: now.Message, Restarts: now.Restarts,
		Fill: func(st *object.ModelStatus) {
			st.Engine, st.Requests, st.Errors = now.Engine, now.Requests, now.Errors
			st.Missed, st.Expired, st.PriorityUnavailable, st.BatchingStopped = now.Missed, now.Expired, now.PriorityUnavailable, now.BatchingStopped
			st.CacheHits, st.CacheMisses = now.Cache.Hits, now.Cache.Misses
			st.Sequences, st.Loads, st.Evictions = now.Sequences, now.Loads, now.Evicted
			st.Instances = nil
			for _, in := range now.Instances {
				if len(now.Instances) > 1 {
					st.Instances = append(st.Instances, object.ModelInstance{Phase: servingPhases[in.State], Message: in.Message, Restarts: in.Restarts, Runs: in.Runs})
				}
			}
			for _, p := range now.Curve {
				st.Costs = append(st.Costs, object.ModelCost{Rows: math.Round(10*p.Rows) / 10, Time: object.Duration(p.Time)})
			}
			if now.Requests > 0 {
				st.P50, st.P99 = object.Duration(now.P50), object.Duration(now.P99)
			}
		},
	}, true
}

// Try implements model.Server.
func (s server) Try(ctx context.Context, w *model.Worker, limit time.Duration) (*trial.Result, error) {
	return trial.Run(ctx, worker{w}, limit)
}

// processors are what engines compute on: the kind of the processors and what they
// can do, as the kernel names them.
func processors(cpuinfo string) string {
	text, err := os.ReadFile(cpuinfo)
	if err != nil {
		return runtime.GOARCH
	}
	lines := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		switch key, _, _ := strings.Cut(line, ":"); strings.TrimSpace(key) {
		case "model name", "stepping", "flags", "Features", "CPU implementer", "CPU part", "CPU variant":
			lines[strings.TrimSpace(line)] = true
		}
	}
	return runtime.GOARCH + "\n" + strings.Join(slices.Sorted(maps.Keys(lines)), "\n")
}

// WorkerArgs implements model.Server.
func (s server) WorkerArgs() []string {
	return core.WorkerArgs(filepath.Join(core.SocketDir, core.SocketName))
}

// starter starts a model's worker.
type starter func(context.Context) (*model.Worker, error)

// Start implements core.Starter.
func (s starter) Start(ctx context.Context) (core.Worker, error) {
	w, err := s(ctx)
	if err != nil {
		return nil, err
	}
	return worker{w}, nil
}

// worker is a model's worker as the registry sees it.
type worker struct{ *model.Worker }

// Wait implements core.Worker.
func (w worker) Wait() error {
	err := w.Worker.Wait()
	if errors.Is(err, model.ErrMemory) {
		return fmt.Errorf("%w: %w", core.ErrMemory, err)
	}
	return err
}

// Load implements core.Worker.
func (w worker) Load() channel.Load {
	return channel.Load{Path: w.Model(), Threads: w.Threads(), Options: w.Options(), Name: w.ServedAs(), Memory: w.Memory()}
}
