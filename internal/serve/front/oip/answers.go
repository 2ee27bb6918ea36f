package oip

import (
	"encoding/json"
	"fmt"
	"net/http"

	"google.golang.org/protobuf/proto"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/front"
	pb "oscine.dev/oscine/internal/serve/front/oip/inferencepb"
)

// answer writes what a method returned, or what part says of it.
func answer[A proto.Message](w http.ResponseWriter, a A, err error, part ...func([]byte, A) []byte) {
	if err != nil {
		front.Error(w, err)
		return
	}
	var b []byte
	if len(part) > 0 {
		b = part[0](nil, a)
	} else {
		b = appendMessage(nil, a)
	}
	w.Header().Set("Content-Type", "application/json")
	front.Send(w, http.StatusOK, b)
}

func (h *handler) server(w http.ResponseWriter, r *http.Request) {
	a, err := h.methods.ServerMetadata(r.Context(), &pb.ServerMetadataRequest{})
	answer(w, a, err)
}

func (h *handler) live(w http.ResponseWriter, r *http.Request) {
	a, err := h.methods.ServerLive(r.Context(), &pb.ServerLiveRequest{})
	answer(w, a, err)
}

func (h *handler) ready(w http.ResponseWriter, r *http.Request) {
	if err := h.methods.notReady(r.Context()); err != nil {
		front.JSON(w, http.StatusServiceUnavailable, map[string]any{"ready": false, "error": err.Error()})
		return
	}
	front.JSON(w, http.StatusOK, map[string]bool{"ready": true})
}

func (h *handler) modelReady(w http.ResponseWriter, r *http.Request) {
	s, err := h.registry.StatusOf(r.Context(), r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		front.Error(w, err)
		return
	}
	if !s.Answers() {
		front.JSON(w, http.StatusServiceUnavailable, map[string]any{"name": s.ServedAs, "ready": false, "error": s.Reason()})
		return
	}
	front.JSON(w, http.StatusOK, map[string]any{"name": s.ServedAs, "ready": true})
}

func (h *handler) metadata(w http.ResponseWriter, r *http.Request) {
	a, err := h.methods.ModelMetadata(r.Context(), &pb.ModelMetadataRequest{Name: r.PathValue("model"), Version: r.PathValue("version")})
	answer(w, a, err)
}

func (h *handler) config(w http.ResponseWriter, r *http.Request) {
	a, err := h.methods.ModelConfig(r.Context(), &pb.ModelConfigRequest{Name: r.PathValue("model"), Version: r.PathValue("version")})
	answer(w, a, err, func(b []byte, a *pb.ModelConfigResponse) []byte { return appendMessage(b, a.Config) })
}

func (h *handler) statistics(w http.ResponseWriter, r *http.Request) {
	a, err := h.methods.ModelStatistics(r.Context(), &pb.ModelStatisticsRequest{Name: r.PathValue("model"), Version: r.PathValue("version")})
	answer(w, a, err)
}

// object reads a body that is one JSON object, or nothing.
func (h *handler) object(w http.ResponseWriter, r *http.Request, into any) error {
	body, err := h.options.Body(w, r)
	if err != nil {
		return err
	}
	defer body.Close()
	body.AtMost(front.MaxControl)
	text, err := body.All(nil)
	if err != nil || len(text) == 0 {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%w: the body is not the JSON that is asked for: %w", core.ErrInvalid, err)
	}
	return nil
}

func (h *handler) index(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Ready bool `json:"ready"`
	}
	if err := h.object(w, r, &q); err != nil {
		front.Error(w, err)
		return
	}
	a, err := h.methods.RepositoryIndex(r.Context(), &pb.RepositoryIndexRequest{Ready: q.Ready})
	answer(w, a, err, func(b []byte, a *pb.RepositoryIndexResponse) []byte { return appendList(b, a.Models) })
}

// appendList writes messages as an array.
func appendList[M proto.Message](b []byte, list []M) []byte {
	b = append(b, '[')
	for i, m := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendMessage(b, m)
	}
	return append(b, ']')
}

func (h *handler) load(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Parameters map[string]json.RawMessage `json:"parameters"`
	}
	if err := h.object(w, r, &body); err != nil {
		front.Error(w, err)
		return
	}
	q := &pb.RepositoryModelLoadRequest{ModelName: r.PathValue("model"), Parameters: map[string]*pb.ModelRepositoryParameter{}}
	for name := range body.Parameters {
		q.Parameters[name] = &pb.ModelRepositoryParameter{} // none of them means anything
	}
	a, err := h.methods.RepositoryModelLoad(r.Context(), q)
	answer(w, a, err)
}

