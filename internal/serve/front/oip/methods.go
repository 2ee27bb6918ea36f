package oip

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/serve/core"
	pb "oscine.dev/oscine/internal/serve/front/oip/inferencepb"
	"oscine.dev/oscine/internal/serve/region"
	"oscine.dev/oscine/internal/tensor"
	"oscine.dev/oscine/internal/version"
)

// Methods are those of the protocol besides inference, whichever transport
// brings them. Their errors have the classes of containerd's errdefs.
type Methods struct{ registry *core.Registry }

// NewMethods returns the methods on the models of r.
func NewMethods(r *core.Registry) *Methods { return &Methods{r} }

// extensions are those that are whole.
func extensions() []string {
	return []string{"binary_tensor_data", "classification", "model_configuration", "schedule_policy", "sequence", "statistics"}
}

// ServerMetadata says what answers, and by which extensions.
func (m *Methods) ServerMetadata(context.Context, *pb.ServerMetadataRequest) (*pb.ServerMetadataResponse, error) {
	return &pb.ServerMetadataResponse{Name: "oscine", Version: version.Version, Extensions: extensions()}, nil
}

// ServerLive says that the server answers.
func (m *Methods) ServerLive(context.Context, *pb.ServerLiveRequest) (*pb.ServerLiveResponse, error) {
	return &pb.ServerLiveResponse{Live: true}, nil
}

// ServerReady says whether all models that the client may ask answer.
func (m *Methods) ServerReady(ctx context.Context, _ *pb.ServerReadyRequest) (*pb.ServerReadyResponse, error) {
	return &pb.ServerReadyResponse{Ready: m.notReady(ctx) == nil}, nil
}

// notReady says which model does not answer.
func (m *Methods) notReady(ctx context.Context) error {
	for _, s := range m.registry.List(ctx) {
		if !s.Answers() {
			return fmt.Errorf("%w: %s", errdefs.ErrUnavailable, s.Reason())
		}
	}
	return nil
}

// ModelReady says whether a model answers; one that is not known is not ready.
func (m *Methods) ModelReady(ctx context.Context, q *pb.ModelReadyRequest) (*pb.ModelReadyResponse, error) {
	s, err := m.registry.StatusOf(ctx, q.Name, q.Version)
	if err != nil && !errors.Is(err, core.ErrNotFound) {
		return nil, err
	}
	return &pb.ModelReadyResponse{Ready: err == nil && s.Answers()}, nil
}

// described returns a model whose worker has said what it takes. One that is loaded
// on demand is loaded for it, once.
func (m *Methods) described(ctx context.Context, name, version string) (core.Status, error) {
	s, err := m.registry.StatusOf(ctx, name, version)
	if err == nil && len(s.Outputs) == 0 && s.OnDemand && s.Answers() {
		if _, err := m.registry.Ready(ctx, name, version); err != nil {
			return s, err
		}
		s, err = m.registry.StatusOf(ctx, name, version)
	}
	if err == nil && len(s.Outputs) == 0 {
		err = fmt.Errorf("%w: %s", core.ErrNotReady, s.Reason())
	}
	return s, err
}

// ModelMetadata says what a model takes and gives.
func (m *Methods) ModelMetadata(ctx context.Context, q *pb.ModelMetadataRequest) (*pb.ModelMetadataResponse, error) {
	s, err := m.described(ctx, q.Name, q.Version)
	if err != nil {
		return nil, err
	}
	list := func(specs []tensor.Spec) []*pb.ModelMetadataResponse_TensorMetadata {
		out := make([]*pb.ModelMetadataResponse_TensorMetadata, len(specs))
		for i, s := range specs {
			out[i] = &pb.ModelMetadataResponse_TensorMetadata{Name: s.Name, Datatype: s.Type.String(), Shape: s.Dimensions()}
		}
		return out
	}
	return &pb.ModelMetadataResponse{Name: s.ServedAs, Versions: s.Versions, Platform: s.Platform, Inputs: list(s.Inputs), Outputs: list(s.Outputs)}, nil
}