func (h *handler) unload(w http.ResponseWriter, r *http.Request) {
	a, err := h.methods.RepositoryModelUnload(r.Context(), &pb.RepositoryModelUnloadRequest{ModelName: r.PathValue("model")})
	answer(w, a, err)
}

func (h *handler) regions(w http.ResponseWriter, r *http.Request) {
	a, err := h.methods.SystemSharedMemoryStatus(r.Context(), &pb.SystemSharedMemoryStatusRequest{Name: r.PathValue("region")})
	answer(w, a, err, func(b []byte, a *pb.SystemSharedMemoryStatusResponse) []byte {
		var list []*pb.SystemSharedMemoryStatusResponse_RegionStatus
		for _, region := range a.Regions {
			list = append(list, region)
		}
		return appendList(b, list)
	})
}

func (h *handler) register(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Key      string `json:"key"`
		Offset   uint64 `json:"offset"`
		ByteSize uint64 `json:"byte_size"`
	}
	if err := h.object(w, r, &q); err != nil {
		front.Error(w, err)
		return
	}
	a, err := h.methods.SystemSharedMemoryRegister(r.Context(), &pb.SystemSharedMemoryRegisterRequest{Name: r.PathValue("region"), Key: q.Key, Offset: q.Offset, ByteSize: q.ByteSize})
	answer(w, a, err)
}

func (h *handler) unregister(w http.ResponseWriter, r *http.Request) {
	a, err := h.methods.SystemSharedMemoryUnregister(r.Context(), &pb.SystemSharedMemoryUnregisterRequest{Name: r.PathValue("region")})
	answer(w, a, err)
}

// traceSettings writes the settings themselves, of which each is a list or, where
// it has one value, that.
func traceSettings(b []byte, a *pb.TraceSettingResponse) []byte {
	out := map[string]any{}
	for name, v := range a.Settings {
		if out[name] = v.Value; name != "trace_level" && len(v.Value) == 1 {
			out[name] = v.Value[0]
		}
	}
	return appendJSON(b, out)
}

func appendJSON(b []byte, v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		return append(b, "{}"...)
	}
	return append(b, text...)
}

func (h *handler) trace(w http.ResponseWriter, r *http.Request) {
	a, err := h.methods.TraceSetting(r.Context(), &pb.TraceSettingRequest{ModelName: r.PathValue("model")})
	answer(w, a, err, traceSettings)
}

func (h *handler) setTrace(w http.ResponseWriter, r *http.Request) {
	var settings map[string]json.RawMessage
	if err := h.object(w, r, &settings); err != nil {
		front.Error(w, err)
		return
	}
	q := &pb.TraceSettingRequest{ModelName: r.PathValue("model"), Settings: map[string]*pb.TraceSettingRequest_SettingValue{}}
	for name, v := range settings {
		q.Settings[name] = &pb.TraceSettingRequest_SettingValue{Value: []string{string(v)}}
	}
	a, err := h.methods.TraceSetting(r.Context(), q)
	answer(w, a, err, traceSettings)
}

func logSettings(b []byte, a *pb.LogSettingsResponse) []byte {
	out := map[string]any{}
	for name, v := range a.Settings {
		out[name] = v.GetBoolParam()
	}
	return appendJSON(b, out)
}

func (h *handler) logging(w http.ResponseWriter, r *http.Request) {
	a, err := h.methods.LogSettings(r.Context(), &pb.LogSettingsRequest{})
	answer(w, a, err, logSettings)
}

func (h *handler) setLogging(w http.ResponseWriter, r *http.Request) {
	var settings map[string]json.RawMessage
	if err := h.object(w, r, &settings); err != nil {
		front.Error(w, err)
		return
	}
	q := &pb.LogSettingsRequest{Settings: map[string]*pb.LogSettingsRequest_SettingValue{}}
	for name, v := range settings {
		q.Settings[name] = &pb.LogSettingsRequest_SettingValue{ParameterChoice: &pb.LogSettingsRequest_SettingValue_StringParam{StringParam: string(v)}}
	}
	a, err := h.methods.LogSettings(r.Context(), q)
	answer(w, a, err, logSettings)
}