// ModelConfig says of a model what Triton's clients ask for.
func (m *Methods) ModelConfig(ctx context.Context, q *pb.ModelConfigRequest) (*pb.ModelConfigResponse, error) {
	s, err := m.described(ctx, q.Name, q.Version)
	if err != nil {
		return nil, err
	}
	backend, _, _ := strings.Cut(s.Platform, "_")
	c := &pb.ModelConfig{Name: s.ServedAs, Platform: s.Platform, Backend: backend, ModelTransactionPolicy: &pb.ModelTransactionPolicy{Decoupled: s.Streams}}
	if states := s.Sequencing.States; len(states) > 0 {
		c.SequenceBatching = &pb.ModelSequenceBatching{MaxSequenceIdleMicroseconds: uint64(s.Sequencing.Idle.Microseconds()), StrategyChoice: &pb.ModelSequenceBatching_Direct{Direct: &pb.ModelSequenceBatching_StrategyDirect{}}}
		for _, state := range states {
			c.SequenceBatching.State = append(c.SequenceBatching.State, &pb.ModelSequenceBatching_State{InputName: state.Input, OutputName: state.Output, DataType: configType(state.Type), Dims: state.Shape})
		}
	}
	if e := s.Ensemble; e != nil {
		c.EnsembleScheduling = &pb.ModelEnsembling{}
		for _, step := range e.Steps {
			version, err := strconv.ParseInt(step.Version, 10, 64)
			if err != nil {
				version = -1
			}
			c.EnsembleScheduling.Step = append(c.EnsembleScheduling.Step, &pb.ModelEnsembling_Step{ModelName: step.Model, ModelVersion: version, InputMap: step.Inputs, OutputMap: step.Outputs})
		}
	}
	if s.Cache.On {
		c.ResponseCache = &pb.ModelResponseCache{Enable: true}
	}
	for _, in := range s.Inputs {
		c.Input = append(c.Input, &pb.ModelInput{Name: in.Name, DataType: configType(in.Type), Dims: in.Dimensions()})
	}
	for _, out := range s.Outputs {
		c.Output = append(c.Output, &pb.ModelOutput{Name: out.Name, DataType: configType(out.Type), Dims: out.Dimensions()})
	}
	return &pb.ModelConfigResponse{Config: c}, nil
}

// configType is the name of a type in a model's configuration.
func configType(d tensor.DataType) pb.DataType {
	if d == tensor.Bytes {
		return pb.DataType_TYPE_STRING
	}
	return pb.DataType(pb.DataType_value["TYPE_"+d.String()])
}

// ModelStatistics says what has been counted of a model, or of all of them.
func (m *Methods) ModelStatistics(ctx context.Context, q *pb.ModelStatisticsRequest) (*pb.ModelStatisticsResponse, error) {
	var list []core.Status
	if q.Name == "" {
		list = m.registry.List(ctx)
	} else {
		s, err := m.registry.StatusOf(ctx, q.Name, q.Version)
		if err != nil {
			return nil, err
		}
		if list = []core.Status{s}; q.Version == "" && len(s.Versions) > 1 {
			list = m.versions(ctx, s)
		}
	}
	out := &pb.ModelStatisticsResponse{}
	for _, s := range list {
		durations, err := m.registry.Durations(s.Name, nil)
		if err != nil {
			continue // it was removed meanwhile
		}
		work, err := m.registry.Work(s.Name)
		if err != nil {
			continue
		}
		stats := &pb.ModelStatistics{
			Name: s.ServedAs, Version: s.Version, InferenceCount: durations.Count, ExecutionCount: uint64(max(work.Runs, 0)),
			InferenceStats: &pb.InferStatistics{
				Success:      &pb.StatisticDuration{Count: durations.Count, Ns: uint64(durations.Sum)},
				Fail:         &pb.StatisticDuration{Count: uint64(s.Errors)},
				ComputeInfer: &pb.StatisticDuration{Count: uint64(max(work.Requests, 0)), Ns: uint64(max(work.ComputeNS, 0))},
			},
		}
		if cache := s.Cache; cache.On {
			stats.InferenceStats.CacheHit = &pb.StatisticDuration{Count: uint64(cache.Hits), Ns: uint64(cache.HitTime)}
			stats.InferenceStats.CacheMiss = &pb.StatisticDuration{Count: uint64(cache.Misses), Ns: uint64(cache.MissTime)}
		}
		if !s.Last.IsZero() {
			stats.LastInference = uint64(s.Last.UnixMilli())
		}
		out.ModelStats = append(out.ModelStats, stats)
	}
	return out, nil
}

// versions returns all versions of a model of which one is given.
func (m *Methods) versions(ctx context.Context, one core.Status) []core.Status {
	var list []core.Status
	for _, version := range one.Versions {
		if s, err := m.registry.StatusOf(ctx, one.ServedAs, version); err == nil {
			list = append(list, s)
		}
	}
	return list
}

// RepositoryIndex lists the models.
func (m *Methods) RepositoryIndex(ctx context.Context, q *pb.RepositoryIndexRequest) (*pb.RepositoryIndexResponse, error) {
	out := &pb.RepositoryIndexResponse{}
	for _, s := range m.registry.List(ctx) {
		e := &pb.RepositoryIndexResponse_ModelIndex{Name: s.ServedAs, Version: s.Version, State: "READY"}
		switch s.State {
		case core.Ready:
		case core.Idle:
			e.State, e.Reason = "UNAVAILABLE", "idle: it is loaded by its next request, or by a load"
		case core.Starting:
			e.State, e.Reason = "LOADING", s.Reason()
		default:
			e.State, e.Reason = "UNAVAILABLE", s.Reason()
		}
		if s.State == core.Ready || !q.Ready {
			out.Models = append(out.Models, e)
		}
	}
	return out, nil
}

// RepositoryModelLoad waits until a model that the node serves answers. How it is
// served is its manifest's matter.
func (m *Methods) RepositoryModelLoad(ctx context.Context, q *pb.RepositoryModelLoadRequest) (*pb.RepositoryModelLoadResponse, error) {
	if len(q.Parameters) > 0 {
		return nil, fmt.Errorf("%w: a load with parameters, such as another configuration or other files, is not supported: change the model's manifest", core.ErrInvalid)
	}
	s, err := m.registry.StatusOf(ctx, q.ModelName, "")
	if err != nil {
		return nil, fmt.Errorf("%w: operators decide what is served, with oscine serve", err)
	}
	return &pb.RepositoryModelLoadResponse{}, m.registry.WaitReady(ctx, s.Name)
}

// RepositoryModelUnload refuses, as Triton does where its models are not
// controlled explicitly.
func (m *Methods) RepositoryModelUnload(_ context.Context, q *pb.RepositoryModelUnloadRequest) (*pb.RepositoryModelUnloadResponse, error) {
	return nil, fmt.Errorf("%w: model %.100q is not unloaded by clients of inference: operators decide what is served, with oscine delete", errdefs.ErrUnavailable, q.ModelName)
}

// SystemSharedMemoryStatus lists the regions of the client's connection.
func (m *Methods) SystemSharedMemoryStatus(ctx context.Context, q *pb.SystemSharedMemoryStatusRequest) (*pb.SystemSharedMemoryStatusResponse, error) {
	a := &pb.SystemSharedMemoryStatusResponse{Regions: map[string]*pb.SystemSharedMemoryStatusResponse_RegionStatus{}}
	if regions := region.Of(ctx); regions != nil {
		for _, s := range regions.List() {
			if q.Name == "" || q.Name == s.Name {
				a.Regions[s.Name] = &pb.SystemSharedMemoryStatusResponse_RegionStatus{Name: s.Name, Key: s.Key, Offset: s.Offset, ByteSize: s.Size}
			}
		}
	}
	return a, nil
}

// SystemSharedMemoryRegister names the memfd that came with the request. The key
// is only kept: the daemon would read and write, with its own rights, whatever file
// in /dev/shm a client names.
func (m *Methods) SystemSharedMemoryRegister(ctx context.Context, q *pb.SystemSharedMemoryRegisterRequest) (*pb.SystemSharedMemoryRegisterResponse, error) {
	regions := region.Of(ctx)
	if regions == nil {
		return nil, fmt.Errorf("%w: clients' shared memory is not supported on this connection: send the tensors with the request; workloads hand over a memfd on the node's Unix socket (docs/inference.md)", errdefs.ErrNotImplemented)
	}
	if err := regions.Register(region.Status{Name: q.Name, Key: q.Key, Offset: q.Offset, Size: q.ByteSize}); err != nil {
		return nil, err
	}
	return &pb.SystemSharedMemoryRegisterResponse{}, nil
}

// SystemSharedMemoryUnregister forgets a region, or all; one that is not known is
// no error, as with Triton.
func (m *Methods) SystemSharedMemoryUnregister(ctx context.Context, q *pb.SystemSharedMemoryUnregisterRequest) (*pb.SystemSharedMemoryUnregisterResponse, error) {
	if regions := region.Of(ctx); regions != nil {
		regions.Unregister(q.Name)
	}
	return &pb.SystemSharedMemoryUnregisterResponse{}, nil
}

// TraceSetting says that nothing is traced.
func (m *Methods) TraceSetting(ctx context.Context, q *pb.TraceSettingRequest) (*pb.TraceSettingResponse, error) {
	if q.ModelName != "" {
		if _, err := m.registry.StatusOf(ctx, q.ModelName, ""); err != nil {
			return nil, err
		}
	}
	if len(q.Settings) > 0 {
		return nil, fmt.Errorf("%w: requests are not traced: the settings cannot be changed", errdefs.ErrNotImplemented)
	}
	return &pb.TraceSettingResponse{Settings: map[string]*pb.TraceSettingResponse_SettingValue{
		"trace_level": {Value: []string{"OFF"}}, "trace_rate": {Value: []string{"0"}}, "trace_count": {Value: []string{"0"}},
	}}, nil
}

// LogSettings says what the node logs of inference.
func (m *Methods) LogSettings(_ context.Context, q *pb.LogSettingsRequest) (*pb.LogSettingsResponse, error) {
	if len(q.Settings) > 0 {
		return nil, fmt.Errorf("%w: clients of inference do not change the node's log: see oscined --debug", errdefs.ErrNotImplemented)
	}
	flag := func(v bool) *pb.LogSettingsResponse_SettingValue {
		return &pb.LogSettingsResponse_SettingValue{ParameterChoice: &pb.LogSettingsResponse_SettingValue_BoolParam{BoolParam: v}}
	}
	return &pb.LogSettingsResponse{Settings: map[string]*pb.LogSettingsResponse_SettingValue{
		"log_info": flag(true), "log_warning": flag(true), "log_error": flag(true),
	}}, nil
}
